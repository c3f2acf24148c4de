"""Which dialogues share runs of words, by an inverted index over hashes: no dialogue is compared with every other.

Shapes: ``words`` and ``owner`` are ``(words,)``, the words of all dialogues one after the other and whose each is. A
word is a positive number; 0 ends an utterance, and no run crosses it.
"""

from itertools import combinations
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["PairValues", "shared_runs", "similarities"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_LEAST_DIALOGUES: Final = 1000  # a phrase is no commoner in a small corpus than in a large one


class PairValues(NamedTuple):
    """A value for each pair of dialogues that share runs, and how many they share: ``first < second``, one length."""

    first: Ints
    second: Ints
    values: Floats
    runs: Ints

    def at_least(self, value: float, runs: int = 1) -> dict[tuple[int, int], float]:
        """The pairs with this value or more, and this many shared runs or more."""
        keep = (self.values >= value) & (self.runs >= runs)
        pairs = zip(self.first[keep].tolist(), self.second[keep].tolist(), strict=True)
        return dict(zip(pairs, self.values[keep].tolist(), strict=True))


class _Postings(NamedTuple):
    """Who has which run: the owners, run by run and in order, and for each run where its owners begin and how many."""

    owner: Ints
    start: Ints
    size: Ints


def shared_runs(words: Ints, owner: Ints, *, length: int, most: int) -> PairValues:
    """Count for each pair of dialogues the different runs of ``length`` words that both, and at most ``most``, have."""
    postings = _postings(words, owner, length)
    return _sum_by_pair(postings, np.ones(len(postings.size)), most)


def similarities(words: Ints, owner: Ints, *, length: int, most: int) -> PairValues:
    """Compare dialogues by their runs of ``length`` words; the similarity is from 0 to 1.

    A cosine of vectors with a component w = ln(dialogues / dialogues that have it) for each run, in which only the runs
    that at most ``most`` dialogues have count as shared.
    """
    postings = _postings(words, owner, length)
    dialogues = int(owner.max(initial=-1)) + 1
    squares = np.log(max(dialogues, _LEAST_DIALOGUES) / postings.size) ** 2
    norms = np.sqrt(np.bincount(postings.owner, weights=np.repeat(squares, postings.size), minlength=dialogues))
    shared = _sum_by_pair(postings, squares, most)
    return shared._replace(values=shared.values / (norms[shared.first] * norms[shared.second]))


def _postings(words: Ints, owner: Ints, length: int) -> _Postings:
    positions = max(0, len(words) - length + 1)
    hashes, whole = np.zeros(positions, np.uint64), np.ones(positions, bool)
    for offset in range(length):
        word = words[offset : offset + positions]
        hashes = (hashes ^ (hashes >> np.uint64(31))) * _MIX + word.astype(np.uint64)
        whole &= word != 0
    hashes, owner = hashes[whole], owner[:positions][whole]
    order = np.lexsort((owner, hashes))
    hashes, owner = hashes[order], owner[order]
    new_run = np.ones(len(hashes), bool)
    new_run[1:] = hashes[1:] != hashes[:-1]
    kept = new_run.copy()
    kept[1:] |= owner[1:] != owner[:-1]  # a dialogue that says it twice has it once
    start = np.flatnonzero(new_run[kept])
    owner = owner[kept]
    return _Postings(owner, start, np.diff(start, append=len(owner)))


def _sum_by_pair(postings: _Postings, weight: Floats, most: int) -> PairValues:
    """Add up, for each pair of dialogues, the weights of the runs that both and at most ``most`` have."""
    dialogues = int(postings.owner.max(initial=-1)) + 1
    keys, weights = [np.zeros(0, np.int64)], [np.zeros(0)]
    for count in range(2, most + 1):
        these = postings.size == count
        for one, other in combinations(range(count), 2):
            first, second = (postings.owner[postings.start[these] + place] for place in (one, other))
            keys.append(first * dialogues + second)
            weights.append(weight[these])
    pairs, place = np.unique(np.concatenate(keys), return_inverse=True)
    sums = np.bincount(place, weights=np.concatenate(weights), minlength=len(pairs)).astype(np.float64)
    runs = np.bincount(place, minlength=len(pairs))
    return PairValues(pairs // max(dialogues, 1), pairs % max(dialogues, 1), sums, runs)
