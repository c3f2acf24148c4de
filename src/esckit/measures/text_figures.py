"""All figures of responses: against a reference, alone, and by an encoder."""

from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import numpy as np

from esckit.errors import EsckitError
from esckit.measures.encoders import EMBEDDED_HASH, bertscore_figures, relevance_figures
from esckit.measures.intervals import FloatArray
from esckit.measures.phrases import phrases
from esckit.measures.scripts import MOST, SOME, is_foreign, share_of
from esckit.measures.text import (
    MAX_ORDER,
    ROUGE_BETA,
    TokenizerName,
    Tokens,
    bleu,
    choose_tokenizer,
    distinct,
    f_measure,
    lcs_lengths,
    length_shares,
    make_tokenizer,
    openings,
    overlap,
)

TEXT_METRICS: Final = ("text", "meteor", "bertscore", "relevance")


class ScoredText(NamedTuple):
    """Figures of N responses by their names in `results.TextFigures`, and each response's part in the means."""

    figures: dict[str, Any]
    each: dict[str, FloatArray]  # measure to (N,); a response that the measure leaves out is NaN
    notes: list[str]  # sentences: which figures are null, or mean little, in these texts' script


def text_figures(
    gold: Sequence[str],
    predicted: Sequence[str],
    *,
    tokenizer: TokenizerName | None = None,
    metrics: Sequence[str] = ("text",),
    encoder: str | None = None,
    seeker_turns: Sequence[Sequence[str] | None] = (),
) -> ScoredText:
    """Return those of ``TEXT_METRICS`` that are asked for, of N references and responses; arguments as in `evaluate`.

    Raises:
        EsckitError: the tokenizer's data is not installed, or a measure lacks its package, encoder or input.
    """
    chosen = tokenizer or choose_tokenizer(gold)
    tokens = make_tokenizer(chosen)
    figures: dict[str, Any] = {"tokenizer": tokens.name}
    each: dict[str, FloatArray] = {}
    if "text" in metrics or "meteor" in metrics:
        sides = [[tokens.tokenize(text) for text in texts] for texts in (gold, predicted)]
    if "text" in metrics:
        characters = chosen == "characters"
        overlaps, each = _overlap_figures(*sides)
        figures |= overlaps
        figures |= _rouge_score(gold, predicted, characters)
        figures |= _sacrebleu(gold, predicted, characters)
        figures |= {"mean_tokens": sum(map(len, sides[1])) / len(predicted)}
        figures |= {**length_shares(predicted, characters=characters), "openings": openings(sides[1])}
        frequent, overused = phrases(sides[1], sides[0])
        figures |= {"phrases": frequent, "overused_phrases": overused}
    if "meteor" in metrics:
        found, each["meteor"] = meteor_figures(*sides)
        figures |= found
    if "bertscore" in metrics:
        found, values = bertscore_figures(gold, predicted, _encoder(encoder, "bertscore"))
        figures, each = figures | found, each | values
    if "relevance" in metrics:
        found, values = relevance_figures(seeker_turns, predicted, _encoder(encoder, "relevance"))
        figures, each = figures | found, each | values
    return ScoredText(figures, each, _notes(figures, chosen, gold, predicted))


def _notes(figures: dict[str, Any], tokenizer: str, gold: Sequence[str], predicted: Sequence[str]) -> list[str]:
    notes = []
    blankless = max(share_of("without blanks", gold), share_of("without blanks", predicted))
    if tokenizer != "characters" and blankless > SOME:
        notes.append(
            f"Up to {blankless:.0%} of the letters are of a script without blanks between words, which "
            f"{tokenizer} takes for single words: choose --tokenizer characters."
        )
    if figures.get("rouge_score_l_utterance", 0) is None:
        notes.append("rouge_score_l_utterance is null: rouge-score goes by words of ASCII letters and digits.")
    elif "rouge_score_l_utterance" in figures and (lost := share_of("not ASCII", gold)) > SOME:
        notes.append(f"rouge-score cuts words at letters that are not ASCII, which {lost:.0%} here are: use rouge_l.")
    if figures.get("over_2_sentences_share", 0) is None:
        notes.append("over_2_sentences_share and long_response_share are null: Thai and Lao mark no sentence's end.")
    if figures.get("encoder_hash") == EMBEDDED_HASH and is_foreign(gold):
        notes.append(
            "The encoder is all-MiniLM-L6-v2, which knows English alone, and these texts are in another language: give "
            "--encoder a multilingual one."
        )
    return notes


