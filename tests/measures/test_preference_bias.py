"""Preference bias: worked checks, limits, and what must hold for any matrix."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from esckit.measures.intervals import FloatArray, IntArray
from esckit.measures.preference_bias import debias, noise_floor, preference_bias

THREE = np.array([[0, 6, 2], [3, 0, 1], [1, 4, 0]])
FOUR = np.array([[0, 6, 2, 5], [3, 0, 1, 2], [1, 4, 0, 2], [0, 0, 0, 9]])
ESCONV_SHARES = np.array([3033, 841, 1136, 1377, 2261, 2343, 974, 2641]) / 14606
"""Gold strategies of ESConv's training dialogues, in label order."""


def matrices(least: int = 0) -> st.SearchStrategy[IntArray]:
    return st.integers(2, 6).flatmap(lambda k: arrays(np.int64, (k, k), elements=st.integers(least, 9)))


def esconv_counts(n: int, accuracy: float) -> IntArray:
    """Counts with ESConv's gold shares and an accuracy; where the errors fall does not matter to the floor."""
    gold = np.round(ESCONV_SHARES * n).astype(np.int64)
    right = np.round(gold * accuracy).astype(np.int64)
    counts = np.diag(right)
    counts[np.arange(8) - 1, np.arange(8)] += gold - right
    return counts


@pytest.mark.parametrize(
    ("counts", "p", "b"),
    [
        (THREE, [1.280248, 0.502840, 1.216912], 0.352495),
        (FOUR, [1.706998, 0.670453, 1.622549, 0], 0.706402),
    ],
)
def test_worked_checks(counts: IntArray, p: list[float], b: float) -> None:
    bias = preference_bias(counts)
    np.testing.assert_allclose(bias.p, p, atol=1e-6)
    assert bias.b == pytest.approx(b, abs=1e-6)
    assert not (bias.saturated | bias.regularised | bias.unconverged)


def test_never_predicted_is_never_wrongly_chosen() -> None:
    bias = preference_bias(FOUR)
    assert bias.wrong_somewhere.tolist() == [True, True, True, False]
    assert bias.never_wrongly_chosen.tolist() == [False, False, False, True]


@pytest.mark.parametrize("k", range(2, 17))
def test_always_one_strategy_is_saturated(k: int) -> None:
    counts = np.zeros((k, k), dtype=np.int64)
    counts[1] = np.arange(1, k + 1)
    bias = preference_bias(counts)
    assert bias.b == math.sqrt(k - 1)
    assert bias.p[1] == k
    assert bias.saturated
    assert not bias.regularised


def test_perfect_predictor_has_none() -> None:
    bias = preference_bias(np.diag([3, 1, 4, 1]))
    assert bias.b == 0
    assert np.isnan(bias.p).all()
    assert not (bias.saturated | bias.regularised | bias.unconverged)


def test_not_strongly_connected_is_regularised() -> None:
    counts = np.array([[1, 4, 0], [0, 0, 3], [0, 0, 0]])  # 0 beats 1, 1 beats 2, 2 wins nothing
    bias = preference_bias(counts)
    assert bias.regularised
    # P is {0, 1}: their contests are 4.5 and .5; for two, p_0 / p_1 is the ratio of the counts.
    assert bias.p[0] / bias.p[1] == pytest.approx(9)
    assert bias.p[2] == 0
    assert np.sum(bias.p) == pytest.approx(3)


def test_a_chain_of_three_is_not_strongly_connected_but_a_cycle_is() -> None:
    cycle = np.array([[0, 4, 0, 0], [0, 0, 3, 0], [0, 0, 0, 2], [1, 0, 0, 0]])
    assert not preference_bias(cycle).regularised
    two_pairs = np.array([[0, 4, 0, 0], [3, 0, 0, 0], [0, 0, 0, 2], [0, 0, 1, 0]])
    assert preference_bias(two_pairs).regularised


def test_strategy_without_gold_is_left_out() -> None:
    counts = np.zeros((4, 4), dtype=np.int64)
    counts[:3, :3] = THREE
    counts[3, :3] = 5  # predicted, and never gold
    bias = preference_bias(counts)
    np.testing.assert_allclose(bias.p[:3], preference_bias(THREE).p)
    assert np.isnan(bias.p[3])
    assert bias.b == pytest.approx(0.352495, abs=1e-6)


def test_unparsed_row_only_shows_that_gold_exists() -> None:
    counts = np.array([[5, 0, 0], [0, 5, 0], [2, 1, 0], [0, 0, 4]])  # label 2: all its turns are unparsed
    bias = preference_bias(counts)
    assert bias.saturated
    assert bias.wrong_somewhere.tolist() == [False, False, True]
    assert np.isnan(preference_bias(counts[:3]).p[2])


def test_compat_is_twenty_sweeps_and_one_sweep_is_a_ratio_of_counts() -> None:
    one = preference_bias(THREE, sweeps=1).p
    # In place and in label order: the first update alone starts from p = 1 everywhere.
    first = 8 / 4
    second = (3 * first / (1 + first) + 1 / 2) / (6 / (1 + first) + 4 / 2)
    third = (first / (1 + first) + 4 * second / (1 + second)) / (2 / (1 + first) + 1 / (1 + second))
    p = np.array([first, second, third])
    np.testing.assert_allclose(one, 3 * p / p.sum())
    assert preference_bias(THREE, sweeps=20).b == pytest.approx(0.352495, abs=1e-6)


