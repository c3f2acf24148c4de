"""A tree that grows by one turn at a time ends as one that was built at once, and refuses what breaks a rule."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esckit.conversation import (
    REASONS,
    Conversation,
    GrowingTree,
    Preference,
    Turn,
    Verdict,
    check_conversation,
    conversation_to_json,
    parse_conversation,
)
from esckit.errors import CorpusError
from tests.trees import small_tree, trees


def ids(turns: Any) -> list[str]:
    return [turn.id for turn in turns]


@given(trees(), st.data())
def test_built_turn_by_turn_it_is_the_same_tree_and_is_walked_the_same_way(
    tree: Conversation, data: st.DataObject
) -> None:
    growing = GrowingTree(Conversation(tree.id, [], taxonomy=tree.taxonomy))
    for turn in tree.turns:
        growing.add(turn)
        if data.draw(st.booleans()):  # between steps everything is asked, so that nothing remembered stays stale
            now = growing.conversation
            fresh = Conversation(tree.id, [*now.turns], taxonomy=tree.taxonomy)
            assert now.trunk == fresh.trunk
            assert now.path(turn.id) == fresh.path(turn.id)
            for parent in (None, *ids(now.turns)):
                assert now.children(parent) == fresh.children(parent)
    for preference in tree.preferences:
        growing.prefer(preference)
    assert growing.finish().turns == tree.turns
    assert growing.finish().preferences == list(dict.fromkeys(tree.preferences))


def test_the_start_and_what_is_finished_stay_as_they_are() -> None:
    start = small_tree()
    growing = GrowingTree(start)
    growing.add(Turn("n", "1", "supporter", "Tell me more.", "Question"))
    done = growing.finish()
    growing.update("n", scores={"value": 0.5})
    growing.add(Turn("o", "n", "seeker", "Well."))
    growing.prefer(Preference("1", "p", "strategy"))
    assert start == small_tree()
    assert ids(done.turns) == [*ids(start.turns), "n"]
    assert done.turn("n").scores == {}
    assert done.preferences == start.preferences


def test_scores_change_by_name_wherever_the_turn_is_seen() -> None:
    growing = GrowingTree(small_tree())
    growing.update("1", scores={"prior": 0.2, "value": 1.0, "visits": 1})
    assert growing.conversation.trunk[1].scores["value"] == 1.0
    growing.update("1", scores={"value": 0.5, "visits": 2})
    now, wanted = growing.conversation, {"prior": 0.2, "value": 0.5, "visits": 2}
    seen = [
        now.turn("1"),
        now.trunk[1],
        now.path("2")[1],
        now.children("0")[0],
        now.turns[1],
        growing.finish().turns[1],
    ]
    assert [turn.scores for turn in seen] == [wanted] * 6
    assert ids(now.turns) == ids(small_tree().turns)


def test_a_judge_that_judges_again_takes_its_verdict_back() -> None:
    growing = GrowingTree(small_tree())
    growing.update("m", verdicts=[Verdict("a", "r", "other"), Verdict("b", "r")])
    turn = growing.update("m", verdicts=[Verdict("a", "r", "lack_of_empathy"), Verdict("a", "s")])
    said = [(verdict.judge, verdict.rubric, verdict.error) for verdict in turn.verdicts]
    assert said == [("a", "r", "lack_of_empathy"), ("b", "r", None), ("a", "s", None)]


def test_a_verdict_leaves_all_that_others_said() -> None:
    growing = GrowingTree(small_tree())
    growing.conversation.turns[1].verdicts.extend([Verdict("people", "r", "other")] * 2)
    turn = growing.update("1", verdicts=[Verdict("a", "r")])
    assert [verdict.judge for verdict in turn.verdicts] == ["people", "people", "a"]


def test_a_planned_turn_can_be_worded_once_and_then_answered() -> None:
    growing = GrowingTree(small_tree())
    with pytest.raises(CorpusError, match="its parent 'p' is planned"):
        growing.add(Turn("q", "p", "seeker", "Hm."))
    growing.update("p", text="What went wrong?", scores={"visits": 1})
    growing.add(Turn("q", "p", "seeker", "Hm."))
    assert ids(growing.finish().path("q")) == ["0", "p", "q"]
    with pytest.raises(CorpusError, match="turn 'p': it has words already"):
        growing.update("p", text="Why?")


Step = Callable[[GrowingTree], object]

WRONG: dict[str, tuple[Step, str]] = {
    "a turn twice": (lambda t: t.add(Turn("1", "0", "seeker", "Hm.")), "turn '1': the id occurs twice"),
    "no parent": (
        lambda t: t.add(Turn("n", "9", "seeker", "Hm.")),
        "turn 'n': its parent '9' does not stand before it",
    ),
    "label": (lambda t: t.add(Turn("n", "0", "supporter", "Hm.", "Advice")), "turn 'n': unknown strategy 'Advice'"),
    "value that is no number": (
        lambda t: t.update("1", scores={"value": float("nan")}),
        "turn '1': the score 'value' is nan; scores are finite numbers.",
    ),
    "value of a new turn": (
        lambda t: t.add(Turn("n", "0", "seeker", "Hm.", scores={"value": float("inf")})),
        "turn 'n': the score 'value' is inf; scores are finite numbers.",
    ),
    "value of a verdict": (
        lambda t: t.update("1", verdicts=[Verdict("j", "r", scores={"empathy": True})]),
        "turn '1': the score 'empathy' is True; scores are finite numbers.",
    ),
    "error": (lambda t: t.update("1", verdicts=[Verdict("j", "r", "rude")]), "turn '1': unknown error type 'rude'"),
    "preference": (lambda t: t.prefer(Preference("1", "2", "turn")), "'1' over '2': they are not two siblings"),
}


@pytest.mark.parametrize(("step", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_step_that_breaks_a_rule_is_refused_and_changes_nothing(step: Step, message: str) -> None:
    growing = GrowingTree(small_tree())
    with pytest.raises(CorpusError) as error:
        step(growing)
    assert message in str(error.value)
    assert growing.finish() == small_tree()
    assert ids(growing.conversation.children("0")) == ids(small_tree().children("0"))


def test_a_turn_that_is_not_there_cannot_be_updated() -> None:
    with pytest.raises(KeyError):
        GrowingTree(small_tree()).update("nowhere", scores={"value": 1})


# -------------------------------------------------------------------------------------------------------------- reasons


def test_a_method_adds_its_reasons_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REASONS, "search", ("search_value",))
    over = Preference("1", "m", "turn", "search_value", "a-search", reasons="search")
    growing = GrowingTree(small_tree(preferences=[over]))
    growing.update("m", verdicts=[Verdict("j", "r", "search_value", reasons="search"), Verdict("k", "r", "other")])
    tree = growing.finish()
    record = conversation_to_json(tree)
    assert record["preferences"][0]["reasons"] == "search"
    assert [verdict.get("reasons") for verdict in record["turns"][3]["verdicts"]] == ["search", None]
    assert parse_conversation(json.dumps(record)) == tree


@pytest.mark.parametrize(
    ("preference", "message"),
    [
        (
            Preference("1", "m", "turn", "other", reasons="nobody's"),
            'unknown taxonomy of reasons "nobody\'s"; known are',
        ),
        (Preference("1", "m", "turn", "search_value"), "unknown reason 'search_value'; allowed are strategy_mismatch,"),
        (
            Preference("1", "m", "turn", "other", reasons="search"),
            "unknown reason 'other'; allowed are search_value, or",
        ),
    ],
)
def test_a_reason_of_no_taxonomy_or_of_another_is_refused(
    preference: Preference, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REASONS, "search", ("search_value",))
    with pytest.raises(CorpusError) as error:
        check_conversation(small_tree(preferences=[preference]))
    assert message in str(error.value)


def test_what_breaks_a_rule_is_not_written() -> None:
    with pytest.raises(CorpusError, match="turn '0': the id occurs twice"):
        conversation_to_json(small_tree(turns=[*small_tree().turns, Turn("0", None, "seeker", "Hi.")]))
