"""Judged mining: which verdicts make which pairs, what is counted, and that nothing is lost or asked twice."""

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.chat_models.asker import Asker
from esckit.chat_models.ledger import Ledger
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import CallFailure, ChatReply
from esckit.conversation import (
    PSYCHOLOGICAL_ERRORS,
    Conversation,
    GrowingTree,
    Preference,
    Turn,
    Verdict,
    check_conversation,
    read_conversations,
)
from esckit.corpora.error_labels import read_error_examples
from esckit.errors import EsckitError
from esckit.judging.annotation import RUBRIC
from esckit.judging.asked_errors import STEP, AskedAnnotator
from esckit.judging.evidence import Case
from esckit.mining.judged_pairs import ROUTES, Keeper, judge_sampled
from esckit.mining.pairs import Pair, check_pairs, kind_of, lint_pairs, pairs_of
from esckit.rendering import Part
from tests.chat_models.scripted import ScriptedModel
from tests.mining.grown import dialogue
from tests.test_transcript import INJECTIONS

REF, QUE, OTH = "Reflection of feelings", "Question", "Others"
MISMATCH, LACK, EARLY, TEMPLATE, MISREAD, OTHER = PSYCHOLOGICAL_ERRORS
GOLD: Final = "That must hurt."  # turn 2, a reflection


def sampled(*sides: tuple[str | None, str], conversation_id: str = "talk", source: str = "m") -> Conversation:
    """The dialogue with (strategy, None for gold's; text) beside turn 2, as the sampling leaves it."""
    gold = dialogue().turn("2")
    turns = [
        Turn(f"s{number}", gold.parent, "supporter", text, strategy or gold.strategy, source)
        for number, (strategy, text) in enumerate(sides)
    ]
    counts = {"mined": {source: {"turns": 3, "sampled": len(sides)}}} if sides else {"mined": {source: {"turns": 3}}}
    return replace(dialogue(conversation_id).grow(turns), provenance=counts)


def with_verdicts(tree: Conversation, given: dict[str, Verdict | None]) -> Conversation:
    """The tree as an annotator leaves it."""
    growing = GrowingTree(tree)
    for turn, verdict in given.items():
        growing.update(turn, verdicts=[verdict] if verdict else [])
    return growing.finish()


class Judge:
    """Gives the verdicts that are written down, by text; every other reply is clean. It can stop at a group."""

    judge = "judge@1"

    def __init__(self, errors: dict[str, str | None], stop_at: int | None = None) -> None:
        self.errors = errors
        self.stop_at = stop_at
        self.asked: list[str] = []
        self.closed = False

    def verdicts(self, groups: Sequence[Sequence[Case]]) -> Generator[list[Verdict | None], None, None]:
        try:
            for number, cases in enumerate(groups):
                if number == self.stop_at:
                    raise EsckitError("stopped")
                self.asked += [case.response for case in cases]
                yield [self.verdict(case.response) for case in cases]
        finally:
            self.closed = True

    def verdict(self, text: str) -> Verdict | None:
        found = self.errors.get(text)
        if found == "failed":
            return None
        if found == "unparsed":
            return Verdict(self.judge, RUBRIC, explanation="Well...", state="unparsed")
        if found == "refused":
            return Verdict(self.judge, RUBRIC, state="refused")
        return Verdict(self.judge, RUBRIC, found, explanation=f"because of {text}")


def judged(
    part: Part,
    tree: Conversation,
    errors: dict[str, str | None],
    *,
    clean_chosen: bool = True,
    judge: Judge | None = None,
) -> Conversation:
    """The tree as judged and kept, without a file."""
    annotator = judge or Judge(errors)
    keeper = Keeper(part, "m", clean_chosen, annotator.judge)
    given = {turn.id: annotator.verdict(str(turn.text)) for turn in keeper.to_judge(tree)}
    kept = keeper.keep(with_verdicts(tree, given))
    check_conversation(kept)
    return kept


def counts(tree: Conversation) -> dict[str, int]:
    found: dict[str, int] = tree.provenance["mined"]["m"]
    return found


# ------------------------------------------------------------------------------------------------------------- routing


