"""Strengths from pairwise results with ties: Davidson's extension of the Bradley-Terry model.

i beats j with probability p_i / Z, they tie with probability nu sqrt(p_i p_j) / Z, Z = p_i + p_j + nu sqrt(p_i p_j)
(Davidson 1970). With strengths log p and log nu it is a conditional logit: the likelihood is concave, and
Newton's method finds its maximum.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Final, NamedTuple

import numpy as np

from esckit.errors import EsckitError
from esckit.measures.intervals import FloatArray, basic_interval, resample_totals
from esckit.measures.preference_bias import BoolArray, strongly_connected

_MAX_STEPS: Final = 200
_TOLERANCE: Final = 1e-10
_LONGEST_STEP: Final = 2.0  # keeps Newton's first steps inside the region where they help
_PSEUDO_WIN: Final = 0.5


class Duel(NamedTuple):
    """One pairwise verdict."""

    item: str | int  # what was judged (a context): the unit that intervals resample
    first: str
    second: str
    winner: str | None  # one of the two, or None for a tie


def bradley_terry(duels: Sequence[Duel], *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Rate systems by pairwise verdicts.

    Returns:
        JSON-ready: ``duels``, ``items``, ``tie_parameter`` (nu, from 0), ``marks``, and ``ratings``, strongest first:
        ``name``, ``strength`` (log p in nats, mean 0 over systems), its 95% basic bootstrap ``interval`` over items,
        ``wins``, ``losses``, ``ties``. Where the wins do not lead from every system to every other no finite strengths
        fit: half a win is added each way to every pair, and ``marks`` says ``regularised``; single resamples that
        lack such wins are treated so in silence.

    Raises:
        EsckitError: there is no duel, a winner took no part, a system meets itself, or two groups never meet.
    """
    names = sorted({name for duel in duels for name in (duel.first, duel.second)})
    pairs = list(combinations(range(len(names)), 2))
    by_item = _count(duels, names, pairs)
    total: FloatArray = by_item.sum(0)
    if not _all_meet(total, pairs, len(names)):
        raise EsckitError("some systems never meet the others, not even through third ones: add duels between them.")
    strengths, tie, regularised = _fit(total[None], pairs, len(names))
    replicates = _fit(resample_totals(by_item, resamples, seed), pairs, len(names))[0]  # (R, K)
    rated = [
        {
            "name": name,
            "strength": float(strengths[0, k]),
            "interval": list(basic_interval(float(strengths[0, k]), replicates[:, k], low=-np.inf)),
            **_record(name, duels),
        }
        for k, name in enumerate(names)
    ]
    return {
        "duels": len(duels),
        "items": len(by_item),
        "tie_parameter": float(tie[0]),
        "marks": ["regularised"] if regularised[0] else [],
        "ratings": sorted(rated, key=lambda rating: -rating["strength"]),
    }


def _record(name: str, duels: Sequence[Duel]) -> dict[str, int]:
    own = [duel.winner for duel in duels if name in (duel.first, duel.second)]
    wins, ties = own.count(name), own.count(None)
    return {"wins": wins, "losses": len(own) - wins - ties, "ties": ties}


def _count(duels: Sequence[Duel], names: list[str], pairs: list[tuple[int, int]]) -> FloatArray:
    """(items, pairs, 3): the first wins, the second wins, a tie; items in the order of their ids."""
    if not duels:
        raise EsckitError("there are no duels to rate systems by: give at least one.")
    items = {item: i for i, item in enumerate(sorted({duel.item for duel in duels}, key=repr))}
    place = {pair: i for i, pair in enumerate(pairs)}
    counts = np.zeros((len(items), len(pairs), 3))
    for duel in duels:
        if duel.first == duel.second or duel.winner not in (duel.first, duel.second, None):
            raise EsckitError(f"{duel} is no duel: name two systems, and as winner one of them or None.")
        pair = sorted((names.index(duel.first), names.index(duel.second)))
        result = 2 if duel.winner is None else pair.index(names.index(duel.winner))
        counts[items[duel.item], place[pair[0], pair[1]], result] += 1
    return counts


def _all_meet(total: FloatArray, pairs: list[tuple[int, int]], k: int) -> bool:
    met = np.zeros((1, k, k))
    for (i, j), counts in zip(pairs, total, strict=True):
        met[0, i, j] = met[0, j, i] = counts.sum()
    return bool(strongly_connected(met, np.ones((1, k), dtype=bool))[0])


def _fit(counts: FloatArray, pairs: list[tuple[int, int]], k: int) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Fit R sets of counts (R, pairs, 3) at once: strengths (R, K), nu (R,), and which were regularised (R,)."""
    wins = np.zeros((len(counts), k, k))
    for place, (i, j) in enumerate(pairs):
        wins[:, i, j], wins[:, j, i] = counts[:, place, 0], counts[:, place, 1]
    regularised = ~strongly_connected(wins, np.ones((len(counts), k), dtype=bool))
    counts = counts + _PSEUDO_WIN * regularised[:, None, None] * np.array([1, 1, 0])
    has_ties = counts[:, :, 2].sum(1) > 0  # without, nu is 0: log nu has no finite estimate, and needs none
    features = _features(pairs, k)  # (pairs, 3, K + 1)
    played = counts.sum(2)
    weights = np.zeros((len(counts), k + 1))  # log p, log nu
    for _ in range(_MAX_STEPS):
        utility = np.einsum("pof,rf->rpo", features, weights)
        utility[:, :, 2] = np.where(has_ties[:, None], utility[:, :, 2], -np.inf)
        chance = np.exp(utility - utility.max(2, keepdims=True))
        chance /= chance.sum(2, keepdims=True)
        gradient = np.einsum("rpo,pof->rf", counts - played[:, :, None] * chance, features)
        mean = np.einsum("rpo,pof->rpf", chance, features)
        second = np.einsum("rp,rpo,pof,pog->rfg", played, chance, features, features, optimize=True)
        information = second - np.einsum("rp,rpf,rpg->rfg", played, mean, mean, optimize=True)
        information[:, :k, :k] += 1  # fixes the mean of the strengths, which no duel does
        information[:, k, k] += ~has_ties
        step = np.linalg.solve(information, gradient[:, :, None])[:, :, 0]
        weights += step * np.minimum(1, _LONGEST_STEP / np.maximum(np.abs(step).max(1, keepdims=True), 1e-300))
        if np.abs(step).max() < _TOLERANCE:
            break
    strengths = weights[:, :k] - weights[:, :k].mean(1, keepdims=True)
    return strengths, np.where(has_ties, np.exp(weights[:, k]), 0), regularised


def _features(pairs: list[tuple[int, int]], k: int) -> FloatArray:
    """(pairs, 3, K + 1): what each outcome's log-odds are made of; a tie's are half of both strengths, and log nu."""
    features = np.zeros((len(pairs), 3, k + 1))
    for place, (i, j) in enumerate(pairs):
        features[place, 0, i] = features[place, 1, j] = 1
        features[place, 2, [i, j, k]] = 0.5, 0.5, 1
    return features
