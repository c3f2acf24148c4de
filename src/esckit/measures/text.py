"""Text against a reference (BLEU, Distinct, unigram F1, ROUGE-L), and alone: how long responses are, how they begin.

``utterance`` figures are computed per response and averaged, ``corpus`` figures come from counts added up over all
responses. All are fractions 0..1.
"""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from esckit.errors import EsckitError
from esckit.measures.intervals import FloatArray, IntArray
from esckit.measures.results import Opening
from esckit.measures.scripts import MOST, share_of

Tokens = list[str]
TokenizerName = Literal["nltk-words", "nltk-word-tokenize", "characters"]

MAX_ORDER: Final = 4
ROUGE_BETA: Final = 1.2
"""Weight of recall in ROUGE-L, as in DecoupledESC's figures."""

_LATIN_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+")


class Tokenizer(NamedTuple):
    """A tokenizer and the name that travels with every figure made by it."""

    name: str
    tokenize: Callable[[str], Tokens]


class Variants(NamedTuple):
    """One measure's two variants, never to be mixed up: of each response (to be averaged), and of all together."""

    each: FloatArray  # (N,)
    corpus: float

    @property
    def utterance(self) -> float:
        """The mean over responses."""
        return float(self.each.mean())


class Overlap(NamedTuple):
    """What BLEU and F1 need of N pairs."""

    matches: IntArray  # (N, 4) n-grams of the prediction that gold has too, each at most as often as gold has it
    totals: IntArray  # (N, 4) n-grams of the prediction, at least 1
    predicted: IntArray  # (N,) tokens
    gold: IntArray  # (N,) tokens


def make_tokenizer(name: TokenizerName) -> Tokenizer:
    """Return a tokenizer by name; all of them lower-case first.

    ``nltk-words`` is NLTK's word tokenizer after a split at white space that follows ``.``, ``!`` or ``?``: it needs
    no data and comes within .001 of ``nltk-word-tokenize``, which needs NLTK's sentence model. ``characters`` takes
    every character but white space, for scripts that put none between words.

    Raises:
        EsckitError: the data of ``nltk-word-tokenize`` is not installed.
    """
    if name == "characters":
        return Tokenizer("characters", lambda text: [c for c in text.lower() if not c.isspace()])
    nltk = _import_nltk()
    if name == "nltk-words":
        words = nltk.tokenize.NLTKWordTokenizer().tokenize
        split = _LATIN_SENTENCE_END.split
        return Tokenizer(
            f"nltk-words (NLTKWordTokenizer, regex sentence split, lower-cased; nltk {nltk.__version__})",
            lambda text: [word for sentence in split(text.lower()) for word in words(sentence)],
        )
    try:
        nltk.word_tokenize("a")
    except LookupError as error:
        message = "nltk-word-tokenize needs NLTK's punkt_tab data: install it, or choose the tokenizer nltk-words."
        raise EsckitError(message) from error
    return Tokenizer(
        f"nltk-word-tokenize (lower-cased; nltk {nltk.__version__})",
        lambda text: list(nltk.word_tokenize(text.lower())),
    )


def _import_nltk() -> Any:
    """Import NLTK without scipy and scikit-learn, which it takes along for what we do not use.

    They make four fifths of its import's two seconds; and scipy 1.17 cannot be imported where torch is blocked.
    """
    unused = [package for package in ("scipy", "sklearn") if package not in sys.modules]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(unused))  # None: an import of it fails, which NLTK expects
    try:
        import nltk
    finally:
        for package in unused:
            del modules[package]
    return nltk


def choose_tokenizer(texts: Sequence[str]) -> TokenizerName:
    """Return ``characters`` where most letters are of scripts without blanks between words, else ``nltk-words``."""
    return "characters" if share_of("without blanks", texts) > MOST else "nltk-words"


def overlap(gold: Sequence[Tokens], predicted: Sequence[Tokens]) -> Overlap:
    """Count the n-grams that each prediction shares with its reference."""
    matches = np.zeros((len(gold), MAX_ORDER), dtype=np.int64)
    totals = np.ones((len(gold), MAX_ORDER), dtype=np.int64)
    for row, (reference, response) in enumerate(zip(gold, predicted, strict=True)):
        for n in range(1, min(len(response), MAX_ORDER) + 1):
            wanted = Counter(ngrams(reference, n))
            said = Counter(ngrams(response, n))
            matches[row, n - 1] = sum(min(count, wanted[gram]) for gram, count in said.items() if gram in wanted)
            # NLTK counts an empty set of n-grams as 1, in the corpus sum too; the initial ones do so here.
            totals[row, n - 1] = len(response) - n + 1
    lengths = [np.array([len(tokens) for tokens in side], dtype=np.int64) for side in (predicted, gold)]
    return Overlap(matches, totals, *lengths)


def bleu(shared: Overlap, order: int) -> Variants:
    """Return BLEU up to n-grams of an order, weights 1/order, smoothing method 3 (NIST geometric sequence).

    Equals NLTK's ``corpus_bleu`` with ``SmoothingFunction().method3``: on one pair at a time, averaged, and on all
    pairs. Source: Papineni et al. 2002; Chen and Cherry 2014.
    """
    total = Overlap(*(part.sum(0, keepdims=True) for part in shared))
    return Variants(each=_bleu(shared, order), corpus=float(_bleu(total, order)[0]))


