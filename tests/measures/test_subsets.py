"""Preference over random subsets of turns."""

import random

import pytest

from esckit.errors import PredictionsError
from esckit.measures.strategy_figures import SUBSETS, bias_over_subsets
from esckit.strategy import ESCONV
from tests.measures.rows import LABELS, measured, random_rows, row

ROWS = random_rows(402)


def test_the_subsets_are_disjoint_even_and_together_the_whole() -> None:
    subsets = bias_over_subsets(ROWS, ESCONV, seed=0)
    assert subsets is not None
    assert sorted(subset.n for subset in subsets) == [100, 100, 101, 101]
    whole = measured(ROWS, resamples=100).strategy.per_strategy
    for key in ("gold", "predicted"):
        for place in range(len(LABELS)):
            assert sum(getattr(subset.per_strategy[place], key) for subset in subsets) == getattr(whole[place], key)


def test_the_division_depends_on_the_seed_and_not_on_the_order_of_rows() -> None:
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    assert bias_over_subsets(shuffled, ESCONV, seed=0) == bias_over_subsets(ROWS, ESCONV, seed=0)
    assert bias_over_subsets(ROWS, ESCONV, seed=1) != bias_over_subsets(ROWS, ESCONV, seed=0)


def test_a_planner_s_own_bias_shows_in_every_subset() -> None:
    rng = random.Random(2)
    rows = [
        row(gold := rng.choice(LABELS), "Question" if rng.random() < 0.5 else rng.choice(LABELS), turn=n, dialogue=gold)
        for n in range(2000)
    ]
    subsets = bias_over_subsets(rows, ESCONV, seed=0)
    assert subsets is not None
    for subset in subsets:
        assert subset.b > 1
        assert max(subset.per_strategy, key=lambda figures: figures.p or 0).strategy == "Question"


def test_too_few_turns_say_nothing() -> None:
    assert bias_over_subsets(ROWS[: 50 * SUBSETS - 1], ESCONV, seed=0) is None
    assert bias_over_subsets(ROWS[: 50 * SUBSETS], ESCONV, seed=0) is not None


def test_unparsed_predictions_are_treated_as_elsewhere() -> None:
    unparsed = sum(each.predicted_strategy not in LABELS for each in ROWS)
    assert unparsed > 0
    dropped = bias_over_subsets(ROWS, ESCONV, seed=0, unparsed="drop")
    assert dropped is not None
    assert sum(subset.n for subset in dropped) == len(ROWS) - unparsed
    with pytest.raises(PredictionsError):
        bias_over_subsets(ROWS, ESCONV, seed=0, unparsed="refuse")


def test_evaluate_holds_them() -> None:
    assert measured(ROWS, resamples=100, seed=3).strategy.subsets == bias_over_subsets(ROWS, ESCONV, seed=3)
