"""Frequent phrases: runs of words that many responses hold, and those that more of them hold than human replies do.

Self-evolution, figures 6 to 10, shows frequent phrases by model; how they are counted the paper does not say.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Final, NamedTuple

from esckit.measures.results import Phrase
from esckit.measures.text import Tokens, ngrams

LENGTHS: Final = (3, 4, 5)  # tokens
MOST: Final = 20  # phrases of a list
FEWEST: Final = 3  # responses that hold a phrase; below, it is no habit
_NEARLY: Final = 0.8
_SURE: Final = 1.96
_HALF: Final = 0.5  # added to each count, so that odds are finite where one side never says a phrase
_WORD: Final = re.compile(r"\w")

_Gram = tuple[str, ...]


class Phrases(NamedTuple):
    """Two lists of at most ``MOST`` phrases: by how many responses hold them, and by z."""

    frequent: list[Phrase]
    overused: list[Phrase]


def phrases(predicted: Sequence[Tokens], gold: Sequence[Tokens]) -> Phrases:
    """Return the phrases that most responses hold, and those that more of them hold than human replies do.

    A phrase is a run of 3 to 5 tokens with letters or digits; it counts once a response. Phrases of fewer than three
    responses are left out; so is one that stands in a longer one at least four times in five, and of several that share
    three tokens in a row all but the first. Overused is what has z above 1.96: the logarithm of the odds ratio (odds of
    holding the phrase, responses over human replies, half a reply added to each count) in standard errors. z ranks
    phrases as in Monroe, Colaresi and Quinn 2008, section 3.3; the replies of a dialogue are alike, so it is no test.

    Args:
        predicted: N responses.
        gold: the human replies to the same turns.
    """
    counts = _closed(_count(predicted))
    human = _count_again(gold, counts.keys())
    found = [_phrase(gram, count, human[gram], len(predicted), len(gold)) for gram, count in counts.items()]
    longest_first = sorted(found, key=lambda each: (-each.phrase.count(" "), each.phrase))
    frequent = sorted(longest_first, key=lambda each: -each.count)
    overused = sorted((each for each in longest_first if each.z > _SURE), key=lambda each: -each.z)
    return Phrases(_unlike(frequent), _unlike(overused))


def _grams(tokens: Tokens, length: int) -> Iterator[_Gram]:
    return (gram for gram in ngrams(tokens, length) if all(map(_is_word, gram)))


@cache
def _is_word(token: str) -> bool:
    return _WORD.search(token) is not None


def _count(responses: Sequence[Tokens]) -> dict[_Gram, int]:
    """In how many responses each phrase stands, where these are enough.

    A phrase is counted only where both of its parts without an end are frequent: all others would fill the memory.
    """
    found: dict[_Gram, int] = {}
    for length in LENGTHS:
        counts: Counter[_Gram] = Counter()
        for tokens in responses:
            grams = set(_grams(tokens, length))
            counts.update(gram for gram in grams if length == LENGTHS[0] or (gram[1:] in found and gram[:-1] in found))
        found |= {gram: count for gram, count in counts.items() if count >= FEWEST}
    return found


def _closed(counts: dict[_Gram, int]) -> dict[_Gram, int]:
    """Without phrases that nearly always stand in a longer one."""
    parts = {
        part
        for gram, count in counts.items()
        for part in (gram[1:], gram[:-1])
        if count >= _NEARLY * counts.get(part, math.inf)
    }
    return {gram: count for gram, count in counts.items() if gram not in parts}


def _count_again(responses: Sequence[Tokens], wanted: Iterable[_Gram]) -> Counter[_Gram]:
    """In how many responses the wanted phrases stand."""
    known = frozenset(wanted)
    counts: Counter[_Gram] = Counter()
    for tokens in responses:
        counts.update({gram for length in LENGTHS for gram in _grams(tokens, length)} & known)
    return counts


def _phrase(gram: _Gram, count: int, human: int, n: int, others: int) -> Phrase:
    cells = [number + _HALF for number in (count, n - count, human, others - human)]
    odds_ratio = cells[0] / cells[1] / (cells[2] / cells[3])
    return Phrase(
        phrase=" ".join(gram),
        count=count,
        share=count / n,
        gold_count=human,
        gold_share=human / others,
        z=math.log(odds_ratio) / math.sqrt(sum(1 / cell for cell in cells)),
    )


def _unlike(ranked: Iterable[Phrase]) -> list[Phrase]:
    """The first of those that share three tokens in a row."""
    picked: list[Phrase] = []
    shown: set[_Gram] = set()
    for each in ranked:
        parts = set(ngrams(each.phrase.split(" "), LENGTHS[0]))
        if len(picked) < MOST and not parts & shown:
            picked.append(each)
            shown |= parts
    return picked
