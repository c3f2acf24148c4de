"""Agreement between raters: Fleiss' and Cohen's kappa, Krippendorff's alpha, each with an interval over items.

All are 1 minus observed over expected disagreement: 1 is perfect, 0 chance, below 0 worse than chance. Where everyone
always gives one and the same rating nothing but agreement was possible, and they are 1.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np

from esckit.errors import EsckitError
from esckit.measures.intervals import FloatArray, IntArray, Interval, basic_interval, resample_totals

__all__ = ["LEVELS", "Coefficient", "Level", "cohen_kappa", "fleiss_kappa", "krippendorff_alpha"]

Level = Literal["nominal", "ordinal", "interval"]
LEVELS: Final[tuple[Level, ...]] = get_args(Level)

_NOTHING: Final = 1e-12  # expected disagreement that rounding leaves of 0


class Coefficient(NamedTuple):
    """A coefficient, at most 1, and its 95% basic bootstrap interval over items, cut to -1..1."""

    value: float
    interval: Interval


def fleiss_kappa(counts: IntArray, *, resamples: int = 1000, seed: int = 0) -> Coefficient:
    """Return Fleiss' kappa for items that were each rated equally often. Source: Fleiss 1971.

    Args:
        counts: (items, categories) how many raters put an item into a category.
        resamples: bootstrap resamples of items.
        seed: of the resamples.

    Raises:
        EsckitError: there is no item, one was rated less than twice, or some were rated more often than others.
    """
    raters = counts.sum(1)
    if not len(counts) or raters.min() != raters.max() or raters[0] < 2:
        raise EsckitError("Fleiss' kappa needs items that are all rated equally often, at least twice each.")
    apart = (raters**2 - (counts**2).sum(1)) / (raters * (raters - 1))  # (N,) share of pairs of raters that differ
    totals = np.column_stack([apart, counts, np.ones(len(counts))])

    def kappa(sums: FloatArray) -> FloatArray:
        shares = sums[:, 1:-1] / sums[:, 1:-1].sum(1, keepdims=True)
        return _one_minus(sums[:, 0] / sums[:, -1], 1 - (shares**2).sum(1))

    return _with_interval(totals, kappa, resamples, seed)


def cohen_kappa(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    *,
    quadratic: bool = False,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Coefficient:
    """Return Cohen's kappa of two raters. Source: Cohen 1960; 1968 for weights.

    Args:
        first: one rater's ratings, None where an item is not rated.
        second: the other's, of the same items.
        quadratic: weigh a disagreement by the squared difference of the ratings, which then must be numbers.
        clusters: what each item belongs to, such as its dialogue; these are then drawn instead of items.
        resamples: bootstrap resamples of items.
        seed: of the resamples.

    Raises:
        EsckitError: no item is rated by both, or ``quadratic`` and a rating is no number.
    """
    whole = range(len(first)) if clusters is None else clusters
    rated = [item for item in zip(first, second, whole, strict=True) if None not in item[:2]]
    pairs = [item[:2] for item in rated]
    if not pairs:
        raise EsckitError("Cohen's kappa needs items that both raters rated: there is none.")
    categories = _categories(pairs)
    index = {category: i for i, category in enumerate(categories)}
    row = {cluster: place for place, cluster in enumerate(dict.fromkeys(cluster for *_, cluster in rated))}
    totals = np.zeros((len(row), len(categories), len(categories)))
    for one, two, cluster in rated:
        totals[row[cluster], index[one], index[two]] += 1
    distance = _squared(categories) if quadratic else 1 - np.eye(len(categories))

    def kappa(sums: FloatArray) -> FloatArray:
        expected = sums.sum(2)[:, :, None] * sums.sum(1)[:, None, :] / sums.sum((1, 2))[:, None, None]
        return _one_minus((sums * distance).sum((1, 2)), (expected * distance).sum((1, 2)))

    return _with_interval(totals, kappa, resamples, seed)


def krippendorff_alpha(
    ratings: Sequence[Sequence[Hashable]], level: Level = "nominal", *, resamples: int = 1000, seed: int = 0
) -> Coefficient:
    """Return Krippendorff's alpha; any rating may be missing. Source: Krippendorff 2011, sections A to D.

    Args:
        ratings: for each item what each rater said, None where one said nothing; items with one rating or none are
            left out. Numbers, unless the level is nominal.
        level: what the distance between two ratings is: any difference counts 1 (nominal), the number of ratings in
            between, squared (ordinal), or the squared difference (interval).
        resamples: bootstrap resamples of items.
        seed: of the resamples.

    Raises:
        EsckitError: no item has two ratings, or a rating is no number where the level asks for one.
    """
    kept = [[rating for rating in item if rating is not None] for item in ratings]
    kept = [item for item in kept if len(item) > 1]
    if not kept:
        raise EsckitError("Krippendorff's alpha needs items with at least two ratings: there is none.")
    categories = _categories(kept)
    fixed = 1 - np.eye(len(categories)) if level == "nominal" else _squared(categories)

    def alpha(sums: FloatArray) -> FloatArray:
        margin = sums.sum(2)  # (R, C)
        distance = _ordinal(margin) if level == "ordinal" else fixed
        expected = (margin[:, :, None] * margin[:, None, :] * distance).sum((1, 2)) / (margin.sum(1) - 1)
        return _one_minus((sums * distance).sum((1, 2)), expected)

    return _with_interval(_coincidences(kept, categories), alpha, resamples, seed)


def _coincidences(items: Sequence[Sequence[Hashable]], categories: Sequence[Hashable]) -> FloatArray:
    """(N, C, C): in each item the pairs of ratings by different raters, each weighing 1 / (ratings - 1)."""
    index = {category: i for i, category in enumerate(categories)}
    counts = np.zeros((len(items), len(categories)))
    for row, item in enumerate(items):
        np.add.at(counts[row], [index[rating] for rating in item], 1)
    pairs = counts[:, :, None] * (counts[:, None, :] - np.eye(len(categories)))
    return np.asarray(pairs / (counts.sum(1) - 1)[:, None, None])


def _categories(items: Sequence[Sequence[Hashable]]) -> list[Any]:
    """The ratings that occur: numbers by value, names by alphabet."""
    found = {rating for item in items for rating in item}
    numbers = [rating for rating in found if isinstance(rating, int | float)]
    return sorted(numbers) if len(numbers) == len(found) else sorted(found, key=repr)


def _with_interval(
    totals: FloatArray, coefficient: Callable[[FloatArray], FloatArray], resamples: int, seed: int
) -> Coefficient:
    value = float(coefficient(totals.sum(0)[None])[0])
    replicates = coefficient(resample_totals(totals, resamples, seed))
    return Coefficient(value, basic_interval(value, replicates, low=-1, high=1))


def _one_minus(observed: FloatArray, expected: FloatArray) -> FloatArray:
    possible = expected > _NOTHING
    ratio = np.divide(observed, expected, out=np.zeros_like(expected), where=possible)
    return np.asarray(1 - ratio)


def _squared(categories: Sequence[Hashable]) -> FloatArray:
    """(C, C) squared differences."""
    if not all(isinstance(category, int | float) for category in categories):
        raise EsckitError("this coefficient needs ratings that are numbers: use the nominal one for names.")
    numbers = np.array(categories, dtype=np.float64)
    return np.asarray((numbers[:, None] - numbers) ** 2)


def _ordinal(margin: FloatArray) -> FloatArray:
    """(R, C) numbers of ratings to (R, C, C): ratings from one category to the other, half of each end, squared."""
    up_to = margin.cumsum(1) - margin / 2
    return np.asarray((up_to[:, :, None] - up_to[:, None, :]) ** 2)
