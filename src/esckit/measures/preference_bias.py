"""Preference bias B: how unevenly a planner prefers its strategies where it is wrong.

Kang et al. 2024; DecoupledESC, appendix E.1, equations 7 and 8. Each wrong turn is a contest that the predicted
strategy won against the gold one; p are the strengths of a Bradley-Terry model of these contests, fitted by Newman's
iteration; B is their standard deviation. The printed equations fix p only up to a scale and say nothing about
strategies that never win; docs/measures.md states the choices that make B a number.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from esckit.measures.intervals import LEVEL, FloatArray, IntArray, Interval

BoolArray = NDArray[np.bool_]

COMPAT_SWEEPS: Final = 20
"""What the reference implementations do instead of testing for convergence."""

_MAX_SWEEPS: Final = 1000
_TOLERANCE: Final = 1e-10  # largest change of log p in a sweep
_PSEUDO_COUNT: Final = 0.5


class Bias(NamedTuple):
    """Preferences and their spread; leading axes are those of the counts."""

    b: FloatArray  # (...) B, from 0 (no preference) to sqrt(K - 1) (always one strategy)
    p: FloatArray  # (..., K) mean 1 over P and Z; NaN where there is no evidence or no gold turn
    wrong_somewhere: BoolArray  # (..., K) P
    never_wrongly_chosen: BoolArray  # (..., K) Z
    saturated: BoolArray  # (...) P has one member
    regularised: BoolArray  # (...) W on P x P is not strongly connected: pseudo-counts were added
    unconverged: BoolArray  # (...) still moving after the last sweep; never set under a fixed number of sweeps


def preference_bias(counts: IntArray | FloatArray, *, sweeps: int | None = None) -> Bias:
    """Fit the preferences p and return them with B.

    Args:
        counts: (..., K, K) or (..., K + 1, K); rows are predictions, columns gold; a last row of unparsed predictions
            only shows which strategies have gold turns.
        sweeps: this many sweeps exactly (``COMPAT_SWEEPS``); None sweeps until log p moves less than 1e-10, at most
            1,000 times.
    """
    k = counts.shape[-1]
    lead = counts.shape[:-2]
    batch = counts.reshape(-1, *counts.shape[-2:]).astype(np.float64)  # (R, K or K + 1, K)
    contests, wins, loses, regularised = contests_of(batch)
    p, unconverged = _sweep(contests, wins, sweeps)
    p, b = _rescale(p, wins | loses)
    return Bias(
        b=b.reshape(lead),
        p=p.reshape(*lead, k),
        wrong_somewhere=wins.reshape(*lead, k),
        never_wrongly_chosen=loses.reshape(*lead, k),
        saturated=(wins.sum(1) == 1).reshape(lead),
        regularised=regularised.reshape(lead),
        unconverged=unconverged.reshape(lead),
    )


def contests_of(counts: FloatArray) -> tuple[FloatArray, BoolArray, BoolArray, BoolArray]:
    """Return what p is fitted to: contests within P (R, K, K), P and Z (R, K), and which of R are regularised."""
    k = counts.shape[-1]
    has_gold = counts.sum(1) > 0  # (R, K)
    wrong = counts[:, :k] * (1 - np.eye(k)) * has_gold[:, :, None]  # (R, K, K): W
    wins = wrong.sum(2) > 0  # (R, K): P
    loses = ~wins & (wrong.sum(1) > 0)  # (R, K): Z
    # Only contests within P move p: p is 0 on Z, and nothing in Z ever won.
    contests = wrong * wins[:, None, :]
    regularised = ~strongly_connected(contests, wins)
    inside = wins[:, :, None] & wins[:, None, :] & ~np.eye(k, dtype=bool)
    contests += _PSEUDO_COUNT * (inside & regularised[:, None, None])
    return contests, wins, loses, regularised


def strongly_connected(contests: FloatArray, members: BoolArray) -> BoolArray:
    """Say for each of R graphs whether every member reaches every other; (R, K, K) and (R, K) to (R,)."""
    k = contests.shape[-1]
    reach = (contests > 0) | np.eye(k, dtype=bool)
    length = 1
    while length < k:  # squaring doubles the length of the paths seen
        reach = reach @ reach
        length *= 2
    needed = members[:, :, None] & members[:, None, :]
    return np.asarray((reach | ~needed).all(axis=(1, 2)))


def noise_floor(counts: IntArray, *, simulations: int = 1000, seed: int = 0) -> float:
    """Return the B that chance alone gives an unbiased planner, measured on as many turns.

    The planner simulated has the same gold counts g and, in expectation, the same accuracy a. Where gold is j it says
    i != j with probability c g_i / n, c = (1 - a) / (1 - sum (g_i / n)^2), else j. Expected W is then symmetric, so
    every true preference is 1 and true B is 0. Gold counts stay fixed; turns are independent. Below chance accuracy no
    such planner need exist: c is at most 1, which is chance. Unparsed predictions are left out, as they are in B.

    Args:
        counts: (K, K) or (K + 1, K), rows predictions, columns gold.
        simulations: how many data sets to draw.

    Returns:
        the root mean square of B over the simulations (so that B^2 - floor^2 removes it), 0 where nothing is wrong.
    """
    k = counts.shape[-1]
    parsed = counts[:k]
    gold = parsed.sum(0)  # (K,)
    turns = int(gold.sum())
    share = gold / max(turns, 1)
    chance_errors = 1 - float(share @ share)
    if turns == 0 or chance_errors == 0:
        return 0.0
    errors = 1 - float(np.trace(parsed)) / turns
    confusion = np.repeat(min(errors / chance_errors, 1.0) * share[:, None], k, axis=1)  # (prediction, gold)
    np.fill_diagonal(confusion, 0)
    np.fill_diagonal(confusion, np.maximum(1 - confusion.sum(0), 0))  # shares may add up to a rounding over 1
    rng = np.random.default_rng(seed)
    drawn = [rng.multinomial(gold[j], confusion[:, j], size=simulations) for j in range(k)]
    b = preference_bias(np.stack(drawn, axis=2)).b  # from (simulations, K, K)
    return float(np.sqrt(np.mean(b**2)))


def debias(b: float, floor: float) -> float:
    """Return sqrt(max(0, B^2 - floor^2)): the spread that the noise floor does not account for."""
    return float(np.sqrt(max(0.0, b**2 - floor**2)))


def _sweep(contests: FloatArray, members: BoolArray, sweeps: int | None) -> tuple[FloatArray, BoolArray]:
    """Run Newman's sweeps on R problems at once, each until it converges.

    Returns:
        p (R, K), 0 outside the members, and (R,) whether a problem ran out of sweeps.
    """
    p = members.astype(np.float64)
    active = np.flatnonzero(members.sum(1) > 1)  # with one member there is nothing to compare: p stays 1
    for _ in range(_MAX_SWEEPS if sweeps is None else sweeps):
        if not active.size:
            break
        before = p[active]
        p[active] = _one_sweep(before.copy(), contests[active], members[active])
        if sweeps is None:
            moved = np.abs(_log(p[active]) - _log(before)).max(1)
            active = active[moved >= _TOLERANCE]
    unconverged = np.zeros(len(p), dtype=bool)
    if sweeps is None:
        unconverged[active] = True
    return p, unconverged


def _one_sweep(p: FloatArray, contests: FloatArray, members: BoolArray) -> FloatArray:
    """Update p (R, K) in place, label by label (equation 7), then divide by the geometric mean over the members."""
    for i in range(p.shape[1]):
        here = members[:, i]
        q = p[here]
        pair = q[:, i : i + 1] + q  # never 0: p_i > 0
        won = (contests[here, i] * q / pair).sum(1)
        lost = (contests[here, :, i] / pair).sum(1)
        p[here, i] = won / lost
    geometric_mean: FloatArray = np.exp(_log(p).sum(1) / members.sum(1))
    return p / geometric_mean[:, None]


def _log(p: FloatArray) -> FloatArray:
    """Log p, with 0 where p is 0 (outside the members)."""
    return np.log(p, out=np.zeros_like(p), where=p > 0)


def _rescale(p: FloatArray, counted: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Scale p (R, K) to mean 1 over the strategies that count, and take their deviation (equation 8)."""
    members = counted.sum(1)
    scale = np.divide(members, p.sum(1), out=np.zeros(len(p)), where=members > 0)
    scaled = p * scale[:, None]
    spread = (np.where(counted, scaled - 1, 0) ** 2).sum(1)
    b = np.sqrt(np.divide(spread, members, out=np.zeros(len(p)), where=members > 0))
    return np.where(counted, scaled, np.nan), b