@pytest.mark.parametrize(
    ("part", "strategy", "kept"),
    [
        ("planner", OTH, {MISMATCH}),
        ("generator", None, {LACK, EARLY, TEMPLATE}),
        ("coupled", OTH, {MISMATCH, LACK, EARLY, TEMPLATE}),
        ("coupled", None, {LACK, EARLY, TEMPLATE}),
    ],
)
def test_an_error_goes_to_the_part_that_it_blames_and_two_go_nowhere(
    part: Part, strategy: str | None, kept: set[str]
) -> None:
    for error in (None, *PSYCHOLOGICAL_ERRORS):
        tree = judged(part, sampled((strategy, "Calm down.")), {"Calm down.": error})
        assert [preference.reason for preference in tree.preferences] == ([error] if error in kept else [])
        (verdict,) = tree.turn("s0").verdicts
        assert verdict.error == error, "every verdict is kept as an annotation"
        assert counts(tree)[f"judged:{error or 'none'}"] == 1
    assert not {MISREAD, OTHER} & {error for own in ROUTES.values() for error in own}


def test_a_preference_says_why_who_and_in_which_words() -> None:
    tree = judged("planner", sampled((OTH, "Calm down.")), {"Calm down.": MISMATCH})
    wanted = Preference("2", "s0", "strategy", MISMATCH, "judge@1", "because of Calm down.")
    assert tree.preferences == [wanted]
    assert [pair.texts for pair in pairs_of([tree], "planner")] == [(f"[{REF}]", f"[{OTH}]")]
    assert judged("generator", sampled((None, "Calm down.")), {"Calm down.": LACK}).preferences[0].aspect == "response"


@pytest.mark.parametrize(
    ("strategy", "error", "kind", "aspect"),
    [(None, LACK, "PsNr", "response"), (OTH, TEMPLATE, "NsNr", "turn"), (OTH, MISMATCH, "NsPr", "turn")],
)
def test_the_three_kinds_of_coupled_pairs(strategy: str | None, error: str, kind: str, aspect: str) -> None:
    tree = judged("coupled", sampled((strategy, "Calm down.")), {"Calm down.": error})
    (preference,) = tree.preferences
    assert (kind_of(Pair(tree, preference)), preference.aspect) == (kind, aspect)
    assert counts(tree)[f"kept:{kind}"] == counts(tree)[f"kept:{error}"] == 1
    unjudged = Pair(tree, replace(preference, reason=None))
    assert kind_of(unjudged) == ("PsNr" if strategy is None else "NsNr"), (
        "where nobody has judged, another reply is negative"
    )


# ------------------------------------------------------------------------------------------------------------ criteria


@pytest.mark.parametrize(
    ("part", "strategy", "text", "error"),
    [
        ("coupled", None, "Calm down.", MISMATCH),  # gold's own strategy is not the wrong one
        ("coupled", OTH, " that  MUST hurt. ", LACK),  # nor are gold's own words
    ],
)
def test_what_is_gold_s_own_is_never_rejected(part: Part, strategy: str | None, text: str, error: str) -> None:
    tree = judged(part, sampled((strategy, text)), {text: error})
    assert tree.preferences == []
    assert counts(tree)["blames_gold"] == 1


@pytest.mark.parametrize(
    ("part", "strategy", "error", "gold_error", "clean"),
    [
        ("generator", None, LACK, TEMPLATE, False),
        ("generator", None, LACK, MISMATCH, True),  # not an error of the generator's
        ("generator", None, LACK, None, True),
        ("planner", OTH, MISMATCH, MISMATCH, False),
        ("planner", OTH, MISMATCH, LACK, True),
        ("coupled", OTH, LACK, MISMATCH, False),
        ("coupled", OTH, LACK, OTHER, True),
    ],
)
def test_the_chosen_side_must_be_clean_of_the_part_s_errors_where_that_is_asked_for(
    part: Part, strategy: str | None, error: str, gold_error: str | None, clean: bool
) -> None:
    errors = {"Calm down.": error, GOLD: gold_error}
    tree = judged(part, sampled((strategy, "Calm down.")), errors)
    assert len(tree.preferences) == clean
    assert counts(tree)[f"gold_judged:{gold_error or 'none'}"] == 1
    assert counts(tree).get("chosen_faulty", 0) == (not clean)
    either = judged(part, sampled((strategy, "Calm down.")), errors, clean_chosen=False)
    assert len(either.preferences) == 1
    assert either.turn("2").verdicts == [], "then gold is not asked about"


