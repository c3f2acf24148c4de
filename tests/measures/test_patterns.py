"""Patterns over a dialogue, on dialogues made by hand."""

from collections.abc import Sequence
from typing import Any

import pytest

from esckit.measures import Prediction, compare
from esckit.measures.patterns import PATTERNS, TEXT_PATTERNS, is_sympathy_with_advice, patterns_of
from esckit.measures.results import PatternFigure

from .rows import measured, row

BOTH = "Oh no, I'm so sorry to hear that. Have you tried talking to her?"
ASKED = "And how long has this been going on?"
TOLD = "Work took all of your evenings."


def talk(name: str, replies: Sequence[str], strategies: Sequence[str | None] = (), **rest: Any) -> list[Prediction]:
    """A dialogue's predictions; the human replies are all different and ask nothing, with two strategies by turns."""
    said = zip(replies, strategies or ["Question"] * len(replies), strict=True)
    gold = ["Question", "Information"]
    return [
        row(
            gold[n % 2],
            label,
            dialogue=name,
            turn=n,
            gold_text=f"{n} is the day we speak of.",
            predicted_text=text,
            **rest,
        )
        for n, (text, label) in enumerate(said)
    ]


def patterns(rows: list[Prediction], side: str = "predicted", **how: Any) -> dict[str, PatternFigure]:
    found = measured(rows, metrics=["patterns"], resamples=50, **how).patterns
    return dict(getattr(found, side))


def shares(rows: list[Prediction], side: str = "predicted") -> dict[str, tuple[float, float, int] | None]:
    """Share, mean longest run and longest run by pattern."""
    found = patterns(rows, side)
    return {name: (each.share, each.run, each.longest) if each else None for name, each in found.items()}


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (BOTH, True),
        ("I really do understand. You could rest for a day.", True),
        ("Well, that must have been very hard. Try to rest.", True),
        ("I’m sorry. Why don’t you call him?", True),
        ("I AM SORRY, you should go.", True),
        ("I am sorry to hear that.", False),  # no advice
        ("Have you tried talking to her?", False),  # no sympathy
        ("You should go. I am sorry to hear that.", False),  # it does not open with it
        ("That sounds great! You should celebrate.", False),
        ("Hysterical understanding of shoulders", False),  # phrases are whole words
        ("你好，我非常理解你的感受。建议你多休息。", True),
        ("嗯，听起来你很累，不妨早点睡。", True),
        ("我理解你的感受。", False),
        ("建议你早点睡。", False),
        ("", False),
    ],
)
def test_sympathy_with_advice(reply: str, expected: bool) -> None:
    assert is_sympathy_with_advice(reply) is expected


def test_counts_of_two_hand_made_dialogues() -> None:
    first = talk(
        "a",
        [BOTH, BOTH, TOLD, ASKED, ASKED, "Why is that?", "I see that you are tired."],
        ["Question", "Question", "Others", "Question", "Question", "Question", "Information"],
    )
    second = talk("b", [ASKED, TOLD, BOTH], ["Information", None, "Information"])
    assert shares([*first, *second]) == {
        "sympathy_with_advice": (3 / 10, (2 + 1) / 2, 2),
        "repeated_opening": (2 / 10, (1 + 0) / 2, 1),  # the second BOTH, the second ASKED
        "question_run": (3 / 10, (3 + 1) / 2, 3),  # BOTH asks too: two in a row, told, and then three
        "one_strategy": ((5 + 2) / 10, (3 + 1) / 2, 3),
    }
    assert shares([*first, *second], "gold") == {
        "sympathy_with_advice": (0, 0, 0),
        "repeated_opening": (0, 0, 0),
        "question_run": (0, 0, 0),
        "one_strategy": ((4 + 2) / 10, 1, 1),
    }


def test_a_run_does_not_go_on_into_the_next_dialogue() -> None:
    rows = [*talk("a", [TOLD, ASKED, ASKED]), *talk("b", [ASKED, ASKED, TOLD])]
    assert shares(rows)["question_run"] == (0, 2, 2)
    assert shares(rows)["repeated_opening"] == (2 / 6, 1, 1)
    assert shares(rows)["one_strategy"] == (1, 3, 3)


