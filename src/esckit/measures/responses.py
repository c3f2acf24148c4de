"""What responses look like without a reference: how long they are and how they begin."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from esckit.measures.results import Opening

__all__ = ["MOST_SENTENCES", "MOST_WORDS", "length_shares", "openings"]

MOST_WORDS: Final = 40
MOST_SENTENCES: Final = 2
"""Where a response starts to be long, for the judge of self-evolution (appendix E.2)."""

_OPENING: Final = 4  # tokens

_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
_WORD: Final = re.compile(r"\w")


def length_shares(responses: Sequence[str], *, characters: bool = False) -> dict[str, float]:
    """Return the shares (0..1) of responses over 40 words, over two sentences, and over either.

    Words stand between white space; a sentence ends at white space behind ``.``, ``!`` or ``?``, or at ``。``, ``！``
    or ``？``, and what holds no letter or digit is neither.

    Args:
        responses: N texts, at least one.
        characters: count characters but white space for words, for Chinese.
    """
    words = np.array([_count_characters(text) if characters else _count(text.split()) for text in responses])
    sentences = np.array([_count(_SENTENCE_END.split(text)) for text in responses])
    over = words > MOST_WORDS, sentences > MOST_SENTENCES
    return {
        "over_40_words_share": float(over[0].mean()),
        "over_2_sentences_share": float(over[1].mean()),
        "long_response_share": float((over[0] | over[1]).mean()),
    }


def openings(responses: Sequence[Sequence[str]], most: int = 10) -> list[Opening]:
    """Return the most common first 4-grams, each with its count and its share (0..1) of all responses.

    Args:
        responses: the tokens of N responses; those with fewer than four have no opening.
        most: how many to return; equal counts in alphabetical order.
    """
    counts = Counter(" ".join(tokens[:_OPENING]) for tokens in responses if len(tokens) >= _OPENING)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
    return [Opening(opening=text, count=count, share=count / len(responses)) for text, count in ranked]


def _count(pieces: Sequence[str]) -> int:
    return sum(_WORD.search(piece) is not None for piece in pieces)


def _count_characters(text: str) -> int:
    return sum(not character.isspace() for character in text)