@pytest.mark.parametrize("state", ["unparsed", "refused", "failed"])
def test_what_could_not_be_judged_is_a_counted_state_and_no_pair(state: str) -> None:
    rejected = judged("generator", sampled((None, "A."), (None, "B.")), {"A.": state, "B.": LACK})
    assert [preference.rejected for preference in rejected.preferences] == ["s1"]
    assert counts(rejected)[f"judged:{state}"] == 1
    chosen = judged("generator", sampled((None, "A."), (None, "B.")), {"A.": LACK, "B.": LACK, GOLD: state})
    assert chosen.preferences == []
    assert (counts(chosen)[f"gold_judged:{state}"], counts(chosen)["chosen_unjudged"]) == (1, 2)


def test_counts_add_up_and_gold_is_counted_once() -> None:
    errors: dict[str, str | None] = {"A.": LACK, "B.": LACK, "C.": MISREAD, "D.": EARLY}
    tree = judged("generator", sampled(*((None, text) for text in ["A.", "B.", "C.", "D.", "E."])), errors)
    assert counts(tree) == {
        **{"turns": 3, "sampled": 5, "pairs": 3},
        **{f"judged:{LACK}": 2, f"judged:{MISREAD}": 1, f"judged:{EARLY}": 1, "judged:none": 1},
        **{"gold_judged:none": 1, f"kept:{LACK}": 2, f"kept:{EARLY}": 1},
    }
    report = lint_pairs(check_pairs(pairs_of([tree], "generator")))
    assert (report.pairs, report.equal, report.duplicates) == (3, 0, 0)


def test_only_what_this_miner_sampled_is_judged_and_nothing_twice() -> None:
    tree = sampled((None, "A."), (None, "B."))
    other = Turn("o", tree.turn("2").parent, "supporter", "Other.", REF, "another")
    before = Verdict("judge@1", RUBRIC, LACK, explanation="said before")
    tree = with_verdicts(tree.grow([other]), {"s0": before, "2": Verdict("someone", RUBRIC, LACK)})
    keeper = Keeper("generator", "m", True, "judge@1")
    assert [turn.id for turn in keeper.to_judge(tree)] == ["2", "s1"]
    kept = judged("generator", tree, {"Other.": LACK})
    assert [(p.rejected, p.explanation) for p in kept.preferences] == [("s0", "said before")]
    assert judged("generator", kept, {}) == kept


# ------------------------------------------------------------------------------------------------------------ the file


def several() -> list[Conversation]:
    return [sampled((None, "A."), (None, f"{name}."), conversation_id=name) for name in ("a", "b", "c", "d")]


def judge_all(judge: Any, out: Path, trees: list[Conversation] | None = None, clean_chosen: bool = True) -> None:
    keeper = Keeper("generator", "m", clean_chosen, judge.judge)
    judge_sampled(trees or several(), judge, keeper, out, key="key", title="judged")


