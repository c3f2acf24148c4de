"""METEOR: unigrams matched exactly, then by stem, then (where its data is installed) by WordNet's synonyms."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import numpy as np

from esckit.measures.intervals import FloatArray

__all__ = ["meteor", "meteor_figures", "wordnet"]

Tokens = list[str]


class _NoSynonyms:
    """Stands for WordNet where there is none: the third stage then matches nothing."""

    def synsets(self, word: str) -> list[Any]:
        return []


class _CachedStemmer:
    """The Porter stemmer, which takes most of METEOR's time, asked once a word."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self.stem = cache(PorterStemmer().stem)


_WITHOUT: Final = _NoSynonyms()


def wordnet() -> Any | None:
    """Return NLTK's WordNet reader, or None where its data is not installed."""
    from nltk.corpus import wordnet as reader

    try:
        reader.ensure_loaded()
    except LookupError:
        return None
    return reader


def meteor(gold: Sequence[Tokens], predicted: Sequence[Tokens], synonyms: Any | None = None) -> FloatArray:
    """Return METEOR of N responses, (N,), each 0..1, as NLTK computes it (alpha .9, beta 3, gamma .5).

    Source: Lavie and Agarwal 2007. A response equal to its reference scores just under 1: one chunk has a penalty too.

    Args:
        gold: tokens of N references.
        predicted: tokens of N responses.
        synonyms: a WordNet reader for the third stage; None leaves that stage out.
    """
    from nltk.translate.meteor_score import single_meteor_score

    stemmer = _CachedStemmer()
    return np.array(
        [
            single_meteor_score(reference, response, stemmer=stemmer, wordnet=synonyms or _WITHOUT)
            for reference, response in zip(gold, predicted, strict=True)
        ]
    )


def meteor_figures(gold: Sequence[Tokens], predicted: Sequence[Tokens]) -> tuple[dict[str, Any], FloatArray]:
    """Return METEOR's figures and its values (N,) without WordNet, which every machine can compute."""
    import nltk

    each, synonyms = meteor(gold, predicted), wordnet()
    complete = None if synonyms is None else float(meteor(gold, predicted, synonyms).mean())
    name = f"METEOR, exact and stem stages, no WordNet; nltk {nltk.__version__}"
    return {
        "meteor_utterance": float(each.mean()),
        "meteor_wordnet_utterance": complete,
        "meteor_signature": name,
    }, each
