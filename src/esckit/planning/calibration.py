"""Calibration against preference bias: a temperature and an offset a label, fitted to other dialogues' predictions.

A planner that is right as often as it can be says its favourite strategies too often, which is what B measures. Here
the labels' log-probabilities are shifted until it says each label as often as people do. The trade is stated: accuracy
falls, macro-F1 rises and B falls. Each turn is still decided alone, from its own log-probabilities.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Calibration", "LogProbabilities", "fit_calibration", "log_normalise"]

LogProbabilities = NDArray[np.float64]
"""(..., K) natural logarithms of K labels' probabilities, which sum to 1."""

_STEPS: Final = 300
_RATE: Final = 0.5
_COARSEST: Final = 20.0  # of 1 / temperature


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
        log_probabilities: (N, K), normalised.
        gold: (N,) label indices.
        wanted: (K,) how often each label should be said; as often as in ``gold`` by default.

    Returns:
        The best found: where many turns are predicted alike, counts can only be met roughly.
    """
    k = log_probabilities.shape[1]
    if not len(gold):
        return Calibration.none(k)
    if wanted is None:
        wanted = np.bincount(gold, minlength=k).astype(np.float64)
    temperature = _fit_temperature(log_probabilities, gold)
    offsets = _match_counts(log_probabilities / temperature, wanted)
    return Calibration(temperature, tuple(offsets.tolist()))


def log_normalise(scores: NDArray[np.float64]) -> LogProbabilities:
    """Log-softmax of any scores over the last axis."""
    shifted = scores - scores.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _fit_temperature(log_probabilities: LogProbabilities, gold: NDArray[np.intp]) -> float:
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
