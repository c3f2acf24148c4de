"""How far a planner's strategy probabilities can be believed."""

from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np

from esckit.measures.intervals import FloatArray
from esckit.measures.predictions import Prediction
from esckit.measures.results import Reliability, ReliabilityBin
from esckit.strategy import ESCONV, Taxonomy

__all__ = ["BINS", "reliability"]

BINS: Final = 15
_LEAST_PROBABILITY: Final = 1e-12  # keeps the log-likelihood finite where gold was given 0


def reliability(predictions: Sequence[Prediction], taxonomy: Taxonomy = ESCONV) -> Reliability | None:
    """Measure strategy probabilities against gold; None where no turn has any.

    ECE (Guo et al. 2017, eq. 3): over 15 bins of equal width of the highest probability, the mean distance between how
    probable and how often right that label is. It judges the most probable label, which a sampled prediction need not
    be. Probabilities are taken as given; a gold label given less than 1e-12 counts as 1e-12; ties go to the earlier
    label.
    """
    match = cache(taxonomy.match)
    index = {label: i for i, label in enumerate(taxonomy.labels)}
    rows = [row for row in predictions if row.strategy_probabilities and row.gold_strategy is not None]
    if not rows:
        return None
    probabilities = np.zeros((len(rows), len(index)))  # (n, K)
    gold = np.array([index[match(row.gold_strategy) or ""] for row in rows])  # (n,)
    for i, row in enumerate(rows):
        for label, value in (row.strategy_probabilities or {}).items():
            probabilities[i, index[match(label) or ""]] = value
    order = np.argsort(-probabilities, axis=1, kind="stable")  # (n, K)
    given = probabilities[np.arange(len(rows)), gold]
    bins = _bins(probabilities.max(1), order[:, 0] == gold)
    return Reliability(
        n=len(rows),
        ece=sum(bin.n * abs(bin.confidence - bin.accuracy) for bin in bins) / len(rows),
        nll=float(-np.log(np.maximum(given, _LEAST_PROBABILITY)).mean()),
        top3_accuracy=float((order[:, :3] == gold[:, None]).any(1).mean()),
        bins=bins,
    )


def _bins(confidence: FloatArray, right: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> list[ReliabilityBin]:
    """Sort turns into bins ](b - 1) / 15, b / 15] of their confidence."""
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    here = [place == number for number in np.unique(place)]
    return [
        ReliabilityBin(n=int(each.sum()), confidence=float(confidence[each].mean()), accuracy=float(right[each].mean()))
        for each in here
    ]
