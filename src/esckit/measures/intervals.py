"""Basic bootstrap intervals over clusters (dialogues): turns of one dialogue are not independent of each other."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LEVEL: Final = 0.95
"""Nominal coverage of every interval."""

_BATCH: Final = 50  # resamples at a time


class Interval(NamedTuple):
    """Two ends, in the figure's own unit."""

    low: float
    high: float


class Draws(NamedTuple):
    """How much is drawn for intervals and tests; equal draws and inputs give equal figures."""

    seed: int = 0
    resamples: int = 1000  # of the bootstrap
    permutations: int = 10_000  # of each test


DRAWS: Final = Draws()


def resample_totals(totals: IntArray | FloatArray, resamples: int, seed: int) -> FloatArray:
    """Draw clusters with replacement and add up what they hold.

    Every figure that is a function of sums over clusters (counts in a confusion matrix, a sum and a number of turns)
    is resampled by it: compute the function on each row of the result.

    Args:
        totals: (clusters, ...) what each cluster contributes.
        resamples: how many times to draw as many clusters as there are.
        seed: of the draws; equal seeds and inputs give equal results.

    Returns:
        (resamples, ...) sums over the clusters drawn.
    """
    clusters = len(totals)
    flat = totals.reshape(clusters, -1).astype(np.float64)  # (clusters, F)
    rng = np.random.default_rng(seed)
    sums = np.empty((resamples, flat.shape[1]))
    for start in range(0, resamples, _BATCH):  # a (resamples, clusters) matrix need not fit in memory
        batch = sums[start : start + _BATCH]
        drawn = [np.bincount(rng.integers(clusters, size=clusters), minlength=clusters) for _ in batch]
        batch[:] = np.array(drawn, dtype=np.float64) @ flat
    return sums.reshape(resamples, *totals.shape[1:])


def basic_interval(estimate: float, replicates: FloatArray, *, low: float = 0.0, high: float = np.inf) -> Interval:
    """Return the basic (reverse percentile) bootstrap interval, cut to the figure's range; it holds the estimate.

    The basic interval mirrors the replicates around the estimate: [2t - q(.975), 2t - q(.025)] (Davison and Hinkley
    1997, eq. 5.6). For a figure with upward bias, as preference bias is near 0, the percentile interval lies above the
    truth; this one corrects for it.

    Args:
        estimate: the figure on all clusters.
        replicates: (resamples,) the figure on each resample.
        low: the least value that the figure can take.
        high: the greatest.
    """
    tail = (1 - LEVEL) / 2
    below, above = np.quantile(replicates, [tail, 1 - tail])
    ends = np.clip([2 * estimate - above, 2 * estimate - below], low, high)
    return Interval(min(float(ends[0]), estimate), max(float(ends[1]), estimate))


def dialogue_places(dialogues: Sequence[str]) -> tuple[int, IntArray]:
    """The number of different dialogues, and each one's place among them (N,)."""
    names, places = np.unique(np.array(dialogues), return_inverse=True)
    return len(names), np.asarray(places, dtype=np.int64).reshape(-1)


def mean_intervals(
    each: Mapping[str, FloatArray], dialogues: Sequence[str], draws: Draws = DRAWS, *, high: float = 1.0
) -> dict[str, Interval | None]:
    """Return the interval of each measure's mean over responses; None where no response has a value.

    Args:
        each: measure to (N,) values; NaN where a response is left out.
        dialogues: (N,) of each response; they are what is drawn.
        draws: of the bootstrap.
        high: the greatest value that there can be.
    """
    if not each:
        return {}
    number, places = dialogue_places(dialogues)
    values = np.stack(list(each.values()), axis=1)  # (N, M)
    counted = ~np.isnan(values)
    totals = np.zeros((number, len(each), 2))  # sums and numbers
    np.add.at(totals, places, np.stack([np.where(counted, values, 0.0), counted], axis=2))
    drawn = resample_totals(totals, draws.resamples, draws.seed)
    intervals: dict[str, Interval | None] = {}
    for place, name in enumerate(each):
        (total, n), held = totals[:, place].sum(0), drawn[drawn[:, place, 1] > 0, place]
        lowest = float(np.min(values[counted[:, place], place], initial=0.0))  # some measures go below 0
        intervals[name] = basic_interval(total / n, held[:, 0] / held[:, 1], low=lowest, high=high) if n else None
    return intervals
