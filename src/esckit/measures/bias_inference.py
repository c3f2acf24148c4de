"""How sure B is: a confidence interval by test inversion, and the derivative of B for permutation tests."""

from typing import Final

import numpy as np

from esckit.measures.intervals import LEVEL, FloatArray, IntArray, Interval
from esckit.measures.preference_bias import Bias, contests_of, preference_bias

__all__ = ["bias_derivative", "bias_interval", "squared_bias"]

_STEPS: Final = 1000  # candidates for the true B: at K = 8, .0026 apart
_TINY: Final = 1e-12


def bias_interval(bias: Bias, replicates: Bias) -> Interval:
    """Return the values of the true B that the measured one does not contradict, at 95%.

    B is a length (of p - 1), so noise pushes it up, the more the smaller it is; an interval that mirrors or shifts
    resampled values cannot know by how much at a true B other than the measured one. So each candidate true B is
    tested: with the measured direction of the preferences, shrunk or stretched to that B, plus the noise that the
    bootstrap shows, is the measured B among the middle 95%? Both ends may lie below the measured B.
    Source: bootstrap test inversion, Davison and Hinkley 1997, section 5.5; docs/measures.md has the coverage.

    Args:
        bias: of all dialogues (no leading axis).
        replicates: of R resamples of dialogues.
    """
    here = ~np.isnan(bias.p)
    b, members = float(bias.b), int(here.sum())
    highest = float(np.sqrt(bias.p.shape[-1] - 1))
    noise = np.nan_to_num(replicates.p[:, here] - bias.p[here])  # a resample may hold no evidence about a strategy
    along = noise @ (bias.p[here] - 1) / max(members * b, _TINY)  # (R,)
    across = (noise**2).sum(1) / max(members, 1)  # (R,)
    candidates = np.sort(np.append(np.linspace(0, highest, _STEPS + 1), b))[:, None]  # (S, 1)
    squares = candidates**2 + 2 * candidates * along + across  # (S, R): B^2 measured, were the candidate true
    tail = (1 - LEVEL) / 2
    not_too_high = (squares >= b**2 - _TINY).mean(1) >= tail
    not_too_low = (squares <= b**2 + _TINY).mean(1) >= tail
    low = candidates[not_too_high][0, 0] if not_too_high.any() else highest
    high = candidates[not_too_low][-1, 0] if not_too_low.any() else 0.0
    return Interval(float(min(low, high)), float(high))


def squared_bias(by_dialogue: IntArray, *, halvings: int = 20, seed: int = 0) -> float:
    """Return an estimate of B^2 that noise does not push up, and that may come out below 0.

    It is the product of p - 1 in two random halves of the dialogues, whose noise is not the same, over many halvings.

    Args:
        by_dialogue: (D, K + 1, K) counts, two dialogues or more.
        halvings: how many.
        seed: of the halvings.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.random((halvings, len(by_dialogue))), axis=1)
    halves = np.stack([by_dialogue[half].sum(1) for half in np.array_split(order, 2, axis=1)])
    first, second = preference_bias(halves).p - 1
    return float(np.nan_to_num(np.nanmean(first * second, axis=1)).mean())


def bias_derivative(counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return B and its derivative by every count.

    By implicit differentiation at the Bradley-Terry estimate: d log p = H^-1 d(score), H the Fisher information. The
    derivative is 0 outside the contests within P, where a single further turn moves B by a jump or not at all.

    Args:
        counts: (R, K + 1, K), rows predictions and unparsed, columns gold.

    Returns:
        (R,) and (R, K + 1, K).
    """
    k = counts.shape[-1]
    bias = preference_bias(counts)
    contests, members, _, _ = contests_of(counts)
    p = np.nan_to_num(bias.p)
    counted = np.maximum((~np.isnan(bias.p)).sum(1), 1)[:, None]  # (R, 1) size of P and Z
    inside = members[:, :, None] & members[:, None, :] & ~np.eye(k, dtype=bool)
    pairs = p[:, :, None] + p[:, None, :]
    share = np.divide(p[:, :, None], pairs, out=np.zeros_like(pairs), where=inside)  # chance that i beats j
    information = (contests + contests.transpose(0, 2, 1)) * share * share.transpose(0, 2, 1)
    hessian = np.eye(k) * (information.sum(2) + ~members)[:, :, None] - information
    hessian += members[:, :, None] & members[:, None, :]  # fixes the scale, which no contest does
    pull = (p - 1) * p
    slope = (pull - pull.sum(1, keepdims=True) * p / counted) / (counted * np.maximum(bias.b, _TINY)[:, None])
    effect = np.linalg.solve(hessian, slope[:, :, None])[:, :, 0]  # (R, K): of a further win of i
    derivative = np.zeros(counts.shape)
    derivative[:, :k] = (effect[:, :, None] - effect[:, None, :]) * share.transpose(0, 2, 1) * inside
    return bias.b, derivative
