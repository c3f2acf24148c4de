"""Strategy prediction: one confusion matrix a dialogue, and macro-F1, weighted-F1 and accuracy from their sum.

Counts have shape (..., K + 1, K): rows are predictions, columns are gold, in the taxonomy's label order; the last row
holds unparsed predictions. Leading axes are dialogues, resamples, or nothing.
"""

from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

from esckit.conversation.sixths import SIXTHS, sixth_of
from esckit.errors import PredictionsError
from esckit.measures.intervals import FloatArray, IntArray
from esckit.measures.predictions import Prediction
from esckit.strategy import ESCONV, Taxonomy

Unparsed = Literal["wrong", "drop", "refuse"]
"""What becomes of a prediction that names no label: an error of the model (ours), out of every figure (DecoupledESC's
code), or a refusal to measure (Kang et al. 2024)."""


class Scores(NamedTuple):
    """Figures of a confusion matrix, all fractions 0..1 but for the two counts; undefined ones are 0."""

    gold: FloatArray  # (..., K) turns with this gold label
    predicted: FloatArray  # (..., K) turns with this prediction
    precision: FloatArray  # (..., K)
    recall: FloatArray  # (..., K)
    f1: FloatArray  # (..., K)
    q: FloatArray  # (...) macro-F1 over all K labels
    q_w: FloatArray  # (...) F1 weighted by gold counts
    accuracy: FloatArray  # (...)


def count_outcomes(predictions: Sequence[Prediction], taxonomy: Taxonomy = ESCONV) -> IntArray:
    """Count (prediction, gold) pairs in each dialogue.

    Returns:
        (D, K + 1, K) counts; dialogues in the order of their ids, so that the order of rows changes nothing.

    Raises:
        PredictionsError: a gold label is outside the taxonomy.
    """
    match = cache(taxonomy.match)
    index: dict[str | None, int] = {label: i for i, label in enumerate(taxonomy.labels)}
    index[None] = len(taxonomy.labels)
    dialogues = sorted({row.conversation_id for row in predictions}, key=repr)
    position = {dialogue: i for i, dialogue in enumerate(dialogues)}
    counts = np.zeros((len(dialogues), len(taxonomy.labels) + 1, len(taxonomy.labels)), dtype=np.int64)
    for row in predictions:
        gold = match(row.gold_strategy)
        if gold is None:
            raise PredictionsError(
                f"conversation {row.conversation_id!r}, turn {row.turn_id!r}: gold_strategy {row.gold_strategy!r} is "
                f"no label of the taxonomy {taxonomy.name}: use one of {', '.join(taxonomy.labels)}."
            )
        counts[position[row.conversation_id], index[match(row.predicted_strategy)], index[gold]] += 1
    return counts


def treat_unparsed(counts: IntArray, treatment: Unparsed) -> IntArray:
    """Apply a treatment of unparsed predictions to counts of shape (..., K + 1, K).

    Raises:
        PredictionsError: the treatment is ``refuse`` and something is unparsed.
    """
    unparsed = int(counts[..., -1, :].sum())
    match treatment:
        case "wrong":
            return counts
        case "drop":
            kept = counts.copy()
            kept[..., -1, :] = 0
            return kept
        case "refuse":
            if unparsed:
                raise PredictionsError(
                    f"{unparsed} of {int(counts.sum())} predicted strategies are unparsed: mend them, or count them as "
                    "wrong (unparsed: wrong) or leave them out (unparsed: drop)."
                )
            return counts


def score(counts: IntArray | FloatArray) -> Scores:
    """Return F1 and accuracy of counts of shape (..., K + 1, K).

    Macro-F1 (Q) averages over all K labels, also over those that never occur; weighted-F1 (Q_w) weighs by gold counts.
    Both equal scikit-learn's with ``labels=`` all K and ``zero_division=0``. Source: DecoupledESC, section 5.1.
    """
    gold = counts.sum(-2).astype(np.float64)
    predicted = counts[..., :-1, :].sum(-1).astype(np.float64)
    right = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    turns = gold.sum(-1)
    f1 = _ratio(2 * right, gold + predicted)
    return Scores(
        gold=gold,
        predicted=predicted,
        precision=_ratio(right, predicted),
        recall=_ratio(right, gold),
        f1=f1,
        q=f1.mean(-1),
        q_w=_ratio((f1 * gold).sum(-1), turns),
        accuracy=_ratio(right.sum(-1), turns),
    )


def strategy_by_sixth(
    strategies: Sequence[str | None], positions: Sequence[tuple[int, int]], taxonomy: Taxonomy = ESCONV
) -> FloatArray:
    """Return how often each strategy is used in each sixth of a dialogue.

    Args:
        strategies: gold or predicted labels; what names no label is left out.
        positions: for each, (k, N): the utterance is the k-th, from 1, of a dialogue's N.
        taxonomy: whose labels.

    Returns:
        (6, K) shares, each row adding up to 1, or all 0 where a sixth has no turn.
    """
    counts = np.zeros((SIXTHS, len(taxonomy.labels)))
    for strategy, (k, n) in zip(strategies, positions, strict=True):
        label = taxonomy.match(strategy)
        if label is not None:
            counts[sixth_of(k, n), taxonomy.labels.index(label)] += 1
    return _ratio(counts, counts.sum(1, keepdims=True))


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divide, with 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
