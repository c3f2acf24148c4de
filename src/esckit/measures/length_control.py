"""What length has to do with a judge's preference: how often the longer reply wins, and what is left at equal length.

Two replies' lengths enter as z = tanh(l / sd(l)), l the difference in characters and sd its standard deviation over all
turns: the form of the length-controlled AlpacaEval (Dubois, Galambosi, Liang and Hashimoto 2024), without its term for
how hard an instruction is, for which a hundred turns are too few.
"""

from typing import Final

import numpy as np

from esckit.measures.intervals import DRAWS, Draws, FloatArray, IntArray, Interval, basic_interval, resample_totals
from esckit.measures.judging_results import EqualLength, LongerWins

_STEPS: Final = 100
_TOLERANCE: Final = 1e-9
_LONGEST_STEP: Final = 2.0
_RIDGE: Final = 1e-9  # keeps a resample in which all lengths are alike from dividing by 0


def longer_wins(gains: FloatArray, longer: FloatArray, dialogues: IntArray, draws: Draws = DRAWS) -> LongerWins:
    """Return how often the longer of two replies is preferred, of the turns where one is longer and one preferred.

    A judge that this baseline tells well may have looked at length alone; .5 is a judge whom it tells nothing about.

    Args:
        gains: (N,) above 0 where the first reply is preferred, below where the second is.
        longer: (N,) by how many characters the first is longer.
        dialogues: (N,) each turn's dialogue, from 0.
        draws: of the bootstrap over dialogues.
    """
    decided = (gains != 0) & (longer != 0)
    if not decided.any():
        return LongerWins(n=0, share=None, interval=None)
    totals = np.zeros((int(dialogues.max()) + 1, 2))
    wins = (gains * longer)[decided] > 0
    np.add.at(totals, dialogues[decided], np.stack([wins, np.ones(len(wins))], axis=1))
    totals = totals[totals[:, 1] > 0]
    sums = resample_totals(totals, draws.resamples, draws.seed)
    share = float(wins.mean())
    interval = basic_interval(share, sums[:, 0] / sums[:, 1], low=0, high=1)
    return LongerWins(n=len(wins), share=share, interval=interval)


def difference_at_equal_length(
    gains: FloatArray, longer: FloatArray, dialogues: IntArray, draws: Draws = DRAWS
) -> EqualLength | None:
    """Return a difference of scores as it would be at equal length: a in gain = a + b z, by least squares.

    ``gains`` (N,) is the score of the first reply minus that of the second; all else is as in `longer_wins`.

    Returns:
        The estimate, b being its slope; None where the lengths always differ by the same: then nothing tells length
        and system apart.
    """
    z = _scaled(longer)
    if z is None:
        return None
    lines = _lines(gains, z, _weights(dialogues, draws))  # (1 + R, 2)
    interval = basic_interval(float(lines[0, 0]), lines[1:, 0], low=-np.inf)
    return _controlled(float(lines[0, 0]), interval, float(lines[0, 1]), longer)


def win_rate_at_equal_length(
    outcomes: FloatArray, longer: FloatArray, dialogues: IntArray, draws: Draws = DRAWS
) -> EqualLength | None:
    """Return the first system's win rate as it would be at equal length: s(a) in P(win) = s(a + b z), s the logistic.

    Fitted with Jeffreys' prior (Firth 1993), so that a system that always wins has a finite estimate, too.
    ``outcomes`` (N,) are 1 where the first reply wins, .5 for a tie, else 0; all else, and what is returned, is as in
    `difference_at_equal_length`, with ``value`` in 0..1.
    """
    z = _scaled(longer)
    if z is None:
        return None
    fitted = _logistic(outcomes, z, _weights(dialogues, draws))  # (1 + R, 2)
    rates = _sigmoid(fitted[:, 0])
    interval = basic_interval(float(rates[0]), rates[1:], low=0, high=1)
    return _controlled(float(rates[0]), interval, float(fitted[0, 1]), longer)


def _controlled(value: float, interval: Interval, slope: float, longer: FloatArray) -> EqualLength:
    extrapolated = bool((longer > 0).all() or (longer < 0).all())
    return EqualLength(value=value, interval=interval, slope=slope, extrapolated=extrapolated)


def _scaled(longer: FloatArray) -> FloatArray | None:
    """z (N,); 0 where all lengths are equal; None where they differ, and always by the same."""
    spread = longer.std()
    if spread == 0:
        return None if longer.any() else np.zeros_like(longer)
    return np.asarray(np.tanh(longer / spread))


def _weights(dialogues: IntArray, draws: Draws) -> FloatArray:
    """(1 + R, N): one for every turn, then how often each turn's dialogue is drawn."""
    drawn = resample_totals(np.eye(int(dialogues.max()) + 1), draws.resamples, draws.seed)
    return np.vstack([np.ones(len(dialogues)), drawn[:, dialogues]])


def _lines(gains: FloatArray, z: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted least squares for each row of weights (R, N): intercept and slope (R, 2)."""
    features = np.stack([np.ones_like(z), z], axis=1)  # (N, 2)
    squares = np.einsum("rn,nf,ng->rfg", weights, features, features, optimize=True) + _RIDGE * np.eye(2)
    products = (weights * gains) @ features
    return np.asarray(np.linalg.solve(squares, products[:, :, None])[:, :, 0])


def _logistic(outcomes: FloatArray, z: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted logistic regression under Jeffreys' prior for each row of weights (R, N), by Fisher scoring: (R, 2)."""
    varies = bool(z.any())
    features = np.stack([np.ones_like(z), z], axis=1) if varies else np.ones((len(z), 1))  # (N, F)
    found = np.zeros((len(weights), features.shape[1]))
    for _ in range(_STEPS):
        p = _sigmoid(found @ features.T)  # (R, N)
        information = np.einsum("rn,nf,ng->rfg", weights * p * (1 - p), features, features, optimize=True)
        information += _RIDGE * np.eye(features.shape[1])
        spread = np.einsum("nf,rfg,ng->rn", features, np.linalg.inv(information), features, optimize=True)
        leverage = weights * p * (1 - p) * spread
        score = (weights * (outcomes - p) + leverage * (0.5 - p)) @ features
        step = np.linalg.solve(information, score[:, :, None])[:, :, 0]
        found += step * np.minimum(1, _LONGEST_STEP / np.maximum(np.abs(step).max(1, keepdims=True), 1e-300))
        if np.abs(step).max() < _TOLERANCE:
            break
    return found if varies else np.column_stack([found, np.zeros(len(found))])


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))
