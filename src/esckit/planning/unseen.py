"""A planner's predictions for dialogues that its members have not seen: calibration is fitted to them, and judged."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from esckit.measures.intervals import IntArray
from esckit.measures.preference_bias import squared_bias
from esckit.measures.strategy_measures import score
from esckit.planning.calibration import Calibration, LogProbabilities, fit_calibration
from esckit.planning.planner_folder import Mode

__all__ = ["Unseen", "apply_modes", "fit_modes", "unseen_figures"]

_PARTS: Final = 5
_FEWEST: Final = 100  # dialogues for which B is measured: of fewer, a part's says nothing
_T: Final = 2.776  # Student's t of 4 degrees of freedom, .975


class Unseen(NamedTuple):
    """Predictions for N turns by members that have not seen their dialogues."""

    log_probabilities: dict[Mode, LogProbabilities]  # (N, K)
    gold: NDArray[np.intp]  # (N,)
    follows: NDArray[np.bool_]  # (N,) a supporter turn stands before: only there past strategies can be hidden
    dialogue: NDArray[np.intp]  # (N,) its number


def fit_modes(unseen: Unseen) -> dict[Mode, Calibration]:
    """Fit a calibration for each mode.

    A turn that opens the supporter's part is the same in both modes. Its calibration is that of ``shown``; ``hidden``
    makes up, on all other turns, for what is said too often there.
    """
    given, gold, later = unseen.log_probabilities, unseen.gold, unseen.follows
    k = given["shown"].shape[1]
    shown = fit_calibration(given["shown"], gold)
    opening = shown.apply(given["shown"][~later]).argmax(1)
    wanted = np.bincount(gold, minlength=k) - np.bincount(opening, minlength=k)
    return {"shown": shown, "hidden": fit_calibration(given["hidden"][later], gold[later], np.maximum(wanted, 0.0))}


def apply_modes(
    calibration: Mapping[Mode, Calibration], plain: LogProbabilities, hidden: NDArray[np.bool_]
) -> LogProbabilities:
    """Calibrate (N, K) log-probabilities, each turn by its own mode."""
    return np.where(hidden[:, None], calibration["hidden"].apply(plain), calibration["shown"].apply(plain))


def unseen_figures(unseen: Unseen, *, cross_fitted: bool) -> dict[str, Any]:
    """Figures of the predictions for unseen dialogues, by mode, plain and calibrated by a fit to other dialogues.

    For that the dialogues are divided at random; each part is calibrated by the others. The parts cut across the
    members' folds, as the planner's average does, else each fold's members would bring favourites of their own.

    B is of each part alone. Of all parts together it would be near 0 whatever the planner does: what the others say too
    often is what this one's calibration takes away. ``b`` is the root of the parts' mean `squared_bias`, about what new
    dialogues will show beyond noise, and ``b_interval`` a 95% t interval over the parts; None under 100 dialogues.
    """
    names, place = np.unique(unseen.dialogue, return_inverse=True)
    part = (np.random.default_rng(0).permutation(len(names)) % _PARTS)[place]  # (N,)
    parts = [part == number for number in np.unique(part)]
    fits = [fit_modes(_part(unseen, ~here)) for here in parts] if cross_fitted else []
    found: dict[str, Any] = {}
    for mode, plain in unseen.log_probabilities.items():
        found[mode] = {"plain": _measure(plain, unseen, parts)}
        if cross_fitted:
            calibrated = np.empty_like(plain)
            for here, fitted in zip(parts, fits, strict=True):
                calibrated[here] = apply_modes(fitted, plain[here], unseen.follows[here] & (mode == "hidden"))
            found[mode]["calibrated"] = _measure(calibrated, unseen, parts)
    return found


def _part(unseen: Unseen, here: NDArray[np.bool_]) -> Unseen:
    given = {mode: each[here] for mode, each in unseen.log_probabilities.items()}
    return Unseen(given, unseen.gold[here], unseen.follows[here], unseen.dialogue[here])


def _measure(given: LogProbabilities, unseen: Unseen, parts: list[NDArray[np.bool_]]) -> dict[str, Any]:
    gold = unseen.gold
    said = given.argmax(1)
    counts = [_count(said[here], gold[here], unseen.dialogue[here], given.shape[1]) for here in parts]
    figures = score(sum(each.sum(0) for each in counts))
    bias: dict[str, Any] = {"b": None, "b_interval": None}
    if sum(map(len, counts)) >= _FEWEST:
        squares = [squared_bias(each) for each in counts]
        error = _T * float(np.std(squares, ddof=1)) / len(parts) ** 0.5
        low, b, high = (max(0.0, float(np.mean(squares)) + sign * error) ** 0.5 for sign in (-1, 0, 1))
        bias = {"b": b, "b_interval": [low, high]}
    return {
        "n": len(gold),
        "q": float(figures.q),
        "q_w": float(figures.q_w),
        "accuracy": float(figures.accuracy),
        **bias,
        "nll": -float(given[np.arange(len(gold)), gold].mean()),
    }


def _count(said: NDArray[np.intp], gold: NDArray[np.intp], dialogue: NDArray[np.intp], k: int) -> IntArray:
    """(D, K + 1, K) counts as of `strategy_measures.count_outcomes`."""
    names, place = np.unique(dialogue, return_inverse=True)
    counts = np.zeros((len(names), k + 1, k), dtype=np.int64)
    np.add.at(counts, (place, said, gold), 1)
    return counts