def test_running_out_of_sweeps_is_marked() -> None:
    nearly_apart = np.array([[0, 10**6, 9, 0], [10**6, 0, 0, 0], [0, 1, 0, 10**6], [0, 0, 10**6, 0]])
    assert preference_bias(nearly_apart).unconverged


@given(matrices(), st.randoms())
def test_order_of_labels_does_not_matter(counts: IntArray, random: Any) -> None:
    order = list(range(len(counts)))
    random.shuffle(order)
    before, after = preference_bias(counts), preference_bias(counts[np.ix_(order, order)])
    assume(not (before.unconverged | after.unconverged))
    assert after.b == pytest.approx(float(before.b), abs=1e-6)
    np.testing.assert_allclose(after.p, before.p[order], atol=1e-6)


@given(matrices())
def test_bounds_and_mean(counts: IntArray) -> None:
    bias = preference_bias(counts)
    assert 0 <= bias.b <= math.sqrt(len(counts) - 1) + 1e-12
    counted = bias.p[~np.isnan(bias.p)]
    assert counted.mean() == pytest.approx(1) if counted.size else bias.b == 0
    assert bias.b == pytest.approx(counted.std() if counted.size else 0)
    assert not (bias.wrong_somewhere & bias.never_wrongly_chosen).any()


@given(matrices())
def test_the_diagonal_plays_no_part(counts: IntArray) -> None:
    more = counts + np.diag(np.full(len(counts), 7))
    assume(((counts.sum(0) > 0) == (more.sum(0) > 0)).all())
    np.testing.assert_array_equal(preference_bias(more).p, preference_bias(counts).p)


@given(matrices(least=1))
def test_it_is_the_bradley_terry_estimate(counts: IntArray) -> None:
    """At the maximum of the likelihood each strategy wins as often as its strength makes expected."""
    bias = preference_bias(counts)
    wins = counts * (1 - np.eye(len(counts)))
    chance = bias.p[:, None] / (bias.p[:, None] + bias.p)
    expected = ((wins + wins.T) * chance).sum(1)
    np.testing.assert_allclose(expected, wins.sum(1), rtol=1e-7)


@given(matrices(least=1))
def test_scale_of_counts_and_symmetry(counts: IntArray) -> None:
    np.testing.assert_allclose(preference_bias(3 * counts).p, preference_bias(counts).p, atol=1e-8)
    assert preference_bias(counts + counts.T).b == pytest.approx(0, abs=1e-8)


@given(st.lists(arrays(np.int64, (4, 4), elements=st.integers(0, 5)), min_size=1, max_size=6))
def test_a_batch_gives_what_each_gives_alone(batch: list[IntArray]) -> None:
    together = preference_bias(np.stack(batch))
    for i, counts in enumerate(batch):
        alone = preference_bias(counts)
        np.testing.assert_array_equal(together.p[i], alone.p)
        assert together.b[i] == alone.b


@pytest.mark.parametrize(("accuracy", "expected"), [(0.35, 0.089), (float(ESCONV_SHARES @ ESCONV_SHARES), 0.070)])
def test_noise_floor_on_the_papers_test_set(accuracy: float, expected: float) -> None:
    assert noise_floor(esconv_counts(1792, accuracy), simulations=5000) == pytest.approx(expected, abs=0.002)


def test_noise_floor_falls_with_n_and_follows_the_seed() -> None:
    floors = [noise_floor(esconv_counts(n, 0.35)) for n in (200, 800, 3200)]
    assert floors == sorted(floors, reverse=True)
    counts = esconv_counts(200, 0.35)
    assert noise_floor(counts, seed=3) == noise_floor(counts, seed=3) != noise_floor(counts, seed=4)


@pytest.mark.parametrize("counts", [np.diag([4, 4]), np.array([[3, 0], [2, 0]]), np.zeros((3, 3), dtype=np.int64)])
def test_noise_floor_without_errors_or_with_one_gold_label(counts: IntArray) -> None:
    assert noise_floor(counts) == 0


@pytest.mark.parametrize("gold", [(2, 1, 0, 2, 1, 1, 1, 1), (3, 5, 0, 0, 1, 1, 1, 1), (9, 0, 1, 4, 3, 2, 2, 1)])
def test_noise_floor_of_a_planner_that_is_never_right(gold: tuple[int, ...]) -> None:
    """A label without gold turns is never right, and the rounded shares of the others add up to more than 1."""
    assert 0.3 < noise_floor(np.roll(np.diag(gold), 1, axis=0)) < 2.7


def test_noise_floor_below_chance_is_that_of_chance() -> None:
    assert noise_floor(esconv_counts(1792, 0.0)) == pytest.approx(0.070, abs=0.005)


def test_an_unbiased_planner_is_debiased_to_near_nothing() -> None:
    rng = np.random.default_rng(5)
    gold = np.round(ESCONV_SHARES * 1792).astype(int)
    counts: FloatArray = np.stack([rng.multinomial(g, ESCONV_SHARES) for g in gold], axis=1)
    b = float(preference_bias(counts).b)
    assert debias(b, noise_floor(counts.astype(np.int64))) < 0.1
    assert debias(0.05, 0.09) == 0
    assert debias(0.5, 0.3) == pytest.approx(0.4)
