"""Calibration against preference bias: a temperature and an offset a label, fitted to other dialogues' predictions.

A planner that is right as often as it can be says its favourite strategies too often, which is what B measures. Here
the labels' log-probabilities are shifted until it says each label as often as people do. The trade is stated: accuracy
falls, macro-F1 rises and B falls. Each turn is still decided alone, from its own log-probabilities. It is fitted to
predictions for dialogues that a planner's members have not seen (`Unseen`), and judged by them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from esckit.measures.intervals import IntArray
from esckit.measures.preference_bias import squared_bias
from esckit.measures.strategy_measures import score

Mode = Literal["shown", "hidden"]
"""Whether the history shows past strategies: gold or predicted ones, or none."""

MODES: Final[tuple[Mode, ...]] = get_args(Mode)

LogProbabilities = NDArray[np.float64]
"""(..., K) natural logarithms of K labels' probabilities, which sum to 1."""

_STEPS: Final = 300
_RATE: Final = 0.5
_COARSEST: Final = 20.0  # of 1 / temperature
_PARTS: Final = 5  # of the dialogues, each calibrated by the others
_FEWEST: Final = 100  # dialogues for which B is measured: of fewer, a part's says nothing
_T: Final = 2.776  # Student's t of 4 degrees of freedom, .975


@dataclass(frozen=True)
class Calibration:
    """log p becomes log p / temperature + offset, normalised again.

    Attributes:
        temperature: above 0; 1 leaves probabilities as they are (Guo et al. 2017, section 4.2).
        offsets: one a label, in nats, of mean 0; zeros change no choice.
    """

    temperature: float
    offsets: tuple[float, ...]

    @classmethod
    def none(cls, labels: int) -> "Calibration":
        """The one that changes nothing."""
        return cls(1.0, (0.0,) * labels)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Calibration":
        """Read what `to_json` wrote. Raises KeyError, TypeError or ValueError where it is something else."""
        temperature, offsets = float(value["temperature"]), tuple(map(float, value["offsets"]))
        if not (temperature > 0 and np.isfinite([temperature, *offsets]).all()):
            raise ValueError("a calibration's temperature is above 0, its offsets are finite")
        return cls(temperature, offsets)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"temperature": self.temperature, "offsets": list(self.offsets)}

    def apply(self, log_probabilities: LogProbabilities) -> LogProbabilities:
        """Calibrate log-probabilities (..., K), normalised before and after."""
        return log_normalise(log_probabilities / self.temperature + np.array(self.offsets))


def fit_calibration(
    log_probabilities: LogProbabilities, gold: NDArray[np.intp], wanted: NDArray[np.float64] | None = None
) -> Calibration:
    """Fit a calibration to predictions that were made without having seen their gold labels.

    The temperature minimises the negative log-likelihood; the offsets make the most probable label occur as often as
    it is wanted.

    Args:
        log_probabilities, gold: (N, K), normalised; (N,) label indices.
        wanted: (K,) how often each label should be said; as often as in ``gold`` by default.

    Returns:
        The best found: where many turns are predicted alike, counts can only be met roughly.
    """
    k = log_probabilities.shape[1]
    if not len(gold):
        return Calibration.none(k)
    if wanted is None:
        wanted = np.bincount(gold, minlength=k).astype(np.float64)
    temperature = fit_temperature(log_probabilities, gold)
    offsets = _match_counts(log_probabilities / temperature, wanted)
    return Calibration(temperature, tuple(offsets.tolist()))


def log_normalise(scores: NDArray[np.float64]) -> LogProbabilities:
    """Log-softmax of any scores over the last axis."""
    shifted = scores - scores.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def fit_temperature(log_probabilities: LogProbabilities, gold: NDArray[np.intp]) -> float:
    """Search 1 / temperature, in which the likelihood is concave, by golden section."""
    rows, ratio = np.arange(len(gold)), (5**0.5 - 1) / 2

    def loss(inverse: float) -> float:
        return -float(log_normalise(log_probabilities * inverse)[rows, gold].mean())

    low, high = 1 / _COARSEST, _COARSEST
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return 2 / (low + high)


def _match_counts(scores: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Offsets (K,) under which the counts of the largest score (N, K) come nearest to those wanted (K,)."""
    k = scores.shape[1]
    offsets, best, fewest = np.zeros(k), np.zeros(k), np.inf
    for step in range(_STEPS):
        counts = np.bincount((scores + offsets).argmax(1), minlength=k)
        wrong = float(np.abs(counts - wanted).sum())
        if wrong < fewest:
            best, fewest = offsets, wrong
        offsets = offsets - _RATE / (1 + step / 20) * np.log((counts + 0.5) / (wanted + 0.5))
    return np.asarray(best - best.mean())


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
