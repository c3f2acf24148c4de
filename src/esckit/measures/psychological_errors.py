"""Psychological errors: how often replies have which, and how far an annotator agrees with labels.

Shares are DecoupledESC's, figures 2 and 7.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np

from esckit.conversation import PSYCHOLOGICAL_ERRORS, Conversation
from esckit.errors import EsckitError
from esckit.measures.agreement import cohen_kappa
from esckit.measures.intervals import DRAWS, Draws, FloatArray, IntArray, Interval, basic_interval, resample_totals
from esckit.measures.results import Result

_RUBRIC: Final = "psychological-errors/"
OUTCOMES: Final = ("none", *PSYCHOLOGICAL_ERRORS)
_COLUMNS: Final = (*OUTCOMES, "not done")  # verdicts that are unparsed or refused: in no share


@dataclass(frozen=True, kw_only=True)
class OutcomeShare(Result):
    """How many replies have an outcome, an error type or ``none``: their share of n, 0..1, with its 95% interval."""

    count: int
    share: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class ErrorShares(Result):
    """What one judge found in one source's replies."""

    source: str
    judge: str
    n: int  # replies with a done verdict
    dialogues: int  # of these
    not_done: int  # verdicts in no share
    shares: dict[str, OutcomeShare]  # every outcome; nothing where n is 0


def error_shares(conversations: Iterable[Conversation], draws: Draws = DRAWS) -> list[ErrorShares]:
    """Count the verdicts on psychological errors (``esckit annotate``) by source of the reply and judge.

    Raises:
        EsckitError: there is no verdict on psychological errors.
    """
    counts: dict[tuple[str, str], dict[str, list[int]]] = {}
    for conversation in conversations:
        said = [(turn.source, verdict) for turn in conversation.turns for verdict in turn.verdicts]
        for source, verdict in said:
            if verdict.rubric.startswith(_RUBRIC):
                own = counts.setdefault((source, verdict.judge), {})
                row = own.setdefault(conversation.id, [0] * len(_COLUMNS))
                row[_COLUMNS.index((verdict.error or "none") if verdict.state == "done" else "not done")] += 1
    if not counts:
        raise EsckitError("there is no verdict on psychological errors in these trees: annotate them first.")
    return [_shares(source, judge, np.array(list(rows.values())), draws) for (source, judge), rows in counts.items()]


def _shares(source: str, judge: str, by_dialogue: IntArray, draws: Draws) -> ErrorShares:
    """From counts (D, outcomes and not done)."""
    done = by_dialogue[:, :-1]
    counts = done.sum(0)
    n = int(counts.sum())
    shares = {}
    if n:
        replicates = _fractions(resample_totals(done, draws.resamples, draws.seed))  # (R, outcomes)
        for outcome, count, drawn in zip(OUTCOMES, counts, replicates.T, strict=True):
            share = int(count) / n
            interval = basic_interval(share, drawn, high=1)
            shares[outcome] = OutcomeShare(count=int(count), share=share, interval=interval)
    return ErrorShares(
        source=source,
        judge=judge,
        n=n,
        dialogues=int((done.sum(1) > 0).sum()),
        not_done=int(by_dialogue[:, -1].sum()),
        shares=shares,
    )


def _fractions(totals: FloatArray) -> FloatArray:
    sums = totals.sum(1, keepdims=True)
    fractions: FloatArray = np.divide(totals, sums, out=np.zeros_like(totals, dtype=np.float64), where=sums > 0)
    return fractions


def error_agreement(
    labels: Sequence[str | None], found: Sequence[str | None], groups: Sequence[Hashable], draws: Draws = DRAWS
) -> dict[str, Any]:
    """Compare what an annotator found with labels, JSON-ready; docs/annotation.md defines every figure.

    Args:
        labels: of each reply its error type, None for a clean one.
        found: what the annotator says, likewise.
        groups: each reply's dialogue; intervals resample dialogues.
        draws: of weights.

    Raises:
        EsckitError: there is no reply.
    """
    if not labels:
        raise EsckitError("agreement needs labelled replies: there is none.")
    one, other = [label or "none" for label in labels], [label or "none" for label in found]
    counts = _confusion(one, other)
    yes, also = ([label != "none" for label in side] for side in (one, other))
    kappa, any_error = (cohen_kappa(*sides, clusters=groups, draws=draws) for sides in ((one, other), (yes, also)))
    types = {name: _type_figures(counts, place) for place, name in enumerate(OUTCOMES)}
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
            name: dict(zip(OUTCOMES, row.tolist(), strict=True)) for name, row in zip(OUTCOMES, counts, strict=True)
        },
    }


def label_noise(keys: Sequence[Hashable], labels: Sequence[str | None]) -> dict[str, Any] | None:
    """How labels agree with themselves: over pairs of replies that are the same in everything that is known of them.

    Returns:
        The pairs with equal ``keys`` (what the annotator was shown, as far as it is known), the share with equal
        labels, and the share expected by chance from the labels of these replies; None where no reply occurs twice.
    """
    same: dict[Hashable, list[str]] = defaultdict(list)
    for key, label in zip(keys, labels, strict=True):
        same[key].append(label or "none")
    pairs = [pair for group in same.values() for pair in combinations(group, 2)]
    if not pairs:
        return None
    sides = [label for pair in pairs for label in pair]
    shares = np.array([sides.count(name) for name in OUTCOMES]) / len(sides)
    return {
        "pairs": len(pairs),
        "replies": sum(len(group) for group in same.values() if len(group) > 1),
        "agree": sum(one == other for one, other in pairs) / len(pairs),
        "by_chance": float((shares**2).sum()),
    }


def _confusion(labels: Sequence[str], found: Sequence[str]) -> IntArray:
    """(K, K) counts, a row a label."""
    place = {name: i for i, name in enumerate(OUTCOMES)}
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
