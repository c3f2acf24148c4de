"""How far probabilities can be believed, on cases that can be done by hand."""

import math

import pytest

from esckit.measures.strategy_figures import reliability

from .rows import LABELS, row


def test_nothing_without_probabilities() -> None:
    assert reliability([row("Question", "Question"), row("Question", None, strategy_probabilities={})]) is None


def test_by_hand() -> None:
    sure = {"question": 0.9, "Others": 0.1}
    figures = reliability(
        [
            row("Question", None, strategy_probabilities=sure),
            row("Others", None, strategy_probabilities=sure),
            row("Information", None, strategy_probabilities={"Information": 0.5, "Others": 0.5}),
            row("Information", "Information"),
        ]
    )
    assert figures is not None
    assert figures.n == 3
    # .9, .9 right half the time; .5 tied with Information, the earlier label, which is right.
    assert figures.ece == pytest.approx((2 * 0.4 + 0.5) / 3)
    assert [(each.n, each.confidence, each.accuracy) for each in figures.bins] == [(1, 0.5, 1), (2, 0.9, 0.5)]
    assert figures.nll == pytest.approx(-(math.log(0.9) + math.log(0.1) + math.log(0.5)) / 3)
    assert figures.top3_accuracy == 1


def test_top_three_and_a_gold_label_given_nothing() -> None:
    four = dict(zip(LABELS, (0.4, 0.3, 0.2, 0.1), strict=False))
    rows = [row(LABELS[i], None, strategy_probabilities=four) for i in (2, 3)]
    figures = reliability(rows)
    assert figures is not None
    assert figures.top3_accuracy == 0.5
    impossible = reliability([row("Others", None, strategy_probabilities={"Question": 1})])
    assert impossible is not None
    assert impossible.nll == pytest.approx(12 * math.log(10))
    assert impossible.ece == 1


def test_a_planner_that_is_as_right_as_it_is_sure_is_calibrated() -> None:
    probabilities = {"Question": 0.8, "Others": 0.2}
    rows = [row("Question" if i < 8 else "Others", None, strategy_probabilities=probabilities) for i in range(10)]
    figures = reliability(rows)
    assert figures is not None
    assert figures.ece == pytest.approx(0, abs=1e-12)


def test_a_bin_holds_its_upper_edge_and_not_its_lower_one() -> None:
    """](b - 1) / 15, b / 15]: of .4 and its neighbours, and of the ends 0 and 1."""
    rows = [
        row("Question", None, strategy_probabilities={"Question": p})
        for p in (0.0, 1 / 15, 0.39, 0.4, 0.401, 0.95, 1.0)
    ]
    figures = reliability(rows)
    assert figures is not None
    assert [each.n for each in figures.bins] == [2, 2, 1, 2]
    assert [each.confidence for each in figures.bins] == pytest.approx([1 / 30, 0.395, 0.401, 0.975])
