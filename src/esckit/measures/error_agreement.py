"""How far an annotator of psychological errors agrees with labels: kappa, each type, confusion, the labels' noise."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np

from esckit.conversation import PSYCHOLOGICAL_ERRORS
from esckit.errors import EsckitError
from esckit.measures.agreement import cohen_kappa
from esckit.measures.intervals import DRAWS, Draws, IntArray

__all__ = ["error_agreement", "label_noise"]

_OUTCOMES: Final = ("none", *PSYCHOLOGICAL_ERRORS)


def error_agreement(
    labels: Sequence[str | None], found: Sequence[str | None], groups: Sequence[Hashable], draws: Draws = DRAWS
) -> dict[str, Any]:
    """Compare what an annotator found with labels, JSON-ready; docs/annotation.md defines every figure.

    Args:
        labels: of each reply its error type, None for a clean one.
        found: what the annotator says, likewise.
        groups: each reply's dialogue; intervals resample dialogues.
        draws: of the bootstrap.

    Raises:
        EsckitError: there is no reply.
    """
    if not labels:
        raise EsckitError("agreement needs labelled replies: there is none.")
    one, other = [label or "none" for label in labels], [label or "none" for label in found]
    counts = _confusion(one, other)
    yes, also = ([label != "none" for label in side] for side in (one, other))
    kappa, any_error = (cohen_kappa(*sides, clusters=groups, draws=draws) for sides in ((one, other), (yes, also)))
    types = {name: _type_figures(counts, place) for place, name in enumerate(_OUTCOMES)}
    labelled = [figures["f1"] for figures in types.values() if figures["labels"]]
    return {
        "format": 1,
        "n": len(one),
        "dialogues": len(set(groups)),
        "seed": draws.seed,
        "resamples": draws.resamples,
        "kappa": kappa.value,
        "kappa_interval": list(kappa.interval),
        "any_error_kappa": any_error.value,
        "any_error_kappa_interval": list(any_error.interval),
        "accuracy": float(np.trace(counts)) / len(one),
        "most_frequent_share": float(counts.sum(1).max()) / len(one),
        "macro_f1": sum(labelled) / len(labelled),
        "types": types,
        "confusion": {
            name: dict(zip(_OUTCOMES, row.tolist(), strict=True)) for name, row in zip(_OUTCOMES, counts, strict=True)
        },
    }


def label_noise(keys: Sequence[Hashable], labels: Sequence[str | None]) -> dict[str, Any] | None:
    """How labels agree with themselves: over pairs of replies that are the same in everything that is known of them.

    Args:
        keys: what the annotator was shown, as far as it is known.
        labels: of each reply.

    Returns:
        The pairs, the share with equal labels, and the share expected by chance from the labels of these replies;
        None where no reply occurs twice.
    """
    same: dict[Hashable, list[str]] = defaultdict(list)
    for key, label in zip(keys, labels, strict=True):
        same[key].append(label or "none")
    pairs = [pair for group in same.values() for pair in combinations(group, 2)]
    if not pairs:
        return None
    sides = [label for pair in pairs for label in pair]
    shares = np.array([sides.count(name) for name in _OUTCOMES]) / len(sides)
    return {
        "pairs": len(pairs),
        "replies": sum(len(group) for group in same.values() if len(group) > 1),
        "agree": sum(one == other for one, other in pairs) / len(pairs),
        "by_chance": float((shares**2).sum()),
    }


def _confusion(labels: Sequence[str], found: Sequence[str]) -> IntArray:
    """(K, K) counts, a row a label."""
    place = {name: i for i, name in enumerate(_OUTCOMES)}
    counts = np.zeros((len(place), len(place)), dtype=np.int64)
    for label, said in zip(labels, found, strict=True):
        counts[place[label], place[said]] += 1
    return counts


def _type_figures(counts: IntArray, place: int) -> dict[str, Any]:
    right, labels, found = int(counts[place, place]), int(counts[place].sum()), int(counts[:, place].sum())
    return {
        "labels": labels,
        "found": found,
        "precision": right / found if found else 0.0,
        "recall": right / labels if labels else 0.0,
        "f1": 2 * right / (labels + found) if labels + found else 0.0,
    }
