"""Agreement between raters: Fleiss' and Cohen's kappa, Krippendorff's alpha, each with an interval over items.

All are 1 minus observed over expected disagreement: 1 is perfect, 0 chance, below 0 worse than chance. Where everyone
always gives one and the same rating nothing but agreement was possible, and they are 1. All come from tables (C, C) of
pairs of ratings of one item, summed over items, and differ in what they expect by chance.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np

from esckit.errors import EsckitError
from esckit.measures.intervals import DRAWS, LEVEL, Draws, FloatArray, IntArray, Interval

Level = Literal["nominal", "ordinal", "interval"]
LEVELS: Final[tuple[Level, ...]] = get_args(Level)

_NOTHING: Final = 1e-12  # expected disagreement that rounding leaves of 0
_BATCH: Final = 50  # draws at a time
_PRIOR: Final = 2.0  # items, spread evenly over all pairs of ratings: else a rare rating's interval covers 50 to 90%


class Coefficient(NamedTuple):
    """A coefficient, at most 1, and its 95% interval over items, which holds it.

    The interval is the middle 95% under a Bayesian bootstrap (Rubin 1981): each item weighs an exponential draw, beside
    two made-up items. A plain bootstrap cannot know that a rating seen five times, always agreed on, might be disputed.
    """

    value: float
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"value": self.value, "interval": list(self.interval)}


def fleiss_kappa(counts: IntArray, draws: Draws = DRAWS) -> Coefficient:
    """Return Fleiss' kappa from (items, categories) counts of raters. Source: Fleiss 1971.

    Raises:
        EsckitError: there is no item, one was rated less than twice, or some were rated more often than others.
    """
    raters = counts.sum(1)
    if not len(counts) or raters.min() != raters.max() or raters[0] < 2:
        raise EsckitError("Fleiss' kappa needs items that are all rated equally often, at least twice each.")
    counts = counts[:, counts.any(0)]
    kappa = _coefficient(1 - np.eye(counts.shape[1]))
    return _with_interval(_coincidences(counts), len(counts), kappa, draws)


def cohen_kappa(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    *,
    quadratic: bool = False,
    clusters: Sequence[Hashable] | None = None,
    draws: Draws = DRAWS,
) -> Coefficient:
    """Return Cohen's kappa of two raters. Source: Cohen 1960; 1968 for weights.

    Args:
        first: one rater's ratings, None where an item is not rated.
        second: the other's, of the same items.
        quadratic: weigh a disagreement by the squared difference of the ratings, which then must be numbers.
        clusters: what each item belongs to, such as its dialogue; these are then weighed instead of items.
        draws: of weights.

    Raises:
        EsckitError: no item is rated by both, or ``quadratic`` and a rating is no number.
    """
    whole = range(len(first)) if clusters is None else clusters
    rated = [item for item in zip(first, second, whole, strict=True) if None not in item[:2]]
    if not rated:
        raise EsckitError("Cohen's kappa needs items that both raters rated: there is none.")
    categories = _categories([item[:2] for item in rated])
    index = {category: i for i, category in enumerate(categories)}
    row = {cluster: place for place, cluster in enumerate(dict.fromkeys(cluster for *_, cluster in rated))}
    totals = np.zeros((len(row), len(categories), len(categories)))
    for one, two, cluster in rated:
        totals[row[cluster], index[one], index[two]] += 1
    kappa = _coefficient(_squared(categories) if quadratic else 1 - np.eye(len(categories)))
    return _with_interval(totals, len(rated), kappa, draws)


def krippendorff_alpha(
    ratings: Sequence[Sequence[Hashable]], level: Level = "nominal", draws: Draws = DRAWS
) -> Coefficient:
    """Return Krippendorff's alpha; any rating may be missing. Source: Krippendorff 2011, sections A to D.

    Args:
        ratings: for each item what each rater said, None where one said nothing; items with one rating or none are
            left out. Numbers, unless the level is nominal.
        level: what the distance between two ratings is: any difference counts 1 (nominal), the number of ratings in
            between, squared (ordinal), or the squared difference (interval).
        draws: of the items' weights.

    Raises:
        EsckitError: no item has two ratings, or a rating is no number where the level asks for one.
    """
    kept = [[rating for rating in item if rating is not None] for item in ratings]
    kept = [item for item in kept if len(item) > 1]
    if not kept:
        raise EsckitError("Krippendorff's alpha needs items with at least two ratings: there is none.")
    categories = _categories(kept)
    fixed = 1 - np.eye(len(categories)) if level == "nominal" else _squared(categories)
    alpha = _coefficient(None if level == "ordinal" else fixed, less=1)
    counts = np.array([[item.count(category) for category in categories] for item in kept])
    return _with_interval(_coincidences(counts), len(kept), alpha, draws)


def _coincidences(counts: IntArray) -> FloatArray:
    """(N, C, C): in each item the pairs of ratings by different raters, each weighing 1 / (ratings - 1)."""
    pairs = counts[:, :, None] * (counts[:, None, :] - np.eye(counts.shape[1]))
    return np.asarray(pairs / (counts.sum(1) - 1)[:, None, None])


def _categories(items: Sequence[Sequence[Hashable]]) -> list[Any]:
    """The ratings that occur: numbers by value, names by alphabet."""
    found = {rating for item in items for rating in item}
    numbers = [rating for rating in found if isinstance(rating, int | float)]
    return sorted(numbers) if len(numbers) == len(found) else sorted(found, key=repr)


def _coefficient(distance: FloatArray | None, less: int = 0) -> Callable[[FloatArray], FloatArray]:
    """1 minus observed over expected distance, from tables (R, C, C) of pairs; (C, C), or None for the ordinal one.

    ``less`` is what chance pairs a rating with: all ratings, or all but itself (1).
    """

    def coefficient(pairs: FloatArray) -> FloatArray:
        first, second = pairs.sum(2), pairs.sum(1)
        apart = _ordinal(first) if distance is None else distance
        by_chance = first[:, :, None] * second[:, None, :] / (first.sum(1) - less)[:, None, None]
        observed, expected = ((each * apart).sum((1, 2)) for each in (pairs, by_chance))
        return np.asarray(1 - np.divide(observed, expected, out=np.zeros_like(observed), where=expected > _NOTHING))

    return coefficient


def _with_interval(
    totals: FloatArray, items: int, coefficient: Callable[[FloatArray], FloatArray], draws: Draws
) -> Coefficient:
    """Of clusters' tables of pairs (N, C, C), which hold so many items."""
    value = float(coefficient(totals.sum(0)[None])[0])
    n, k, _ = totals.shape
    flat, rng, tail = totals.reshape(n, k * k), np.random.default_rng(draws.seed), (1 - LEVEL) / 2
    drawn = []
    for start in range(0, draws.resamples, _BATCH):  # a (resamples, clusters) matrix need not fit in memory
        size = min(_BATCH, draws.resamples - start)
        prior = rng.gamma(_PRIOR / k**2, size=(size, k * k)) * flat.sum() / items
        weighed = rng.standard_exponential((size, n)) @ flat + prior
        drawn.append(coefficient(weighed.reshape(size, k, k)))
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    return Coefficient(value, Interval(min(float(low), value), max(float(high), value)))


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
