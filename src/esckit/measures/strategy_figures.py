"""All figures of strategy prediction: F1, preference bias with its noise floor, per strategy, by sixth, calibration."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import numpy as np

from esckit.conversation.sixths import SIXTHS
from esckit.measures.intervals import FloatArray, IntArray, Interval, basic_interval, resample_totals
from esckit.measures.predictions import Prediction
from esckit.measures.preference_bias import COMPAT_SWEEPS, Bias, bias_interval, debias, noise_floor, preference_bias
from esckit.measures.results import (
    PerStrategy,
    Reliability,
    ReliabilityBin,
    SixthShares,
    StrategyFigures,
    Subset,
    SubsetStrategy,
)
from esckit.measures.strategy_measures import (
    Scores,
    Unparsed,
    count_outcomes,
    score,
    strategy_by_sixth,
    treat_unparsed,
)
from esckit.strategy import ESCONV, Taxonomy


def strategy_figures(
    rows: Sequence[Prediction], taxonomy: Taxonomy, *, seed: int, resamples: int, unparsed: Unparsed
) -> StrategyFigures:
    """Return the figures of rows that have a gold strategy; docs/measures.md defines them.

    Raises:
        PredictionsError: a gold label is outside the taxonomy, or something is unparsed and ``unparsed`` is ``refuse``.
    """
    by_dialogue = count_outcomes(rows, taxonomy)  # (D, K + 1, K)
    all_turns = int(by_dialogue.sum())
    parsed = int(by_dialogue[:, :-1].sum())
    by_dialogue = treat_unparsed(by_dialogue, unparsed)
    counts: IntArray = by_dialogue.sum(0)
    resampled = resample_totals(by_dialogue, resamples, seed)  # (R, K + 1, K)
    scores = score(counts)
    replicates = score(resampled)
    bias = preference_bias(counts)
    return StrategyFigures(
        n=all_turns,
        q=float(scores.q),
        q_interval=_interval(scores.q, replicates.q),
        q_w=float(scores.q_w),
        q_w_interval=_interval(scores.q_w, replicates.q_w),
        accuracy=float(scores.accuracy),
        accuracy_interval=_interval(scores.accuracy, replicates.accuracy),
        parse_rate=parsed / all_turns,
        **_bias_figures(counts, bias, resampled, taxonomy.labels, seed),
        per_strategy=_per_strategy(taxonomy.labels, scores, bias),
        subsets=bias_over_subsets(rows, taxonomy, seed=seed, unparsed=unparsed),
        stages=_sixths(rows, taxonomy),
        calibration=reliability(rows, taxonomy),
    )


def _bias_figures(
    counts: IntArray, bias: Bias, resampled: FloatArray, labels: tuple[str, ...], seed: int
) -> dict[str, Any]:
    """B and what belongs to it; None throughout where nothing was parsed, for then there is no planner to judge."""
    gold, predicted = counts.sum(0), counts[:-1].sum(1)
    n = int(predicted.sum())
    b, floor = float(bias.b), noise_floor(counts, seed=seed)
    figures = {
        "b": b,
        "b_interval": bias_interval(bias, preference_bias(resampled)),
        "b_floor": floor,
        "b_debiased": debias(b, floor),
        "b_compat": float(preference_bias(counts, sweeps=COMPAT_SWEEPS).b),
    }
    absent = gold == 0
    evidence = bias.wrong_somewhere | bias.never_wrongly_chosen
    kinds = {
        "b_never_wrongly_chosen": bias.never_wrongly_chosen,
        "b_never_predicted": bias.never_wrongly_chosen & (predicted == 0),
        "b_no_evidence": ~evidence & ~absent,
        "b_without_gold": absent,
    }
    return {
        **(figures if n else dict.fromkeys(figures)),
        "b_n": n,
        "b_marks": [mark for mark in ("saturated", "regularised", "unconverged") if getattr(bias, mark)],
        **{kind: [label for label, here in zip(labels, mask, strict=True) if here] for kind, mask in kinds.items()},
        "b_predictions_without_gold": int(predicted[absent].sum()),
    }


def _per_strategy(labels: tuple[str, ...], scores: Scores, bias: Bias) -> list[PerStrategy]:
    return [
        PerStrategy(
            strategy=label,
            gold=int(scores.gold[i]),
            predicted=int(scores.predicted[i]),
            precision=float(scores.precision[i]),
            recall=float(scores.recall[i]),
            f1=float(scores.f1[i]),
            p=None if np.isnan(bias.p[i]) else float(bias.p[i]),
        )
        for i, label in enumerate(labels)
    ]


def _sixths(rows: Sequence[Prediction], taxonomy: Taxonomy) -> list[SixthShares] | None:
    """Shares of gold and predicted strategies in each sixth, over rows with a position; None where none has one."""
    placed = [row for row in rows if row.position]
    if not placed:
        return None
    positions = [(row.position[0], row.position[1]) for row in placed if row.position]
    gold = strategy_by_sixth([row.gold_strategy for row in placed], positions, taxonomy)
    predicted = strategy_by_sixth([row.predicted_strategy for row in placed], positions, taxonomy)

    def named(shares: FloatArray) -> dict[str, float]:
        return {label: float(share) for label, share in zip(taxonomy.labels, shares, strict=True)}

    return [
        SixthShares(stage=round(i / (SIXTHS - 1), 1), gold=named(gold[i]), predicted=named(predicted[i]))
        for i in range(SIXTHS)
    ]


def _interval(estimate: FloatArray, replicates: FloatArray) -> Interval:
    return basic_interval(float(estimate), replicates, high=1)


SUBSETS: Final = 4
_FEWEST: Final = 50  # turns of a subset; below, p is noise


def bias_over_subsets(
    rows: Sequence[Prediction], taxonomy: Taxonomy, *, seed: int, unparsed: Unparsed = "wrong"
) -> list[Subset] | None:
    """Divide turns at random into four subsets of even size, and fit the preferences p in each.

    Ours are disjoint, so that they are four samples; how the paper's overlap is not said. The division does not depend
    on the order of the rows, each of which has a gold strategy.

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
