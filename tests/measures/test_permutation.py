"""Paired tests: their derivatives, an exact enumeration, their level."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kstest
from statsmodels.stats.multitest import multipletests

from esckit.measures.intervals import Draws, FloatArray
from esckit.measures.permutation import FIGURES, difference_interval, holm, mean_of, permutation_p
from esckit.measures.preference_bias import preference_bias
from esckit.measures.strategy_measures import score

from .simulate import draw, planner

positive = arrays(np.float64, (4, 3), elements=st.integers(1, 9).map(float))


def flat(counts: FloatArray) -> FloatArray:
    return counts.reshape(len(counts), -1).astype(np.float64)


@given(positive, st.sampled_from(["q", "q_w", "accuracy"]))
def test_figures_are_those_of_the_evaluation_and_their_derivatives_finite_differences(
    counts: FloatArray, name: str
) -> None:
    found = FIGURES[name](counts.reshape(1, -1))
    assert found.value[0] == pytest.approx(float(getattr(score(counts), name)))
    steps = np.eye(counts.size) * 1e-6
    up, down = (FIGURES[name](counts.reshape(1, -1) + sign * steps).value for sign in (1, -1))
    np.testing.assert_allclose(found.derivative[0], (up - down) / 2e-6, atol=1e-6)


def test_b_is_that_of_the_evaluation() -> None:
    rng = np.random.default_rng(0)
    counts = draw([planner(0.4, 0.3, rng)], 40, rng)[0].sum(0)
    assert FIGURES["b"](counts.reshape(1, -1).astype(np.float64)).value[0] == preference_bias(counts).b


def test_a_mean_equals_the_complete_enumeration_of_swaps() -> None:
    first = np.array([[3.0], [1.0], [4.0], [1.0], [5.0], [2.0], [6.0], [5.0]])
    second = np.array([[2.0], [1.5], [2.0], [0.0], [5.5], [1.0], [4.0], [3.0]])
    gaps = (first - second)[:, 0]
    signs = np.array(list(product([1, -1], repeat=len(gaps))))
    exact = np.mean(np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-9)
    found = permutation_p(first, second, mean_of(16), draws=Draws(permutations=20_000))
    assert found == pytest.approx(exact, abs=0.01)


def test_equal_systems_and_one_dialogue_never_differ() -> None:
    rng = np.random.default_rng(1)
    counts = flat(draw([planner(0.4, 0.3, rng)], 20, rng)[0])
    other = flat(draw([planner(0.4, 0.3, rng)], 20, rng)[0])
    for figure in FIGURES.values():
        assert permutation_p(counts, counts, figure, draws=Draws(permutations=100)) == 1
        assert permutation_p(counts[:1], other[:1], figure, draws=Draws(permutations=100)) == 1


def test_order_of_systems_does_not_matter_and_the_seed_does() -> None:
    rng = np.random.default_rng(2)
    pair = draw([planner(0.2, 0.35, rng), planner(0.4, 0.35, rng)], 60, rng)
    first, second = flat(pair[0]), flat(pair[1])
    for figure in FIGURES.values():
        p = permutation_p(first, second, figure, draws=Draws(permutations=300, seed=3))
        assert p == permutation_p(second, first, figure, draws=Draws(permutations=300, seed=3))
        low, high = difference_interval(first, second, figure, draws=Draws(resamples=100, seed=3))
        assert difference_interval(second, first, figure, draws=Draws(resamples=100, seed=3)) == pytest.approx(
            (-high, -low)
        )
    assert p != permutation_p(first, second, figure, draws=Draws(permutations=300, seed=4))


def test_a_clear_difference_has_the_least_p() -> None:
    rng = np.random.default_rng(3)
    pair = draw([planner(0.2, 0.5, rng), planner(0.9, 0.2, rng)], 130, rng)
    for figure in FIGURES.values():
        assert permutation_p(flat(pair[0]), flat(pair[1]), figure, draws=Draws(permutations=499)) == 1 / 500


def test_p_of_exchangeable_systems_is_uniform() -> None:
    rng = np.random.default_rng(5)
    found = []
    for seed in range(150):
        gaps = rng.normal(size=(30, 1))
        found.append(permutation_p(gaps, np.zeros_like(gaps), mean_of(30), draws=Draws(permutations=199, seed=seed)))
    assert kstest(found, "uniform").pvalue > 0.01


@settings(max_examples=10)  # statsmodels takes a tenth of a second
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_equals_statsmodels(p: list[float]) -> None:
    expected = multipletests(p, method="holm")[1] if p else []
    assert holm(p) == pytest.approx(list(expected))
    assert all(0 <= before <= after <= 1 for before, after in zip(p, holm(p), strict=True))


@pytest.mark.slow
def test_equal_b_in_different_directions_is_seldom_taken_for_different() -> None:
    """Without dividing by the standard error this test rejects in over 20% (docs/measures.md)."""
    rng = np.random.default_rng(6)
    rejected, covered, repetitions = 0, 0, 120
    for seed in range(repetitions):
        pair = draw([planner(0.3, 0.4, rng), planner(0.3, 0.25, rng)], 130, rng)
        first, second = flat(pair[0]), flat(pair[1])
        rejected += permutation_p(first, second, FIGURES["b"], draws=Draws(permutations=199, seed=seed)) <= 0.05
        low, high = difference_interval(first, second, FIGURES["b"], draws=Draws(resamples=200, seed=seed))
        covered += low <= 0 <= high
    assert rejected / repetitions <= 0.11
    assert covered / repetitions >= 0.9