_STEPS: Final = 1000  # candidates for the true B: at K = 8, .0026 apart
_TINY: Final = 1e-12


def bias_interval(bias: Bias, replicates: Bias) -> Interval:
    """Return the values of the true B that the measured one does not contradict, at 95%.

    B is a length (of p - 1), so noise pushes it up, the more the smaller it is; an interval that mirrors or shifts
    resampled values cannot know by how much at a true B other than the measured one. So each candidate true B is
    tested: with the measured direction of the preferences, shrunk or stretched to that B, plus the noise that the
    bootstrap shows, is the measured B among the middle 95%? Both ends may lie below the measured B.
    Source: bootstrap test inversion, Davison and Hinkley 1997, section 5.5; docs/measures.md has the coverage.

    ``bias`` is that of all dialogues (no leading axis), ``replicates`` that of R resamples of dialogues.
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
    ``by_dialogue`` are (D, K + 1, K) counts of two dialogues or more.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.random((halvings, len(by_dialogue))), axis=1)
    halves = np.stack([by_dialogue[half].sum(1) for half in np.array_split(order, 2, axis=1)])
    first, second = preference_bias(halves).p - 1
    return float(np.nan_to_num(np.nanmean(first * second, axis=1)).mean())


def bias_derivative(counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return B (R,) and its derivative by every count (R, K + 1, K); rows are predictions and unparsed, columns gold.

    By implicit differentiation at the Bradley-Terry estimate: d log p = H^-1 d(score), H the Fisher information. The
    derivative is 0 outside the contests within P, where a single further turn moves B by a jump or not at all.
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
