"""Everything about a predictions file, as one JSON-ready dict."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from esckit.errors import PredictionsError
from esckit.measures.calibration import calibration
from esckit.measures.intervals import FloatArray, IntArray, basic_interval, resample_totals
from esckit.measures.predictions import Prediction
from esckit.measures.preference_bias import COMPAT_SWEEPS, Bias, debias, noise_floor, preference_bias
from esckit.measures.strategy import Scores, Unparsed, count_outcomes, score, treat_unparsed
from esckit.measures.text import TokenizerName, text_figures
from esckit.strategy import ESCONV, Taxonomy

__all__ = ["FORMAT", "evaluate"]

FORMAT: Final = 1
_HIGH_FLOOR: Final = 0.15  # about what 600 turns give; DecoupledESC's differences in B are smaller


def evaluate(
    predictions: Sequence[Prediction],
    taxonomy: Taxonomy = ESCONV,
    *,
    seed: int = 0,
    resamples: int = 1000,
    unparsed: Unparsed = "wrong",
    tokenizer: TokenizerName | None = None,
) -> dict[str, Any]:
    """Measure predictions: strategy figures, text figures, and both again for each ``group``.

    Args:
        predictions: one supporter turn each.
        taxonomy: the labels.
        seed: of the bootstrap and of the noise floor.
        resamples: bootstrap resamples of dialogues.
        unparsed: what becomes of a predicted strategy that names no label.
        tokenizer: for the text figures; None chooses by the language of the references.

    Returns:
        JSON-ready figures (docs/measures.md). ``strategy`` is None where no row has a predicted strategy, ``text``
        where none has a predicted text, ``groups`` where none has a group.

    Raises:
        PredictionsError: there are no predictions, a gold label is outside the taxonomy, or something is unparsed and
            ``unparsed`` is ``refuse``.
    """
    if not predictions:
        raise PredictionsError("there are no predictions to evaluate: give at least one.")
    settings: dict[str, Any] = {"seed": seed, "resamples": resamples, "unparsed": unparsed}

    def figures(rows: Sequence[Prediction]) -> dict[str, Any]:
        return _figures(rows, taxonomy, tokenizer, **settings)

    names = sorted({row.group for row in predictions if row.group is not None})
    groups = {name: figures([row for row in predictions if row.group == name]) for name in names}
    return {"format": FORMAT, "taxonomy": taxonomy.name, **settings, **figures(predictions), "groups": groups or None}


def _figures(
    rows: Sequence[Prediction],
    taxonomy: Taxonomy,
    tokenizer: TokenizerName | None,
    *,
    seed: int,
    resamples: int,
    unparsed: Unparsed,
) -> dict[str, Any]:
    past = [row.extra.get("past_strategies") for row in rows]
    mixed = any(kind != past[0] for kind in past)
    strategy = None
    if any(row.predicted_strategy is not None for row in rows):
        strategy = _strategy_figures(rows, taxonomy, seed, resamples, unparsed)
    figures = {
        "n": len(rows),
        "dialogues": len({row.conversation_id for row in rows}),
        "past_strategies": None if mixed else past[0],
        "strategy": strategy,
        "text": _text_figures(rows, tokenizer),
    }
    return figures | {"warnings": _warnings(figures, mixed)}


def _strategy_figures(
    rows: Sequence[Prediction], taxonomy: Taxonomy, seed: int, resamples: int, unparsed: Unparsed
) -> dict[str, Any]:
    by_dialogue = count_outcomes(rows, taxonomy)  # (D, K + 1, K)
    all_turns = int(by_dialogue.sum())
    parsed = int(by_dialogue[:, :-1].sum())
    by_dialogue = treat_unparsed(by_dialogue, unparsed)
    counts: IntArray = by_dialogue.sum(0)
    resampled = resample_totals(by_dialogue, resamples, seed)  # (R, K + 1, K)
    scores = score(counts)
    replicates = score(resampled)
    bias = preference_bias(counts)
    measured = calibration(rows, taxonomy)
    return {
        "q": float(scores.q),
        "q_interval": _interval(scores.q, replicates.q, high=1),
        "q_w": float(scores.q_w),
        "q_w_interval": _interval(scores.q_w, replicates.q_w, high=1),
        "accuracy": float(scores.accuracy),
        "accuracy_interval": _interval(scores.accuracy, replicates.accuracy, high=1),
        "parse_rate": parsed / all_turns,
        **_bias_figures(counts, bias, resampled, taxonomy.labels, seed),
        "per_strategy": _per_strategy(taxonomy.labels, scores, bias),
        "calibration": measured and measured._asdict(),
    }


def _bias_figures(
    counts: IntArray, bias: Bias, resampled: FloatArray, labels: tuple[str, ...], seed: int
) -> dict[str, Any]:
    """B and what belongs to it; None throughout where nothing was parsed, for then there is no planner to judge."""
    gold, predicted = counts.sum(0), counts[:-1].sum(1)
    n = int(predicted.sum())
    b, floor = float(bias.b), noise_floor(counts, seed=seed)
    replicates = preference_bias(resampled).b
    figures = {
        "b": b,
        "b_interval": _interval(bias.b, replicates, high=np.sqrt(len(labels) - 1)),
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


def _per_strategy(labels: tuple[str, ...], scores: Scores, bias: Bias) -> list[dict[str, Any]]:
    return [
        {
            "strategy": label,
            "gold": int(scores.gold[i]),
            "predicted": int(scores.predicted[i]),
            "precision": float(scores.precision[i]),
            "recall": float(scores.recall[i]),
            "f1": float(scores.f1[i]),
            "p": None if np.isnan(bias.p[i]) else float(bias.p[i]),
        }
        for i, label in enumerate(labels)
    ]


def _text_figures(rows: Sequence[Prediction], tokenizer: TokenizerName | None) -> dict[str, Any] | None:
    if all(row.predicted_text is None for row in rows):
        return None
    figures = text_figures([row.gold_text for row in rows], [row.predicted_text or "" for row in rows], tokenizer)
    finish = Counter(row.finish for row in rows)
    return figures | {
        "null_texts": sum(row.predicted_text is None for row in rows),
        "finish": {"stop": finish["stop"], "length": finish["length"]},
    }


def _interval(estimate: FloatArray, replicates: FloatArray, *, high: float) -> list[float]:
    return list(basic_interval(float(estimate), replicates, high=high))


def _warnings(figures: dict[str, Any], mixed: bool) -> list[str]:
    """Say in sentences what a reader of the figures must know."""
    strategy, text, warnings = figures["strategy"], figures["text"], []
    if mixed:
        warnings.append("The rows differ in past_strategies: evaluate each kind alone, their figures do not compare.")
    if strategy and strategy["parse_rate"] < 1:
        unparsed = figures["n"] - round(strategy["parse_rate"] * figures["n"])
        warnings.append(f"{unparsed} of {figures['n']} predicted strategies are unparsed.")
    if strategy and strategy["b"] is not None and strategy["b_floor"] > _HIGH_FLOOR:
        warnings.append(
            f"The noise floor of B is {strategy['b_floor']:.2f}: {strategy['b_n']} turns are too few to tell planners "
            "apart by B."
        )
    if text and text["null_texts"]:
        warnings.append(f"{text['null_texts']} of {figures['n']} predicted texts are null and score as empty text.")
    if text and text["finish"]["length"]:
        warnings.append(f"{text['finish']['length']} of {figures['n']} responses were cut at the length limit.")
    return warnings
