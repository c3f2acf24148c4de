"""How far an annotator of psychological errors agrees with labels: kappa, each type, confusion, the labels' noise."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np

from esckit.conversation import PSYCHOLOGICAL_ERRORS
from esckit.errors import EsckitError
from esckit.measures.agreement import cohen_kappa
from esckit.measures.figure_tables import Table
from esckit.measures.intervals import IntArray

__all__ = ["confusion_table", "error_agreement", "label_noise", "types_table"]

_OUTCOMES: Final = ("none", *PSYCHOLOGICAL_ERRORS)


def error_agreement(
    labels: Sequence[str | None],
    found: Sequence[str | None],
    groups: Sequence[Hashable],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare what an annotator found with labels, JSON-ready; docs/annotation.md defines every figure.

    Args:
        labels: of each reply its error type, None for a clean one.
        found: what the annotator says, likewise.
        groups: each reply's dialogue; intervals resample dialogues.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        EsckitError: there is no reply.
    """
    if not labels:
        raise EsckitError("agreement needs labelled replies: there is none.")
    one, other = [label or "none" for label in labels], [label or "none" for label in found]
    counts = _confusion(one, other)
    yes, also = ([label != "none" for label in side] for side in (one, other))
    settings: Any = {"clusters": groups, "resamples": resamples, "seed": seed}
    kappa, any_error = cohen_kappa(one, other, **settings), cohen_kappa(yes, also, **settings)
    types = {name: _type_figures(counts, place) for place, name in enumerate(_OUTCOMES)}
    labelled = [figures["f1"] for figures in types.values() if figures["labels"]]
    return {
        "format": 1,
        "n": len(one),
        "dialogues": len(set(groups)),
        "seed": seed,
        "resamples": resamples,
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


def types_table(figures: dict[str, Any], title: str) -> Table:
    """A row a type of what `error_agreement` returned, with kappa in the notes."""
    low, high = figures["kappa_interval"]
    low_any, high_any = figures["any_error_kappa_interval"]
    return Table(
        title=title,
        columns=["type", "labels", "found", "precision", "recall", "F1"],
        names=1,
        rows=[
            [name, str(row["labels"]), str(row["found"]), *(f"{100 * row[key]:.1f}" for key in _SHARES)]
            for name, row in figures["types"].items()
        ],
        notes=[
            f"kappa {figures['kappa']:.3f} ({low:.3f}, {high:.3f}), 95% over {figures['dialogues']} dialogues",
            f"kappa of error or none {figures['any_error_kappa']:.3f} ({low_any:.3f}, {high_any:.3f})",
            f"accuracy {100 * figures['accuracy']:.1f}, always the most frequent label "
            f"{100 * figures['most_frequent_share']:.1f}, macro-F1 {100 * figures['macro_f1']:.1f}, n = {figures['n']}",
        ],
    )


_SHARES: Final = ("precision", "recall", "f1")


def confusion_table(figures: dict[str, Any]) -> Table:
    """Labels in rows, what was found in columns."""
    return Table(
        title="Confusion (rows: labels; columns: found)",
        columns=["", *_OUTCOMES],
        names=1,
        rows=[[name, *map(str, row.values())] for name, row in figures["confusion"].items()],
        notes=[],
    )
