"""Shares of psychological errors by source."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import Conversation, Verdict, write_conversations
from esckit.errors import EsckitError
from esckit.measures.intervals import Draws
from esckit.measures.psychological_errors import error_shares
from esckit.report.judging_tables import shares_table
from tests.cli.test_entry import call
from tests.tiny import talk

RUBRIC = "psychological-errors/1"


def _judged(name: str, *errors: str | None, source: str = "human", judge: str = "j") -> Conversation:
    """A dialogue whose supporter turns have these errors; "refused" is a verdict that is not done."""
    replies = [("supporter", "Well.", "Others") for _ in errors]
    conversation = talk(("seeker", "Hm."), *replies, conversation_id=name)
    verdicts = [
        Verdict(judge, RUBRIC, state="refused") if error == "refused" else Verdict(judge, RUBRIC, error)
        for error in errors
    ]
    turns = [
        replace(turn, source=source, verdicts=[verdict])
        for turn, verdict in zip(conversation.turns[1:], verdicts, strict=True)
    ]
    return replace(conversation, turns=[conversation.turns[0], *turns])


TREES = [
    _judged("a", None, "template_response", "template_response", "refused"),
    _judged("b", None, None, "other"),
    _judged("c", "lack_of_empathy", source="sft"),
]


def test_counts_and_shares_by_hand() -> None:
    human, sft = error_shares(TREES, draws=Draws(resamples=200))
    assert (human.source, human.judge) == ("human", "j")
    assert (human.n, human.dialogues, human.not_done) == (6, 2, 1)
    found = {outcome: (own.count, own.share) for outcome, own in human.shares.items()}
    assert found["none"] == (3, 0.5)
    assert found["template_response"] == pytest.approx((2, 1 / 3))
    assert found["emotion_misread"] == (0, 0)
    assert sum(share for _, share in found.values()) == pytest.approx(1)
    assert (sft.source, sft.shares["lack_of_empathy"].share) == ("sft", 1)


def test_intervals_are_of_dialogues() -> None:
    """One dialogue's resamples are all alike; two that differ give a wide interval."""
    (alone,) = error_shares(TREES[:1], draws=Draws(resamples=200))
    assert alone.shares["none"].interval == pytest.approx([1 / 3, 1 / 3])
    low, high = error_shares(TREES[:2], draws=Draws(resamples=200))[0].shares["template_response"].interval
    assert low < 0.05
    assert high > 0.5


def test_judges_stand_apart_and_other_rubrics_are_left_out() -> None:
    other = _judged("d", "other", judge="k")
    scored = Verdict("k", "empathy/1", scores={"empathy": 3})
    turn = replace(other.turns[1], verdicts=[*other.turns[1].verdicts, scored])
    groups = error_shares([*TREES, replace(other, turns=[other.turns[0], turn])], draws=Draws(resamples=100))
    assert [(group.source, group.judge, group.n) for group in groups] == [
        ("human", "j", 6),
        ("sft", "j", 1),
        ("human", "k", 1),
    ]
    assert "human (k)" in shares_table(groups).columns


def test_nothing_done_has_no_share() -> None:
    (group,) = error_shares([_judged("a", "refused")], draws=Draws(resamples=100))
    assert (group.n, group.dialogues, group.not_done, group.shares) == (0, 0, 1, {})
    table = shares_table([group])
    assert {row[1] for row in table.rows[1:]} == {"-"}
    assert "1 verdicts are unparsed or refused" in table.notes[1]


def test_no_verdict_is_an_error() -> None:
    with pytest.raises(EsckitError, match="annotate them first"):
        error_shares([talk(("seeker", "Hm."))])


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_conversations(tmp_path / "one.jsonl", TREES[:2])
    write_conversations(tmp_path / "two.jsonl", TREES[2:])
    assert call(monkeypatch, "errors", tmp_path / "one.jsonl", tmp_path / "two.jsonl") == 0
    drawn = capsys.readouterr().out
    assert "6 of 2 dialogues" in drawn
    assert "template response" in drawn
    assert call(monkeypatch, "errors", tmp_path / "one.jsonl", tmp_path / "two.jsonl", "--json") == 0
    printed: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert printed == [each.to_json() for each in error_shares(TREES)]