def _overlap_figures(gold: list[Tokens], predicted: list[Tokens]) -> tuple[dict[str, float], dict[str, FloatArray]]:
    shared = overlap(gold, predicted)
    measures = {
        **{f"bleu{n}": bleu(shared, n) for n in range(1, MAX_ORDER + 1)},
        **{f"distinct{n}": distinct(predicted, n) for n in range(1, 4)},
        "f1": f_measure(shared.matches[:, 0], shared.predicted, shared.gold),
        "rouge_l": f_measure(lcs_lengths(gold, predicted), shared.predicted, shared.gold, beta=ROUGE_BETA),
    }
    figures: dict[str, float] = {}
    for name, variants in measures.items():
        figures[f"{name}_utterance"] = variants.utterance
        figures[f"{name}_corpus"] = variants.corpus
    return figures, {name: variants.each for name, variants in measures.items()}


def _encoder(encoder: str | None, metric: str) -> str:
    if encoder is None:
        raise EsckitError(f"{metric} needs an encoder: add --encoder with a model's folder or its id on the Hub.")
    return encoder


def _rouge_score(gold: Sequence[str], predicted: Sequence[str], characters: bool) -> dict[str, Any]:
    """rouge-score's rougeL F-measure, on its own tokens; its table of all prefixes is many times slower than ours.

    None where most letters are not Latin: its tokens keep ASCII letters and digits alone.
    """
    if characters or share_of("not Latin", gold) > MOST:
        return {"rouge_score_l_utterance": None}
    from importlib.metadata import version

    from rouge_score.tokenizers import DefaultTokenizer

    tokenize = DefaultTokenizer(use_stemmer=False).tokenize
    sides = [[tokenize(text) for text in texts] for texts in (gold, predicted)]
    lengths = [np.array([len(tokens) for tokens in side], dtype=np.int64) for side in sides]
    return {
        "rouge_score_l_utterance": f_measure(lcs_lengths(*sides), lengths[1], lengths[0]).utterance,
        "rouge_score_signature": f"rougeL, F-measure, no stemming, rouge-score {version('rouge-score')}",
    }


def _sacrebleu(gold: Sequence[str], predicted: Sequence[str], characters: bool) -> dict[str, Any]:
    """sacrebleu's BLEU-4, 0..1. Its way with Chinese divides no other script that goes by characters."""
    from sacrebleu.metrics.bleu import BLEU

    others = share_of("without blanks", gold) - share_of("Chinese", gold)
    by_characters = "char" if others > SOME else "zh"
    metric = BLEU(tokenize=by_characters if characters else "13a", force=True)  # force: no log line about tokens
    score = metric.corpus_score(list(predicted), [list(gold)]).score
    return {"sacrebleu": score / 100, "sacrebleu_signature": str(metric.get_signature())}


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
    ``synonyms`` is a WordNet reader for the third stage; None leaves that stage out.
    """
    from nltk.stem.porter import PorterStemmer
    from nltk.translate.meteor_score import single_meteor_score

    stages = {
        "stemmer": SimpleNamespace(stem=cache(PorterStemmer().stem)),  # takes most of the time: asked once a word
        "wordnet": synonyms or SimpleNamespace(synsets=lambda word: []),
    }
    return np.array([single_meteor_score(*pair, **stages) for pair in zip(gold, predicted, strict=True)])


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