def distinct(responses: Sequence[Tokens], order: int) -> Variants:
    """Return distinct n-grams / n-grams; a response without n-grams has 0. Source: Li et al. 2016."""
    ratios: list[float] = []
    seen: set[tuple[str, ...]] = set()
    total = 0
    for tokens in responses:
        own = set(ngrams(tokens, order))
        number = max(len(tokens) - order + 1, 0)
        ratios.append(len(own) / number if number else 0.0)
        seen |= own
        total += number
    return Variants(each=np.array(ratios), corpus=len(seen) / total if total else 0.0)


def f_measure(common: IntArray, predicted: IntArray, gold: IntArray, beta: float = 1.0) -> Variants:
    """Return F-beta of what N pairs have in common; 0 where they have nothing.

    With unigram multisets it is the token F1; with longest common subsequences ROUGE-L (Lin 2004, eq. 2 to 4), where
    beta > 1 favours recall. The corpus variant adds up the common tokens and the lengths first (micro-average). All
    three are numbers of tokens (N,).
    """
    # With P = c / p and R = c / g, (1 + b^2) P R / (R + b^2 P) is (1 + b^2) c / (p + b^2 g).
    weight = beta**2
    each = (1 + weight) * common / np.maximum(predicted + weight * gold, 1)
    lengths = predicted.sum() + weight * gold.sum()
    return Variants(each=each, corpus=float((1 + weight) * common.sum() / max(lengths, 1)))


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, by bit-parallel dynamic programming (Hyyro 2004)."""
    places: dict[str, int] = {}
    for i, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << i
    full = (1 << len(first)) - 1
    row = full  # a 0 at bit i: the subsequence of what was read grows at first[i]
    for token in second:
        hit = row & places.get(token, 0)
        row = (row + hit | row - hit) & full
    return len(first) - row.bit_count()


def _bleu(shared: Overlap, order: int) -> FloatArray:
    """BLEU of each of N pairs, or of one sum over pairs: (N,)."""
    found, possible = shared.matches[:, :order], shared.totals[:, :order]
    missed = found == 0
    halvings = 2.0 ** np.cumsum(missed, axis=1)  # the k-th order without a match counts as 1 / 2^k of one
    precision = np.where(missed, 1 / halvings, found) / possible
    brevity = np.exp(np.minimum(0, 1 - shared.gold / np.maximum(shared.predicted, 1)))
    score: FloatArray = brevity * np.exp(np.log(precision).mean(1))
    return np.where(missed[:, 0], 0, score)  # no unigram in common is 0, not smoothed


def ngrams(tokens: Tokens, n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(tokens[i:] for i in range(n)), strict=False)


def lcs_lengths(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> IntArray:
    """Return the length of each of N pairs' longest common subsequence, (N,)."""
    return np.array([lcs_length(*pair) for pair in zip(gold, predicted, strict=True)], dtype=np.int64)


MOST_WORDS: Final = 40
MOST_SENTENCES: Final = 2
"""Where a response starts to be long, for the judge of self-evolution (appendix E.2)."""

_OPENING: Final = 4  # tokens

_SENTENCE_END: Final = re.compile(r"(?<=[.!?؟۔।॥։።])\s+|(?<=[。！？｡．။។།])")
_WORD: Final = re.compile(r"\w")


def length_shares(responses: Sequence[str], *, characters: bool = False) -> dict[str, Any]:
    """Return the shares (0..1) of responses over 40 words, over two sentences, and over either.

    Words stand between white space; a sentence ends at white space behind ``.``, ``!``, ``?`` or their like in other
    scripts, or at ``。``, ``！``, ``？`` and their like, and what holds no letter or digit is neither. ``characters``
    counts these, but for white space, as words. Thai and Lao mark no sentence's end: where most letters are of theirs,
    the shares that count sentences are None.
    """
    words = np.array([_count_characters(text) if characters else _count(text.split()) for text in responses])
    sentences = np.array([_count(_SENTENCE_END.split(text)) for text in responses])
    over = words > MOST_WORDS, sentences > MOST_SENTENCES
    endless = share_of("Thai or Lao", responses) > MOST
    return {
        "over_40_words_share": float(over[0].mean()),
        "over_2_sentences_share": None if endless else float(over[1].mean()),
        "long_response_share": None if endless else float((over[0] | over[1]).mean()),
    }


def openings(responses: Sequence[Sequence[str]], most: int = 10) -> list[Opening]:
    """Return the most common first 4-grams, each with its count and its share (0..1) of all responses.

    Responses with fewer than four tokens have no opening; equal counts stand in alphabetical order.
    """
    counts = Counter(opening for tokens in responses if (opening := opening_of(tokens)))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
    return [Opening(opening=text, count=count, share=count / len(responses)) for text, count in ranked]


def opening_of(tokens: Sequence[str]) -> str | None:
    """Return a response's first four tokens, with blanks between; None where it has fewer."""
    return " ".join(tokens[:_OPENING]) if len(tokens) >= _OPENING else None


def _count(pieces: Sequence[str]) -> int:
    return sum(_WORD.search(piece) is not None for piece in pieces)


def _count_characters(text: str) -> int:
    return sum(not character.isspace() for character in text)
