"""A planner's predictions for dialogues that its networks have not seen: calibration is fitted to them, and judged."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from esckit.measures.preference_bias import noise_floor, preference_bias
from esckit.measures.strategy_measures import score
from esckit.planning.calibration import Calibration, fit_calibration
from esckit.planning.planner_folder import Mode

__all__ = ["MODES", "Scores", "Unseen", "fit_modes", "unseen_figures"]

MODES: Final[tuple[Mode, ...]] = ("shown", "hidden")
Scores = NDArray[np.float64]


class Unseen(NamedTuple):
    """Predictions for N turns by networks that have not seen their dialogues."""

    scores: dict[Mode, Scores]  # (N, K) log-probabilities
    gold: NDArray[np.intp]  # (N,)
    follows: NDArray[np.bool_]  # (N,) a supporter turn stands before: only there past strategies can be hidden
    fold: NDArray[np.intp]  # (N,)


def fit_modes(unseen: Unseen) -> dict[Mode, Calibration]:
    """Fit a calibration for each mode.

    A turn that opens the supporter's part is the same in both modes. Its calibration is that of ``shown``; ``hidden``
    makes up, on all other turns, for what is said too often there.
    """
    k = unseen.scores["shown"].shape[1]
    shown = fit_calibration(unseen.scores["shown"], unseen.gold)
    opening = shown.apply(unseen.scores["shown"][~unseen.follows]).argmax(1)
    wanted = np.bincount(unseen.gold, minlength=k) - np.bincount(opening, minlength=k)
    later = unseen.follows
    hidden = fit_calibration(unseen.scores["hidden"][later], unseen.gold[later], np.maximum(wanted, 0.0))
    return {"shown": shown, "hidden": hidden}


def _apply_modes(calibration: Mapping[Mode, Calibration], scores: Scores, hidden: NDArray[np.bool_]) -> Scores:
    """Calibrate (N, K) log-probabilities, each turn by its own mode."""
    return np.where(hidden[:, None], calibration["hidden"].apply(scores), calibration["shown"].apply(scores))


def unseen_figures(unseen: Unseen, *, cross_fitted: bool) -> dict[str, Any]:
    """Figures of the predictions for unseen dialogues, by mode, plain and (each fold by the others' fit) calibrated."""
    found: dict[str, Any] = {}
    for mode in MODES:
        scores, hidden = unseen.scores[mode], unseen.follows & (mode == "hidden")
        found[mode] = {"plain": _measure(scores, unseen.gold)}
        if cross_fitted:
            calibrated = np.empty_like(scores)
            for fold in np.unique(unseen.fold):
                here = unseen.fold == fold
                calibration = fit_modes(_part(unseen, ~here))
                calibrated[here] = _apply_modes(calibration, scores[here], hidden[here])
            found[mode]["calibrated"] = _measure(calibrated, unseen.gold)
    return found


def _part(unseen: Unseen, here: NDArray[np.bool_]) -> Unseen:
    scores = {mode: each[here] for mode, each in unseen.scores.items()}
    return Unseen(scores, unseen.gold[here], unseen.follows[here], unseen.fold[here])


def _measure(scores: Scores, gold: NDArray[np.intp]) -> dict[str, float]:
    k = scores.shape[1]
    counts = np.zeros((k + 1, k), dtype=np.int64)
    np.add.at(counts, (scores.argmax(1), gold), 1)
    figures = score(counts)
    return {
        "n": len(gold),
        "q": float(figures.q),
        "q_w": float(figures.q_w),
        "accuracy": float(figures.accuracy),
        "b": float(preference_bias(counts).b),
        "b_floor": noise_floor(counts, simulations=200),
        "nll": -float(scores[np.arange(len(gold)), gold].mean()),
    }
