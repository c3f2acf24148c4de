"""Words without a model: what two texts have in common. Enough to choose and to count by, and no more than that."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

from esckit.mining.self_refinement.filters import words_of

__all__ = ["in_common", "likenesses"]

_RUN: Final = 3


def in_common(one: str, other: str) -> float:
    """The share of different runs of three words that two texts have in common, 0 to 1 (Jaccard).

    Words have no case and no punctuation; of a script without blanks they are characters.
    """
    here, there = _runs(one), _runs(other)
    return len(here & there) / len(here | there) if here | there else 1.0


def _runs(text: str) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[place : place + _RUN]) for place in range(max(len(words) - _RUN + 1, min(len(words), 1)))}


def likenesses(text: str, others: Sequence[str]) -> list[float]:
    """How alike a text is to each of some others, 0 to 1: the cosine of their words.

    A word counts the more, the fewer of the others have it. In a script without blanks, words are pairs of characters.
    """
    index = _index(tuple(others))
    own = _weighted(_bag(text), index.weights)
    length = math.hypot(*own.values()) or 1.0
    found = [0.0] * len(others)
    for word, weight in own.items():
        for place, share in index.places[word]:
            found[place] += weight * share / length
    return found


class _Index(NamedTuple):
    """What is known of some texts: the weight of each word, and where it stands with which share of a text's length."""

    weights: dict[str, float]
    places: dict[str, list[tuple[int, float]]]


@lru_cache(maxsize=64)
def _index(texts: tuple[str, ...]) -> _Index:
    bags = [_bag(text) for text in texts]
    having = Counter(word for bag in bags for word in bag)
    weights = {word: math.log((1 + len(bags)) / (1 + count)) + 0.1 for word, count in having.items()}
    places: dict[str, list[tuple[int, float]]] = {word: [] for word in weights}
    for place, bag in enumerate(bags):
        weighted = _weighted(bag, weights)
        length = math.hypot(*weighted.values()) or 1.0
        for word, weight in weighted.items():
            places[word].append((place, weight / length))
    return _Index(weights, places)


def _bag(text: str) -> Counter[str]:
    words = words_of(text)
    single = sum(len(word) == 1 for word in words) > len(words) / 2
    return Counter(one + other for one, other in pairwise(words)) if single else Counter(words)


def _weighted(bag: Counter[str], weights: dict[str, float]) -> dict[str, float]:
    return {word: math.sqrt(count) * weights[word] for word, count in bag.items() if word in weights}
