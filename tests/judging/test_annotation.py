"""Verdicts into trees: once a turn, on after a stop."""

from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from esckit.conversation import Conversation, Turn, Verdict, read_conversations, write_conversations
from esckit.errors import EsckitError
from esckit.judging.annotation import RUBRIC, annotate
from esckit.judging.evidence import Case
from tests.trees import small_tree


class Counting:
    """Calls replies with a question mark strategy mismatches; can stop or miss a reply."""

    judge = "counting"

    def __init__(self, stop_at: int | None = None, miss: str = "") -> None:
        self.seen: list[Case] = []
        self.stop_at, self.miss = stop_at, miss

    def verdicts(self, groups: Sequence[Sequence[Case]]) -> Generator[list[Verdict | None], None, None]:
        for number, cases in enumerate(groups):
            if number == self.stop_at:
                raise EsckitError("stopped")
            self.seen += cases
            yield [None if case.response == self.miss else self._verdict(case) for case in cases]

    def _verdict(self, case: Case) -> Verdict:
        return Verdict(self.judge, RUBRIC, "strategy_mismatch" if "?" in case.response else None, {"none": 0.5})


def several() -> list[Conversation]:
    return [small_tree(id="a"), small_tree(id="b"), small_tree(id="c")]


def test_every_supporter_turn_with_a_text_gets_one_verdict_after_its_path(tmp_path: Path) -> None:
    annotator = Counting()
    done = annotate([small_tree()], annotator, tmp_path / "out.jsonl")
    assert (done.turns, done.new, done.open, dict(done.outcomes)) == (3, 3, 0, {"none": 3})
    assert [(case.response, [turn.id for turn in case.context]) for case in annotator.seen] == [
        ("That must hurt.", ["0"]),
        ("Study more.", ["0"]),
        ("Hello!", []),
    ]
    (written,) = read_conversations(tmp_path / "out.jsonl")
    assert {turn.id: len(turn.verdicts) for turn in written.turns} == {"0": 0, "1": 1, "2": 0, "m": 1, "p": 0, "alt": 1}
    assert written.preferences == small_tree().preferences


def test_annotating_what_is_annotated_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    annotate(several(), Counting(), out)
    first = out.read_bytes()
    again = Counting()
    done = annotate(read_conversations(out), again, out)
    assert (out.read_bytes(), again.seen, done.turns, done.new) == (first, [], 9, 0)


def test_a_stopped_annotation_goes_on_where_it_stopped(tmp_path: Path) -> None:
    annotate(several(), Counting(), tmp_path / "whole.jsonl")
    with pytest.raises(EsckitError, match="stopped"):
        annotate(several(), Counting(stop_at=2), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    rest = Counting()
    annotate(several(), rest, tmp_path / "out.jsonl")
    assert len(rest.seen) == 3
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_reply_that_could_not_be_judged_stays_open_for_another_run(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = annotate(several(), Counting(miss="Hello!"), out)
    assert (done.turns, done.new, done.open) == (6, 6, 3)
    again = Counting()
    assert annotate(read_conversations(out), again, out).open == 0
    assert [case.response for case in again.seen] == ["Hello!"] * 3


def test_a_blank_turn_is_not_judged(tmp_path: Path) -> None:
    conversations = [Conversation("c", [Turn("0", None, "supporter", "  ")])]
    write_conversations(tmp_path / "in.jsonl", conversations)
    assert annotate(conversations, Counting(), tmp_path / "out.jsonl").turns == 0
