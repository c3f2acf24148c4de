"""The tree: how it is walked and grown, every rule of it, and its way to disk and back."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from esckit.conversation import (
    Conversation,
    Preference,
    Turn,
    Verdict,
    check_conversation,
    conversation_problems,
    conversation_to_json,
    mined_id,
    parse_conversation,
    read_conversations,
    validate_conversation,
    write_conversations,
)
from esckit.errors import CorpusError
from tests.trees import small_tree, trees

SEEKER = Turn("0", None, "seeker", "Hello.")


def ids(turns: Any) -> list[str]:
    return [turn.id for turn in turns]


# -------------------------------------------------------------------------------------------------------- walk and grow


def test_the_trunk_is_the_path_of_first_children() -> None:
    assert ids(small_tree().trunk) == ["0", "1", "2"]
    assert Conversation("empty", []).trunk == []


def test_children_keep_their_order_and_first_turns_are_siblings_too() -> None:
    tree = small_tree()
    assert ids(tree.children("0")) == ["1", "m", "p"]
    assert ids(tree.children(None)) == ["0", "alt"]
    assert ids(tree.children("p")) == []


def test_a_path_runs_from_the_first_turn_to_the_one_asked_for() -> None:
    tree = small_tree()
    assert ids(tree.path("p")) == ["0", "p"]
    assert tree.path(None) == []
    with pytest.raises(KeyError):
        tree.path("nowhere")


def test_turn_finds_by_id() -> None:
    assert small_tree().turn("m").text == "Study more."
    with pytest.raises(KeyError):
        small_tree().turn("nowhere")


def test_growing_adds_siblings_behind_the_trunk_and_leaves_the_old_tree_alone() -> None:
    tree = small_tree()
    grown = tree.grow([Turn("n", "1", "seeker", "Not really.")], [Preference("m", "p", "strategy")])
    assert ids(grown.trunk) == ids(tree.trunk)
    assert ids(grown.children("1")) == ["2", "n"]
    assert grown.preferences == [*tree.preferences, Preference("m", "p", "strategy")]
    assert ids(tree.children("1")) == ["2"]


def test_growing_twice_adds_nothing_twice() -> None:
    turns = [Turn("n", "0", "supporter", "Tell me more.", "Question"), Turn("o", "n", "seeker", "Well.")]
    preferences = [Preference("1", "n", "turn"), Preference("1", "n", "turn")]
    once = small_tree().grow(turns, preferences)
    assert once.grow(turns, preferences) == once
    assert len(once.preferences) == 2
    assert len(small_tree().grow([*turns, *turns]).turns) == 8


def test_growing_checks_the_rules() -> None:
    with pytest.raises(CorpusError, match="its parent 'nowhere' does not stand before it"):
        small_tree().grow([Turn("n", "nowhere", "seeker", "Hm.")])


def test_a_mined_id_depends_on_all_that_makes_the_turn() -> None:
    base = mined_id("0", "model", "Question", "Why?")
    others = [("1", "model", "Question", "Why?"), ("0", "other", "Question", "Why?")]
    others += [("0", "model", "Others", "Why?"), ("0", "model", "Question", "Who?")]
    assert len({base, mined_id(None, "model", None, None), *(mined_id(*other) for other in others)}) == 6
    assert base == mined_id("0", "model", "Question", "Why?") == "9a8b86cef6a4ac76", "an id on disk must never change"


# ---------------------------------------------------------------------------------------------------------------- rules


def planned(turn_id: str, parent: str | None = "0", strategy: str | None = "Question") -> Turn:
    return Turn(turn_id, parent, "supporter", None, strategy)


def judged(**changes: Any) -> list[Turn]:
    return [Turn("0", None, "seeker", "Hello.", verdicts=[Verdict("judge", "rubric", **changes)])]


BROKEN_TREES: dict[str, tuple[dict[str, Any], str]] = {
    "format": ({"format": 2}, "conversation 'c' has format 2, this esckit reads format 1: install the esckit that"),
    "empty conversation id": ({"id": ""}, "conversation '' has an empty id: give every conversation a unique id."),
    "taxonomy": ({"taxonomy": "mine"}, "has the unknown taxonomy 'mine': use one of esconv, cso, annomi, or null."),
    "empty turn id": ({"turns": [Turn("", None, "seeker", "Hi.")]}, "turn '': the id is empty"),
    "turn id twice": ({"turns": [SEEKER, SEEKER]}, "turn '0': the id occurs twice"),
    "parent after child": (
        {"turns": [Turn("1", "0", "seeker", "Hi."), SEEKER]},
        "turn '1': its parent '0' does not stand before it; write parents before their children.",
    ),
    "its own parent": ({"turns": [Turn("1", "1", "seeker", "Hi.")]}, "its parent '1' does not stand before it"),
    "child of a planned turn": (
        {"turns": [SEEKER, planned("1"), Turn("2", "1", "seeker", "Hm.")]},
        "turn '2': its parent '1' is planned (a strategy without text) and can have no children.",
    ),
    "seeker with a strategy": (
        {"turns": [Turn("0", None, "seeker", "Hi.", "Question")]},
        "turn '0': a seeker turn carries the strategy 'Question'; only supporter turns have one.",
    ),
    "unknown strategy": (
        {"turns": [Turn("0", None, "supporter", "Hi.", "Advice")]},
        "turn '0': unknown strategy 'Advice'; allowed are Question, Restatement or Paraphrasing,",
    ),
    "strategy of another taxonomy": (
        {"taxonomy": "cso", "turns": [planned("0", None)]},
        "unknown strategy 'Question'; allowed are Emotional Validation,",
    ),
    "strategy without a taxonomy": (
        {"taxonomy": None, "turns": [planned("0", None)]},
        "unknown strategy 'Question'; allowed are none, as the taxonomy is null.",
    ),
    "neither text nor strategy": (
        {"turns": [planned("0", None, None)]},
        "turn '0': it has neither text nor strategy; give a text, or a supporter turn a strategy.",
    ),
    "seeker without text": ({"turns": [Turn("0", None, "seeker", None)]}, "it has neither text nor strategy"),
    "unknown error type": (
        {"turns": judged(error="rude")},
        "turn '0': unknown error type 'rude'; allowed are strategy_mismatch, lack_of_empathy,",
    ),
    "unparsed verdict with an error": (
        {"turns": judged(error="other", state="unparsed")},
        "the unparsed verdict of 'judge' carries a result; only a done verdict has one.",
    ),
    "refused verdict with scores": ({"turns": judged(scores={"e": 1.0}, state="refused")}, "the refused verdict of"),
}


@pytest.mark.parametrize(("changes", "message"), BROKEN_TREES.values(), ids=BROKEN_TREES.keys())
def test_a_tree_that_breaks_a_rule_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CorpusError) as error:
        check_conversation(small_tree(preferences=[], **changes))
    assert message in str(error.value)
    assert str(error.value).endswith(".")


BROKEN_PREFERENCES: dict[str, tuple[Preference, str]] = {
    "no such turn": (Preference("1", "9", "turn"), "there is no turn '9'; a preference names two turns of its conver"),
    "itself": (Preference("1", "1", "turn"), "they are not two siblings; a preference joins different turns of one"),
    "no siblings": (Preference("1", "alt", "turn"), "they are not two siblings"),
    "seeker turns": (Preference("0", "alt", "turn"), "one is a seeker's; preferences are about supporter turns."),
    "reason": (Preference("1", "m", "turn", "rude"), "unknown reason 'rude'; allowed are strategy_mismatch,"),
    "same strategies": (Preference("1", "same", "strategy"), "aspect strategy needs two different strategies."),
    "no strategy": (Preference("1", "bare", "strategy"), "aspect strategy needs two different strategies."),
    "response of a planned turn": (Preference("1", "p", "response"), "aspect response needs two texts, and one turn"),
    "turn against a planned turn": (Preference("p", "1", "turn"), "aspect turn needs two texts, and one turn is plan"),
    "response across strategies": (
        Preference("1", "m", "response"),
        "aspect response needs the same strategy on both sides; use aspect turn.",
    ),
}


@pytest.mark.parametrize(("preference", "message"), BROKEN_PREFERENCES.values(), ids=BROKEN_PREFERENCES.keys())
def test_a_preference_that_breaks_a_rule_is_refused(preference: Preference, message: str) -> None:
    tree = small_tree(preferences=[]).grow(
        [Turn("same", "0", "supporter", "Ouch.", "Reflection of feelings"), Turn("bare", "0", "supporter", "Ok.")]
    )
    with pytest.raises(CorpusError) as error:
        tree.grow(preferences=[preference])
    assert f"conversation 'c', preference {preference.chosen!r} over {preference.rejected!r}: {message}" in str(
        error.value
    )


def test_every_aspect_has_a_valid_use() -> None:
    same = Turn("same", "0", "supporter", "Ouch.", "Reflection of feelings")
    preferences = [Preference("1", "p", "strategy"), Preference("1", "same", "response"), Preference("1", "m", "turn")]
    check_conversation(small_tree(preferences=[]).grow([same], preferences))


# ------------------------------------------------------------------------------------------------------------- the disk


@given(trees())
def test_a_tree_comes_back_from_its_json(tree: Conversation) -> None:
    check_conversation(tree)
    assert parse_conversation(json.dumps(conversation_to_json(tree), ensure_ascii=False)) == tree


def test_a_file_comes_back_whatever_the_text_holds(tmp_path: Path) -> None:
    """Line separators that only str.splitlines knows must not end a record."""
    awkward = "a\u2028b\u2029c\x85d\x0be\x1cf\r\ng\ttab \U0001f642 \x00"
    trees = [small_tree(), small_tree(id="d", turns=[Turn("0", None, "seeker", awkward)], preferences=[])]
    path = tmp_path / "folder/trees.jsonl"
    write_conversations(path, trees)
    assert read_conversations(path) == trees
    assert len(path.read_bytes().split(b"\n")) == 3


def test_the_json_begins_with_the_format_and_leaves_out_what_is_empty() -> None:
    record = conversation_to_json(Conversation("c", [SEEKER], taxonomy=None))
    turn = {"id": "0", "parent": None, "speaker": "seeker", "text": "Hello."}
    assert list(record.items()) == [
        ("format", 1),
        ("id", "c"),
        ("turns", [turn | {"source": "human"}]),
        ("language", "en"),
        ("taxonomy", None),
    ]


GOOD = conversation_to_json(small_tree())


def changed(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes})


def turn_changed(number: int, **changes: Any) -> str:
    turns = [dict(turn) for turn in GOOD["turns"]]
    turns[number].update(changes)
    return changed(turns=turns)


BROKEN_LINES: dict[str, tuple[str, str]] = {
    "no json": ('{"id": ', "not valid JSON (EOF while parsing a value at line 1 column 7); mend that line."),
    "half a character": (changed(id="c").replace('"c"', '"\\ud800"'), "not valid JSON (unexpected end of hex escape"),
    "no object": ("[]", "the record: input should be an object; see docs/conversation-tree.md."),
    "no id": (json.dumps({k: v for k, v in GOOD.items() if k != "id"}), "id: field required; see docs/"),
    "format of the future": (changed(format=2, new_field=1), "the record has format 2, this esckit reads format 1:"),
    "no format": (
        json.dumps({k: v for k, v in GOOD.items() if k != "format"}),
        "the record has format None, this esckit reads format 1: convert it",
    ),
    "format as text": (changed(format="1"), "the record has format '1', this esckit reads format 1:"),
    "unknown field": (changed(mood="low"), "unknown field 'mood'; put a source's own fields under 'extra'."),
    "unknown field of a turn": (turn_changed(1, mood="low"), "turn '1': unknown field 'mood'; put a source's own"),
    "text that is a number": (turn_changed(2, text=5), "turn '2': text: input should be a valid string; see docs/"),
    "speaker": (turn_changed(0, speaker="usr"), "turn '0': speaker: input should be 'seeker' or 'supporter'; see"),
    "turn without an id": (changed(turns=[{"parent": None}]), "turn 0: id: field required"),
    "turn that is no object": (changed(turns=["Hello"]), "turn 0: the record: input should be an object"),
    "score that is not finite": (turn_changed(1, scores={"v": float("nan")}), "turn '1': scores.v: input should be a"),
    "score that is a truth value": (turn_changed(1, scores={"v": True}), "turn '1': scores.v: input should be a valid"),
    "number in extra that is not finite": (
        changed(id="c", extra={"a": [float("inf")]}),
        "conversation 'c' has a number in extra or provenance that is not finite; write null.",
    ),
    "number in a turn's extra that is too large": (
        turn_changed(1, extra={"a": 9}).replace('{"a": 9}', '{"a": 1e999}'),
        "conversation 'c' has a number in extra or provenance that is not finite; write null.",
    ),
    "number in provenance that is none": (
        changed(provenance={"a": float("nan")}),
        "conversation 'c' has a number in extra or provenance that is not finite; write null.",
    ),
    "verdict without a rubric": (turn_changed(1, verdicts=[{"judge": "j"}]), "turn '1': verdicts.0.rubric: field req"),
    "verdict state": (
        turn_changed(1, verdicts=[{"judge": "j", "rubric": "r", "state": "lost"}]),
        "turn '1': verdicts.0.state: input should be 'done', 'unparsed' or 'refused'",
    ),
    "aspect": (
        changed(preferences=[{"chosen": "1", "rejected": "m", "aspect": "tone"}]),
        "preferences.0.aspect: input should be 'strategy', 'response' or 'turn'",
    ),
    "a rule of the tree": (turn_changed(1, strategy="Advice"), "conversation 'c', turn '1': unknown strategy 'Advice'"),
}


@pytest.mark.parametrize(("line", "message"), BROKEN_LINES.values(), ids=BROKEN_LINES.keys())
def test_a_broken_line_is_named_with_its_file_line_and_turn(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "trees.jsonl"
    path.write_text(f"{json.dumps({**GOOD, 'id': 'first'})}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(CorpusError) as error:
        read_conversations(path)
    assert str(error.value).startswith(f"{path}:3: {message}")


def test_the_format_may_stand_anywhere_in_a_record() -> None:
    last = {key: value for key, value in GOOD.items() if key != "format"} | {"format": 1}
    assert conversation_to_json(parse_conversation(json.dumps(last))) == GOOD


def test_all_problems_of_a_tree_are_named_with_their_turns() -> None:
    turns = [
        Turn("0", None, "seeker", "Hi.", "Question"),
        Turn("1", "9", "supporter", "Hm.", "Advice"),
        Turn("1", "0", "supporter", None),
    ]
    preferences = [Preference("1", "8", "turn")]
    problems = list(conversation_problems(Conversation("c", turns, preferences=preferences)))
    assert [(problem.kind, problem.turn) for problem in problems] == [
        ("label", "0"),
        ("tree", "1"),
        ("label", "1"),
        ("tree", "1"),
        ("tree", None),
    ]
    assert [problem.kind for problem in conversation_problems(Conversation("", turns))] == ["tree"]


def test_all_fields_of_a_wrong_type_are_named_with_their_turns() -> None:
    turns = [{**GOOD["turns"][0], "text": 5}, {**GOOD["turns"][1], "speaker": "usr", "strategy": 3}, 7]
    problems = validate_conversation(changed(turns=turns, situation=0))
    assert isinstance(problems, list)
    assert {(problem.kind, problem.turn) for problem in problems} == {
        ("content", "0"),
        ("speaker", "1"),
        ("label", "1"),
        ("tree", "2"),
        ("tree", None),
    }


def test_a_conversation_id_may_occur_once_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "trees.jsonl"
    write_conversations(path, [small_tree(), small_tree()])
    with pytest.raises(CorpusError, match=r"trees.jsonl:2: conversation 'c' occurs twice; ids are unique in a file\."):
        read_conversations(path)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"does not exist: give the path of a conversation file \(JSON Lines\)\."):
        read_conversations(tmp_path / "none.jsonl")


def test_the_example_in_the_documentation_is_valid() -> None:
    page = (Path(__file__).parents[2] / "docs/conversation-tree.md").read_text(encoding="utf-8")
    example = page.partition("```json\n")[2].partition("```")[0]
    tree = parse_conversation(example)
    assert ids(tree.trunk) == ["0", "1", "2"]
    assert tree.turn("77fa").planned
