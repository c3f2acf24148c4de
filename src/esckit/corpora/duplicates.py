"""Near-duplicate dialogues: the same help-seeker tells the same story again, in the same or in other words.

Only the situation and what the seeker says are compared, in words without case and punctuation. docs/corpora.md says
which two dialogues are a pair, and how the thresholds were chosen. Runs of words are found by an inverted index over
hashes: no dialogue is compared with every other.
"""

import math
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import combinations
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from esckit.conversation import Conversation

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SITUATION_OVERLAP: Final = 0.7
SITUATION_WORDS: Final = 4
PHRASE_WORDS: Final = 3
PHRASE_IDEOGRAPHS: Final = 6
PHRASE_DIALOGUES: Final = 10
SIMILARITY: Final = 0.06
PHRASES: Final = 6
RUN_WORDS: Final = 6
RUN_DIALOGUES: Final = 3
RUNS: Final = 5

_IDEOGRAPH: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD: Final = re.compile(rf"[{_IDEOGRAPH}]|[^\W_{_IDEOGRAPH}]+(?:'[^\W_{_IDEOGRAPH}]+)?")
_END: Final = 0
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_LEAST_DIALOGUES: Final = 1000  # a phrase is no commoner in a small corpus than in a large one


class Retelling(NamedTuple):
    """Two dialogues that tell one story, by the order in which they were added.

    ``reason``, what they have in common, is read after the names of both. ``words`` is the longest run of words that
    the seekers share, which stands in these two turns; empty where they share no two.
    """

    first: int
    second: int
    reason: str
    words: str
    first_turn: str | None
    second_turn: str | None


@dataclass(frozen=True, slots=True)
class _Story:
    """A dialogue's words as numbers: its situation, and its seeker's utterances, each with an _END behind it."""

    situation: "array[int]"
    words: "array[int]"
    begins: list[int]
    turns: list[str]
    ideographs: bool