def test_positions_give_the_order_where_all_rows_have_one() -> None:
    spoken = [ASKED, ASKED, ASKED, TOLD]
    rows = [talk("a", [text], position=[place, 9])[0] for place, text in zip((1, 5, 3, 7), spoken, strict=True)]
    apart = [talk("a", [text], position=[place, 9])[0] for place, text in zip((1, 7, 3, 5), spoken, strict=True)]
    assert shares(rows)["question_run"] == (3 / 4, 3, 3)
    assert shares(apart)["question_run"] == (0, 2, 2)


def test_intervals_are_drawn_over_dialogues() -> None:
    rows = [line for n in range(12) for line in talk(f"d{n}", [BOTH, BOTH] if n % 2 else [TOLD, "It was hot at noon."])]
    found = patterns(rows)["sympathy_with_advice"]
    assert (found.share, found.run, found.longest) == (0.5, 1, 2)
    low, high = found.share_interval
    assert 0.1 < low < 0.35 < 0.65 < high < 0.9
    assert found.run_interval == pytest.approx((2 * low, 2 * high))
    alike = patterns(talk("a", [BOTH] * 3) + talk("b", [BOTH] * 3))["sympathy_with_advice"]
    assert (alike.share_interval, alike.run_interval) == ((1, 1), (3, 3))


def test_what_cannot_be_told_is_null() -> None:
    alone = measured([*talk("a", [BOTH]), *talk("b", [BOTH])], metrics=["patterns"])
    assert alone.patterns is None
    assert any("Patterns are null: no dialogue has two predicted replies" in text for text in alone.warnings)
    planned = [row("Question", "Question", turn=n, predicted_text=None) for n in range(3)]
    assert shares(planned) == {**dict.fromkeys(TEXT_PATTERNS), "one_strategy": (1, 3, 3)}
    worded = [row("Question", "Question", turn=n, extra={"strategy_given": "gold"}) for n in range(3)]
    assert shares(worded)["one_strategy"] is None
    assert shares(worded, "gold")["one_strategy"] == (1, 3, 3)
    german = talk("a", ["Das tut mir leid zu hören, wie lange geht das schon so bei dir zu Hause?"] * 20)
    assert shares(german)["sympathy_with_advice"] is None
    assert shares(german)["question_run"] == (1, 20, 20)


def test_chinese_is_known() -> None:
    rows = talk("a", ["我理解你的感受，建议你多休息。", "听起来你很难过，你可以和他谈谈吗？", "后来呢？"])
    found = shares(rows)
    assert found["sympathy_with_advice"] == (2 / 3, 2, 2)
    assert found["question_run"] == (0, 2, 2)


def test_files_are_tested_against_each_other() -> None:
    repeats = [line for n in range(9) for line in talk(f"d{n}", [BOTH, BOTH, BOTH, TOLD])]
    varied = [line for n in range(9) for line in talk(f"d{n}", [BOTH, TOLD, ASKED, "It was hot at noon."])]
    compared = compare({"a": repeats, "b": varied}, metrics=["patterns"], permutations=500, resamples=50)
    assert [test.metric for test in compared.comparisons] == list(PATTERNS)
    found = {test.metric: test for test in compared.comparisons}
    assert found["sympathy_with_advice"].difference == 2 / 4
    assert found["repeated_opening"].difference == 2 / 4
    assert found["question_run"].difference == 3 / 4
    assert found["question_run"].p < 0.05
    assert (found["one_strategy"].difference, found["one_strategy"].p) == (0, 1)
    assert {test.turns for test in compared.comparisons} == {36}


@pytest.mark.parametrize(
    ("reply", "before", "expected"),
    [
        (BOTH, [], set()),
        (BOTH, [TOLD], set()),
        (BOTH, [BOTH], {"sympathy_with_advice", "repeated_opening"}),
        ("That must be hard. You should rest.", [BOTH], {"sympathy_with_advice"}),
        ("That must be hard. You should rest.", [BOTH, TOLD], set()),
        (ASKED, [TOLD, "Why?", "Where was that?"], {"question_run"}),
        (ASKED, ["Why?", TOLD, "Where was that?"], set()),
        (ASKED, [ASKED, TOLD], {"repeated_opening"}),
        ("Why?", ["Why?", TOLD], set()),  # fewer than four tokens open nothing
        (BOTH, [BOTH, BOTH], set(TEXT_PATTERNS)),
        ("建议你早点睡。", ["建议你早点睡觉。"], {"repeated_opening"}),
    ],
)
def test_patterns_that_a_reply_completes(reply: str, before: list[str], expected: set[str]) -> None:
    assert patterns_of(reply, before) == expected