def test_a_stopped_judging_goes_on_where_it_stopped(tmp_path: Path) -> None:
    errors: dict[str, str | None] = {"A.": LACK, "c.": TEMPLATE}
    judge_all(Judge(errors), tmp_path / "whole.jsonl")
    stopped = Judge(errors, stop_at=2)
    with pytest.raises(EsckitError, match="stopped"):
        judge_all(stopped, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    rest = Judge(errors)
    judge_all(rest, tmp_path / "out.jsonl")
    assert rest.asked == [GOLD, "A.", "c.", GOLD, "A.", "d."]
    assert stopped.closed
    assert rest.closed
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    trees = read_conversations(tmp_path / "out.jsonl")
    assert [len(tree.preferences) for tree in trees] == [1, 1, 2, 1]


@pytest.mark.parametrize("change", ["judge", "criterion"])
def test_another_judge_or_criterion_continues_nothing(change: str, tmp_path: Path) -> None:
    with pytest.raises(EsckitError):
        judge_all(Judge({}, stop_at=2), tmp_path / "out.jsonl")
    again = Judge({})
    if change == "judge":
        again.judge = "judge@2"
    judge_all(again, tmp_path / "out.jsonl", clean_chosen=change == "judge")
    assert len(again.asked) == (12 if change == "judge" else 8)


def test_progress_says_rate_share_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    judge_all(Judge({"A.": LACK}), tmp_path / "out.jsonl")
    last = capsys.readouterr().err.rstrip().split("\r")[-1].removesuffix("\x1b[K")
    assert "4/4" in last
    assert "/s" in last
    assert "s left" in last
    assert last.endswith("kept 4 of 8 (50%)")


# -------------------------------------------------------------------------------------------------------- a chat model

Model = Callable[[str, int], ChatReply | CallFailure]


def answer(error: str) -> ChatReply:
    return ChatReply(json.dumps({"explanation": "Why.", "error": error}), "stop")


def ask_all(script: Model, ledger: Path, out: Path, trees: list[Conversation] | None = None) -> ScriptedModel:
    model = ScriptedModel(script)
    with Ledger(ledger) as opened:
        pace = Pace(attempts=2, first_wait=0.001)
        judge_all(AskedAnnotator("m", Asker(model, opened, STEP, pace), read_error_examples()), out, trees)
    return model


def test_a_stopped_run_asks_a_chat_model_nothing_twice(tmp_path: Path) -> None:
    whole = ask_all(lambda question, before: answer(LACK if '"A."' in question else "none"), *_paths(tmp_path, "whole"))
    refused = CallFailure("http_401", "no", "stop", stop=EsckitError("the key is refused."))
    left = [5]

    def stopping(question: str, before: int) -> ChatReply | CallFailure:
        left[0] -= 1
        return answer(LACK if '"A."' in question else "none") if left[0] >= 0 else refused

    with pytest.raises(EsckitError, match="the key is refused"):
        ask_all(stopping, *_paths(tmp_path, "cut"))
    rest = ask_all(lambda question, before: answer(LACK if '"A."' in question else "none"), *_paths(tmp_path, "cut"))
    assert rest.asked.total() == whole.asked.total() - 5
    assert (tmp_path / "cut.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    trees = read_conversations(tmp_path / "cut.jsonl")
    assert {p.explanation for tree in trees for p in tree.preferences} == {"Why."}


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.ledger", folder / f"{name}.jsonl"


def test_a_call_that_fails_is_a_counted_state(tmp_path: Path) -> None:
    lost = CallFailure("http_500", "broken", "retry")
    ask_all(lambda question, before: lost if '"A."' in question else answer(LACK), *_paths(tmp_path, "x"))
    trees = read_conversations(tmp_path / "x.jsonl")
    assert [counts(tree)["judged:failed"] for tree in trees] == [1] * 4
    assert all(tree.preferences == [] for tree in trees), "gold was called faulty here"


@pytest.mark.parametrize("order", INJECTIONS)
def test_text_that_gives_orders_is_judged_and_not_followed(order: str, tmp_path: Path) -> None:
    """It stands in the prompt as data, whether a seeker wrote it, a counsellor or the model that was sampled."""
    order = order.encode("utf-8", "replace").decode()
    tree = sampled((None, f"{order} 1"))
    tree = replace(tree, turns=[replace(turn, text=order) if turn.id in "02" else turn for turn in tree.turns])
    model = ask_all(lambda question, before: answer(LACK), *_paths(tmp_path, "x"), [tree])
    assert len(model.asked) == 2
    for question in model.asked:
        data = [json.loads(line) for line in question.splitlines() if line.startswith("{")]
        assert [row["text"] for row in data[:-1]] == [order, "Again."]
        assert data[-1]["reply"] in (order, f"{order} 1")
        assert len(question.splitlines()) == 6
    (kept,) = read_conversations(tmp_path / "x.jsonl")
    assert kept.turn("s0").text == f"{order} 1"
