"""Paired comparison of two systems over the same dialogues: permutation tests, Holm's correction, intervals.

A figure is a function of totals over dialogues that also returns its derivative by every total, so that thousands of
permutations are a few matrix products.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from esckit.measures.intervals import DRAWS, Draws, FloatArray, Interval, basic_interval, resample_totals
from esckit.measures.preference_bias import bias_derivative

_BATCH: Final = 500  # permutations at a time
_TINY: Final = 1e-12


class Estimate(NamedTuple):
    """A figure of R totals and its derivative by each of them."""

    value: FloatArray  # (R,)
    derivative: FloatArray  # (R, F)


Figure = Callable[[FloatArray], Estimate]
"""From totals (R, F) to the figure."""


def permutation_p(first: FloatArray, second: FloatArray, figure: Figure, draws: Draws = DRAWS) -> float:
    """Return the two-sided p of the hypothesis that two systems have the same figure.

    Each permutation swaps the two systems' rows of every dialogue, or not, at random. The difference is divided by its
    standard error (from each dialogue's linear effect on it): without that, the test holds its level for systems that
    are alike in everything, but not for two that only have the same figure (Janssen 1997; Chung and Romano 2013).

    Args:
        first: (D, F) what each dialogue contributes to one system's totals.
        second: (D, F) the same dialogues for the other.
        figure: from totals to the figure.
        draws: of the permutations.

    Returns:
        (1 + permutations at least as extreme) / (1 + permutations): exact in that it never is below its level.
    """
    permutations, rng = draws.permutations, np.random.default_rng(draws.seed)
    limit = np.abs(_studentised(first, second, figure, np.zeros((1, len(first)))))[0] * (1 - 1e-9)
    extreme = 0
    for start in range(0, permutations, _BATCH):
        swaps = rng.integers(0, 2, size=(min(_BATCH, permutations - start), len(first))).astype(np.float64)
        extreme += int((np.abs(_studentised(first, second, figure, swaps)) >= limit).sum())
    return (1 + extreme) / (1 + permutations)


def difference_interval(first: FloatArray, second: FloatArray, figure: Figure, draws: Draws = DRAWS) -> Interval:
    """Return the 95% basic bootstrap interval of the first figure minus the second, over dialogues drawn in pairs."""
    features = first.shape[1]
    totals = resample_totals(np.concatenate([first, second], axis=1), draws.resamples, draws.seed)
    replicates = figure(totals[:, :features]).value - figure(totals[:, features:]).value
    observed = figure(first.sum(0, keepdims=True)).value[0] - figure(second.sum(0, keepdims=True)).value[0]
    return basic_interval(float(observed), replicates, low=-np.inf)


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the order given. Source: Holm 1979."""
    order = np.argsort(np.asarray(p), kind="stable")
    stepped = [(len(p) - rank) * p[i] for rank, i in enumerate(order)]
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1) if stepped else []
    return [float(value) for value in corrected]


def mean_of(turns: int) -> Figure:
    """A mean over a fixed number of turns; F is 1, the sum."""
    return lambda totals: Estimate(totals[:, 0] / turns, np.full_like(totals, 1 / turns))


def _studentised(first: FloatArray, second: FloatArray, figure: Figure, swaps: FloatArray) -> FloatArray:
    """The difference in standard errors, for each of R patterns of swapped dialogues (R, D)."""
    gap = second - first  # (D, F)
    moved = swaps @ gap  # (R, F)
    one, two = figure(first.sum(0) + moved), figure(second.sum(0) - moved)
    # Each dialogue's linear effect on the difference, with what it holds after the swaps.
    effects = one.derivative @ first.T - two.derivative @ second.T + swaps * ((one.derivative + two.derivative) @ gap.T)
    error = np.sqrt(((effects - effects.mean(1, keepdims=True)) ** 2).sum(1))
    return np.asarray((one.value - two.value) / np.maximum(error, _TINY))


def _matrices(totals: FloatArray) -> FloatArray:
    """(R, (K + 1) K) to (R, K + 1, K)."""
    k = int(np.sqrt(totals.shape[1]))  # (K + 1) K lies between two squares
    return totals.reshape(-1, k + 1, k)


def _f1(counts: FloatArray) -> tuple[FloatArray, ...]:
    """F1, gold counts, n, and the derivatives of F1 by right answers and by gold or predicted counts: (R, K) each."""
    gold, right = counts.sum(1), np.diagonal(counts, axis1=1, axis2=2)
    either = np.maximum(gold + counts[:, :-1].sum(2), 1)
    f1 = 2 * right / either
    return f1, gold, np.maximum(gold.sum(1, keepdims=True), 1), 2 / either, -f1 / either


def _spread(by_right: FloatArray, by_gold: FloatArray, by_predicted: FloatArray) -> FloatArray:
    """The derivative by each cell of the matrix, (R, (K + 1) K), from those by its diagonal and its two margins."""
    runs, k = by_gold.shape
    cells = np.repeat(by_gold[:, None, :], k + 1, axis=1)
    cells[:, :k] += by_predicted[:, :, None] + np.eye(k) * by_right[:, :, None]
    return cells.reshape(runs, -1)


def _q(totals: FloatArray) -> Estimate:
    f1, _, _, by_right, by_count = _f1(_matrices(totals))
    k = f1.shape[1]
    return Estimate(f1.mean(1), _spread(by_right / k, by_count / k, by_count / k))


def _q_w(totals: FloatArray) -> Estimate:
    f1, gold, turns, by_right, by_count = _f1(_matrices(totals))
    weight = gold / turns
    q_w = (weight * f1).sum(1)
    by_gold = weight * by_count + (f1 - q_w[:, None]) / turns
    return Estimate(q_w, _spread(weight * by_right, by_gold, weight * by_count))


def _accuracy(totals: FloatArray) -> Estimate:
    counts = _matrices(totals)
    right, turns = np.diagonal(counts, axis1=1, axis2=2).sum(1), np.maximum(counts.sum((1, 2)), 1)
    ones = np.ones((len(counts), counts.shape[2])) / turns[:, None]
    accuracy = right / turns
    return Estimate(accuracy, _spread(ones, -accuracy[:, None] * ones, 0 * ones))


def _b(totals: FloatArray) -> Estimate:
    b, derivative = bias_derivative(_matrices(totals))
    return Estimate(b, derivative.reshape(len(totals), -1))


FIGURES: Final[dict[str, Figure]] = {"q": _q, "q_w": _q_w, "accuracy": _accuracy, "b": _b}
"""Figures of confusion matrices; F is (K + 1) K."""