class Stories:
    """Collects what seekers tell, and finds who tells it twice."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._stories: list[_Story] = []

    def add(self, conversation: Conversation) -> None:
        """Add a dialogue: its situation, and what the seeker says along the trunk."""
        words, begins, turns = array("I"), [], []
        for turn in conversation.trunk:
            if turn.speaker == "seeker":
                begins.append(len(words))
                turns.append(turn.id)
                words.extend(self._words(turn.text or ""))
                words.append(_END)
        situation = array("I", self._words(conversation.situation or ""))
        self._stories.append(_Story(situation, words, begins, turns, _in_ideographs(conversation)))

    def _words(self, text: str) -> Iterator[int]:
        for word in _WORD.findall(text.casefold().replace("’", "'")):
            yield self._numbers.setdefault(word, len(self._numbers) + 1)

    def pairs(self) -> list[Retelling]:
        """Return the pairs in the order of their dialogues; of several equal ones, each is paired with the first."""
        reasons: dict[tuple[int, int], str] = {}
        for pair in _equal([tuple(story.words) for story in self._stories]):
            reasons.setdefault(pair, "have the same seeker utterances")
        for pair in _equal([tuple(story.situation) for story in self._stories]):
            reasons.setdefault(pair, "have the same situation")
        for pair, overlap in _overlapping([frozenset(story.situation) for story in self._stories]):
            reasons.setdefault(pair, f"have situations that overlap by {overlap:.2f}")
        for pair, similarity in self._similar().items():
            reasons.setdefault(pair, f"tell much the same (similarity {similarity:.2f})")
        for pair, runs in self._sharing_runs().items():
            reasons.setdefault(pair, f"share {runs:.0f} rare runs of {RUN_WORDS} words")
        names = {number: word for word, number in self._numbers.items()}
        return [self._pair(*pair, reasons[pair], names) for pair in sorted(reasons)]

    def _similar(self) -> dict[tuple[int, int], float]:
        found: dict[tuple[int, int], float] = {}
        for ideographs, length in ((False, PHRASE_WORDS), (True, PHRASE_IDEOGRAPHS)):
            words, owner = self._flat(ideographs, situations=True)
            similar = similarities(words, owner, length=length, most=PHRASE_DIALOGUES)
            found |= similar.at_least(SIMILARITY, PHRASES)
        return found

    def _sharing_runs(self) -> dict[tuple[int, int], float]:
        words, owner = self._flat(ideographs=False, situations=False)
        return shared_runs(words, owner, length=RUN_WORDS, most=RUN_DIALOGUES).at_least(RUNS)

    def _flat(self, ideographs: bool, situations: bool) -> tuple[Ints, Ints]:
        """The words of the stories in one kind of script, and to which story each belongs."""
        chosen = [number for number, story in enumerate(self._stories) if story.ideographs == ideographs]
        flat = array("I")
        sizes = []
        for number in chosen:
            before = len(flat)
            if situations:
                flat.extend(self._stories[number].situation)
                flat.append(_END)
            flat.extend(self._stories[number].words)
            sizes.append(len(flat) - before)
        owner = np.repeat(np.array(chosen, np.int64), np.array(sizes, np.int64))
        return np.array(flat, np.int64), owner

    def _pair(self, first: int, second: int, reason: str, names: dict[int, str]) -> Retelling:
        one, other = self._stories[first], self._stories[second]
        # Ends are made different from each other, so that no run crosses one.
        here = [word or -2 * place - 1 for place, word in enumerate(one.words)]
        there = [word or -2 * place - 2 for place, word in enumerate(other.words)]
        run = SequenceMatcher(None, here, there, autojunk=False).find_longest_match()
        if run.size < 2:
            return Retelling(first, second, reason, "", None, None)
        words = (names[word] for word in here[run.a : run.a + run.size])
        text = ("" if one.ideographs else " ").join(words)
        return Retelling(first, second, reason, text, _turn_at(one, run.a), _turn_at(other, run.b))


def _turn_at(story: _Story, place: int) -> str:
    return next(turn for begin, turn in zip(story.begins[::-1], story.turns[::-1], strict=True) if begin <= place)


def _in_ideographs(conversation: Conversation) -> bool:
    """Most words of the first turns with words are ideographs."""
    words = [word for turn in conversation.trunk[:4] for word in _WORD.findall(turn.text or "")]
    return 2 * sum(len(word) == 1 and re.match(f"[{_IDEOGRAPH}]", word) is not None for word in words) > len(words)


def _equal(keys: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, int]]:
    """Pairs of the first story with a key and each later one with the same key; empty keys are equal to none."""
    first: dict[Hashable, int] = {}
    for number, key in enumerate(keys):
        if any(key) and first.setdefault(key, number) != number:
            yield first[key], number


def _overlapping(situations: Sequence[frozenset[int]]) -> Iterator[tuple[tuple[int, int], float]]:
    """Pairs of different sets whose Jaccard index is SITUATION_OVERLAP or more; of equal sets the first stands for all.

    Of sets that overlap so much, each has one of its rarest words in common with the other's rarest: only those are
    looked up (prefix filtering).
    """
    firsts = {words: number for number, words in reversed([*enumerate(situations)]) if len(words) >= SITUATION_WORDS}
    dialogues = Counter(word for words in firsts for word in words)
    having: dict[int, list[frozenset[int]]] = defaultdict(list)
    for words, number in sorted(firsts.items(), key=lambda item: item[1]):
        rarest = sorted(words, key=lambda word: (dialogues[word], word))
        prefix = rarest[: len(words) - math.ceil(SITUATION_OVERLAP * len(words)) + 1]
        for earlier in dict.fromkeys(other for word in prefix for other in having[word]):
            overlap = len(words & earlier) / len(words | earlier)
            if overlap >= SITUATION_OVERLAP:
                yield (firsts[earlier], number), overlap
        for word in prefix:
            having[word].append(words)


# Which dialogues share runs of words. ``words`` and ``owner`` are (words,), the words of all dialogues one after the
# other and whose each is. A word is a positive number; 0 ends an utterance, and no run crosses it.


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
