"""The interval of B and its derivative."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from esckit.measures.intervals import IntArray, resample_totals
from esckit.measures.preference_bias import bias_derivative, bias_interval, preference_bias, squared_bias

from .coverage import bias_coverage
from .simulate import draw, planner

counts = arrays(np.int64, (6, 4, 3), elements=st.integers(0, 4))  # 6 dialogues, 3 labels and unparsed


@given(counts)
def test_the_interval_lies_in_the_range_of_b(by_dialogue: IntArray) -> None:
    bias = preference_bias(by_dialogue.sum(0))
    low, high = bias_interval(bias, preference_bias(resample_totals(by_dialogue, 40, seed=0)))
    assert 0 <= low <= high <= math.sqrt(2)


@given(arrays(np.int64, (4, 3), elements=st.integers(0, 9)))
def test_without_noise_the_interval_is_the_value(total: IntArray) -> None:
    equal = np.stack([total] * 5)
    bias = preference_bias(equal.sum(0))
    low, high = bias_interval(bias, preference_bias(resample_totals(equal, 20, seed=0)))
    assert low == pytest.approx(float(bias.b), abs=1e-9)
    assert high == pytest.approx(float(bias.b), abs=1e-9)


def test_a_large_bias_is_told_from_none_and_a_small_one_is_not() -> None:
    rng = np.random.default_rng(4)
    for true, excludes_zero in ((0.01, False), (0.8, True)):
        by_dialogue = draw([planner(true, 0.35, rng)], 130, rng)[0]
        bias = preference_bias(by_dialogue.sum(0))
        low, high = bias_interval(bias, preference_bias(resample_totals(by_dialogue, 300, seed=0)))
        assert (low > 0) == excludes_zero
        assert low <= true <= high


@pytest.mark.parametrize(
    "matrix",
    [
        [[9, 6, 2], [3, 0, 1], [1, 4, 0], [0, 2, 0]],
        [[0, 6, 2, 5], [3, 0, 1, 2], [1, 4, 0, 2], [0, 0, 0, 9], [0, 0, 1, 0]],  # the last label is never predicted
        [[2, 4, 0], [2, 0, 3], [0, 0, 0], [0, 0, 1]],  # and so is this one
    ],
)
def test_derivative_equals_finite_differences_inside_the_contests(matrix: list[list[int]]) -> None:
    total = np.array([matrix], dtype=np.float64)
    b, derivative = bias_derivative(total)
    bias = preference_bias(total)
    assert b[0] == bias.b[0]
    step = 1e-5
    for i, j in np.ndindex(total.shape[1:]):
        change = np.zeros_like(total)
        change[0, i, j] = step
        up, down = (float(preference_bias(total + sign * change).b[0]) for sign in (1, -1))
        inside = i < len(matrix[0]) and i != j and bias.wrong_somewhere[0, i] and bias.wrong_somewhere[0, j]
        expected = (up - down) / (2 * step) if inside and matrix[i][j] else 0
        if inside and not matrix[i][j]:
            continue  # a count below 0 is none
        assert derivative[0, i, j] == pytest.approx(expected, abs=1e-5), (i, j)


@given(counts)
def test_derivative_is_finite(by_dialogue: IntArray) -> None:
    assert np.isfinite(bias_derivative(by_dialogue.astype(np.float64))[1]).all()


def test_the_square_of_b_is_not_pushed_up_by_noise() -> None:
    rng = np.random.default_rng(5)
    for true in (1e-9, 0.3):
        drawn = [draw([planner(true, 0.35, rng)], 130, rng)[0] for _ in range(12)]
        found = [squared_bias(each) for each in drawn]
        assert np.mean(found) == pytest.approx(true**2, abs=3 * float(np.std(found)) / 12**0.5)
        assert np.mean([float(preference_bias(each.sum(0)).b) ** 2 for each in drawn]) > true**2 + 0.01


@pytest.mark.slow
@pytest.mark.parametrize("true", [0.0, 0.1, 0.3])
def test_covers_the_true_b_of_130_dialogues(true: float) -> None:
    assert bias_coverage(true, repetitions=250, seed=11)[0] >= 0.9
