"""Which refined replies are taken, and which two sides make a pair (self-evolution, appendix A)."""

import re
from difflib import SequenceMatcher
from typing import Final

from esckit.measures.scripts import MOST, share_of
from esckit.mining.pairs import normalise
from esckit.mining.self_refinement.options import RefinementOptions

__all__ = ["FILTERS", "count_words", "in_common", "pair_fault", "too_long", "words_of"]

FILTERS: Final = (
    *("first turn", "last turns", "not after the seeker", "danger", "no strategy", "empty draft"),
    *("unparsed", "refused", "failed", "longer than the draft", "longer than the human reply", "no human reply"),
    *("cut", "near-equal", "length ratio", "pattern", "not accepted"),
)
"""Everything that keeps a reply of a dialogue from making a pair, in the order in which it is looked at."""

_WORD: Final = re.compile(r"\w+(?:['’]\w+)*")


def words_of(text: str) -> list[str]:
    """The words of a text, of a script without blanks its characters."""
    text = normalise(text)
    return re.findall(r"\w", text) if share_of("without blanks", [text]) > MOST else _WORD.findall(text)


def count_words(text: str) -> int:
    """How many words a text has; of a script without blanks, characters."""
    return len(words_of(text))


def too_long(refined: str, draft: str, human: str, longest: float | None) -> str | None:
    """Than what a refined reply is longer by more than the factor; None for neither, or where there is no factor.

    An empty human reply says nothing.
    """
    if longest is None:
        return None
    words = count_words(refined)
    if words > longest * count_words(draft):
        return "longer than the draft"
    return "longer than the human reply" if human.strip() and words > longest * count_words(human) else None


def in_common(one: str, other: str) -> float:
    """The share of words that two replies have in common in order, 0 to 1 (difflib's ratio)."""
    return SequenceMatcher(None, words_of(one), words_of(other), autojunk=False).ratio()


def pair_fault(chosen: str, rejected: str, options: RefinementOptions) -> str | None:
    """Why two sides are no pair; None where they are one."""
    if normalise(chosen) == normalise(rejected) or in_common(chosen, rejected) >= options.near_equal:
        return "near-equal"
    sizes = sorted((count_words(chosen), count_words(rejected)))
    if options.length_ratio is not None and sizes[1] > options.length_ratio * sizes[0]:
        return "length ratio"
    return None
