"""Preference bias over random subsets of turns: whether a bias is the planner's or the sample's.

DecoupledESC, table 1, draws four subsets of its test turns and shows that the same strategies are preferred in each.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from esckit.measures.predictions import Prediction
from esckit.measures.preference_bias import preference_bias
from esckit.measures.results import Subset, SubsetStrategy
from esckit.measures.strategy_measures import Unparsed, count_outcomes, treat_unparsed
from esckit.strategy import Taxonomy

__all__ = ["SUBSETS", "bias_over_subsets"]

SUBSETS: Final = 4
_FEWEST: Final = 50  # turns of a subset; below, p is noise


def bias_over_subsets(
    rows: Sequence[Prediction], taxonomy: Taxonomy, *, seed: int, unparsed: Unparsed = "wrong"
) -> list[Subset] | None:
    """Divide turns at random into four subsets of even size, and fit the preferences p in each.

    Ours are disjoint, so that they are four samples; how the paper's overlap is not said.

    Args:
        rows: turns with a gold strategy.
        taxonomy: the labels.
        seed: of the division, which does not depend on the order of the rows.
        unparsed: what becomes of predicted strategies that name no label.

    Returns:
        The subsets, with B as of `preference_bias`; None where one would have fewer than 50 turns.

    Raises:
        PredictionsError: a gold label is outside the taxonomy, or something is unparsed and ``unparsed`` is ``refuse``.
    """
    if len(rows) < _FEWEST * SUBSETS:
        return None
    ordered = sorted(rows, key=lambda row: repr((row.conversation_id, row.turn_id)))
    shuffled = np.random.default_rng(seed).permutation(len(ordered))
    return [
        _subset([ordered[place] for place in part], taxonomy, unparsed) for part in np.array_split(shuffled, SUBSETS)
    ]


def _subset(rows: Sequence[Prediction], taxonomy: Taxonomy, unparsed: Unparsed) -> Subset:
    counts = treat_unparsed(count_outcomes(rows, taxonomy), unparsed).sum(0)  # (K + 1, K)
    bias, gold, predicted = preference_bias(counts), counts.sum(0), counts[:-1].sum(1)
    figures = zip(taxonomy.labels, gold, predicted, bias.p, strict=True)
    per_strategy = [
        SubsetStrategy(strategy=label, gold=int(own), predicted=int(chosen), p=None if np.isnan(p) else float(p))
        for label, own, chosen, p in figures
    ]
    return Subset(n=int(counts.sum()), b=float(bias.b), per_strategy=per_strategy)
