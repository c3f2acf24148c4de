"""A judge against people: how its scores agree with ratings of the same replies."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

import numpy as np

from esckit.errors import EsckitError
from esckit.measures.agreement import Coefficient, cohen_kappa
from esckit.measures.intervals import FloatArray, basic_interval
from esckit.measures.ratings import Ratings, agreement

__all__ = ["JudgedItem", "against_people", "pearson", "spearman"]

_FEWEST: Final = 3  # items; two points always lie on a line


class JudgedItem(NamedTuple):
    """A judge's score, and the dialogue that its reply stands in."""

    score: int
    dialogue: str


def against_people(
    judged: Mapping[str, JudgedItem], ratings: Ratings, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compare a judge with people over the items that both rated.

    Args:
        judged: item to score.
        ratings: people's, numbers on the judge's scale.
        resamples: of the bootstrap: over dialogues.
        seed: of the resamples.

    Returns:
        JSON-ready: ``items``; ``pearson`` and ``spearman`` of the judge with the mean of the people who rated an item
        (None for fewer than three items, or where one side never varies); ``cohen``, with each rater: ``rater``,
        ``items``, ``plain`` and ``quadratic`` kappa; each coefficient with ``value`` and 95% ``interval``; ``people``,
        the same people among each other (`ratings.agreement`), None where there is one.

    Raises:
        EsckitError: a rating is no number, or no rated item was judged.
    """
    if any(isinstance(rating, str) for row in ratings.table for rating in row):
        raise EsckitError("people's ratings are no numbers: rate on the judge's scale.")
    rows = [
        (judged[item], [None if rating is None else float(rating) for rating in row])
        for item, row in zip(ratings.items, ratings.table, strict=True)
        if item in judged and any(rating is not None for rating in row)
    ]
    if not rows:
        raise EsckitError("no rated item was judged: take the items from the sheet that judging wrote.")
    scores = np.array([own.score for own, _ in rows], dtype=np.float64)
    means = np.array([np.mean([rating for rating in row if rating is not None]) for _, row in rows])
    dialogues = [own.dialogue for own, _ in rows]

    def correlation(kind: "Callable[..., Coefficient | None]") -> dict[str, Any] | None:
        return _json(kind(scores, means, dialogues, resamples=resamples, seed=seed))

    return {
        "items": len(rows),
        "pearson": correlation(pearson),
        "spearman": correlation(spearman),
        "cohen": [
            found
            for place, rater in enumerate(ratings.raters)
            if (found := _kappas(rater, [(own, row[place]) for own, row in rows], resamples, seed))
        ],
        "people": agreement(ratings, resamples=resamples, seed=seed) if len(ratings.raters) > 1 else None,
    }


def pearson(
    first: FloatArray, second: FloatArray, dialogues: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> Coefficient | None:
    """Return Pearson's correlation of two raters, with a 95% basic bootstrap interval over dialogues, cut to -1..1.

    Args:
        first: (N,) one's ratings.
        second: (N,) the other's.
        dialogues: of each item.
        resamples: of the bootstrap; those in which one side does not vary are left out.
        seed: of the resamples.

    Returns:
        None for fewer than three items, or where one side never varies.
    """
    return _with_interval(first, second, dialogues, _correlation, resamples, seed)


def spearman(
    first: FloatArray, second: FloatArray, dialogues: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> Coefficient | None:
    """Return Spearman's correlation: Pearson's of the ranks, equal ratings sharing their mean rank. See `pearson`."""
    return _with_interval(first, second, dialogues, _rank_correlation, resamples, seed)


def _with_interval(
    first: FloatArray,
    second: FloatArray,
    dialogues: Sequence[str],
    correlation: Callable[[FloatArray, FloatArray], float | None],
    resamples: int,
    seed: int,
) -> Coefficient | None:
    value = correlation(first, second) if len(first) >= _FEWEST else None
    if value is None:
        return None
    order = sorted(range(len(first)), key=lambda place: dialogues[place])
    clusters = [np.array(list(own)) for _, own in groupby(order, key=lambda place: dialogues[place])]
    rng = np.random.default_rng(seed)
    replicates = []
    for _ in range(resamples):
        drawn = np.concatenate([clusters[cluster] for cluster in rng.integers(len(clusters), size=len(clusters))])
        if (found := correlation(first[drawn], second[drawn])) is not None:
            replicates.append(found)
    return Coefficient(value, basic_interval(value, np.array(replicates), low=-1, high=1))


def _correlation(first: FloatArray, second: FloatArray) -> float | None:
    one, two = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((one**2).sum() * (two**2).sum()))
    return None if scale < 1e-12 else float((one * two).sum() / scale)


def _rank_correlation(first: FloatArray, second: FloatArray) -> float | None:
    return _correlation(_ranks(first), _ranks(second))


def _ranks(ratings: FloatArray) -> FloatArray:
    """(N,) ranks, equal ratings sharing their mean rank."""
    _, place, number = np.unique(ratings, return_inverse=True, return_counts=True)
    return np.asarray((number.cumsum() - (number - 1) / 2)[place])


def _kappas(
    rater: str, pairs: Sequence[tuple[JudgedItem, float | None]], resamples: int, seed: int
) -> dict[str, Any] | None:
    both = [(float(own.score), rating, own.dialogue) for own, rating in pairs if rating is not None]
    if not both:
        return None
    judge, person, dialogues = zip(*both, strict=True)
    plain, quadratic = (
        cohen_kappa(judge, person, quadratic=weighted, clusters=dialogues, resamples=resamples, seed=seed)
        for weighted in (False, True)
    )
    return {"rater": rater, "items": len(both), "plain": _json(plain), "quadratic": _json(quadratic)}


def _json(coefficient: Coefficient | None) -> dict[str, Any] | None:
    return coefficient and {"value": coefficient.value, "interval": list(coefficient.interval)}
