"""Text figures, against NLTK, rouge-score, sacrebleu and brute force."""

import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu
from rouge_score.rouge_scorer import RougeScorer

from esckit.errors import EsckitError
from esckit.measures.results import Opening
from esckit.measures.text import (
    bleu,
    choose_tokenizer,
    distinct,
    f_measure,
    lcs_length,
    make_tokenizer,
    overlap,
)
from esckit.measures.text_figures import text_figures

DATA = Path(os.environ.get("ESCKIT_DATA", "../shared/data"))

tokens = st.lists(st.sampled_from("abcd"), max_size=12)
pairs = st.lists(st.tuples(tokens, tokens), min_size=1, max_size=6)
sentences = st.text(alphabet="abc ABC'.,!?-é", max_size=30)


def nltk_bleu(gold: list[list[str]], predicted: list[list[str]], order: int) -> float:
    weights = (1 / order,) * order
    smoothing = SmoothingFunction().method3
    return float(corpus_bleu([[g] for g in gold], predicted, weights=weights, smoothing_function=smoothing))


@given(pairs, st.integers(1, 4))
def test_bleu_equals_nltk(texts: list[tuple[list[str], list[str]]], order: int) -> None:
    gold, predicted = [g for g, _ in texts], [p for _, p in texts]
    ours = bleu(overlap(gold, predicted), order)
    assert ours.corpus == pytest.approx(nltk_bleu(gold, predicted, order), abs=1e-9)
    assert ours.each == pytest.approx([nltk_bleu([g], [p], order) for g, p in texts], abs=1e-9)


@given(st.lists(tokens, min_size=1, max_size=6), st.integers(1, 3))
def test_distinct_bounds(responses: list[list[str]], order: int) -> None:
    ours = distinct(responses, order)
    assert 0 <= ours.utterance <= 1
    assert 0 <= ours.corpus <= 1
    if len(responses) == 1:
        assert ours.utterance == ours.corpus
    assert distinct(responses * 2, order).utterance == pytest.approx(ours.utterance)
    assert distinct(responses * 2, order).corpus == pytest.approx(ours.corpus / 2)


def test_distinct_by_hand() -> None:
    ours = distinct([["a", "b", "a"], ["a"], []], 1)
    assert ours.each == pytest.approx([2 / 3, 1, 0])
    assert ours.corpus == 2 / 4
    bigrams = distinct([["a", "b", "a", "b"], ["a"]], 2)
    assert (bigrams.utterance, bigrams.corpus) == pytest.approx((2 / 3 / 2, 2 / 3))


@given(tokens, tokens)
def test_lcs_equals_brute_force(first: list[str], second: list[str]) -> None:
    def is_subsequence(part: tuple[str, ...]) -> bool:
        rest = iter(second)
        return all(token in rest for token in part)

    lengths = range(min(len(first), len(second)), -1, -1)
    longest = next(n for n in lengths if any(is_subsequence(part) for part in combinations(first, n)))
    assert lcs_length(first, second) == longest


@given(sentences, sentences)
def test_rouge_l_with_beta_1_equals_rouge_score_on_its_tokens(gold: str, predicted: str) -> None:
    scorer = RougeScorer(["rougeL"])
    split = [scorer._tokenizer.tokenize(text) for text in (gold, predicted)]
    common, lengths = np.array([lcs_length(*split)]), [np.array([len(part)]) for part in split]
    expected = scorer.score(gold, predicted)["rougeL"].fmeasure
    assert f_measure(common, lengths[1], lengths[0]).utterance == pytest.approx(expected)
    if gold.strip():
        assert text_figures([gold], [predicted]).figures["rouge_score_l_utterance"] == pytest.approx(expected)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.sampled_from([1.0, 1.2, 2.0]))
def test_f_measure_is_the_formula(common: int, more: int, other: int, beta: float) -> None:
    predicted, gold = common + more, common + other
    ours = f_measure(np.array([common]), np.array([predicted]), np.array([gold]), beta)
    precision, recall = common / max(predicted, 1), common / max(gold, 1)
    expected = (1 + beta**2) * precision * recall / (recall + beta**2 * precision) if common else 0
    assert ours.utterance == pytest.approx(expected)
    assert ours.corpus == pytest.approx(expected)


def test_f1_counts_repeated_words_as_often_as_both_have_them() -> None:
    shared = overlap([["a", "a", "b"], ["c"]], [["a", "a", "a", "a"], ["d", "c", "c"]])
    ours = f_measure(shared.matches[:, 0], shared.predicted, shared.gold)
    assert (ours.utterance, ours.corpus) == pytest.approx(((2 * 2 / 7 + 2 * 1 / 4) / 2, 2 * 3 / 11))


@given(st.lists(sentences.filter(str.strip), min_size=1, max_size=4))
def test_gold_against_itself_is_1(texts: list[str]) -> None:
    figures = text_figures(texts, texts).figures
    for name in ("bleu1_utterance", "bleu1_corpus", "f1_utterance", "f1_corpus", "rouge_l_utterance", "rouge_l_corpus"):
        assert figures[name] == pytest.approx(1)


def test_all_figures_have_their_variants_and_signatures() -> None:
    gold = ["I am sorry to hear that. Why?", "It's hard, isn't it?"]
    predicted = ["I am so sorry. Why is that?", ""]
    figures = text_figures(gold, predicted).figures
    measures = ["bleu1", "bleu2", "bleu3", "bleu4", "distinct1", "distinct2", "distinct3", "f1", "rouge_l"]
    assert {f"{name}_{variant}" for name in measures for variant in ("utterance", "corpus")} <= figures.keys()
    assert figures["tokenizer"].startswith("nltk-words (NLTKWordTokenizer")
    assert figures["sacrebleu"] == pytest.approx(sacrebleu.corpus_bleu(predicted, [gold]).score / 100)
    assert figures["sacrebleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert figures["rouge_score_signature"].startswith("rougeL, F-measure, no stemming, rouge-score ")
    assert figures["mean_tokens"] == 4.5
    assert figures["openings"] == [Opening(opening="i am so sorry", count=1, share=0.5)]
    assert (figures["over_40_words_share"], figures["long_response_share"]) == (0, 0)
    assert text_figures(predicted, [gold[0] * 2, "Why?"]).figures["long_response_share"] == 0.5


def test_words() -> None:
    words = make_tokenizer("nltk-words").tokenize
    assert " ".join(words("I don't KNOW. Why? (Mr. X.)")) == "i do n't know . why ? ( mr . x . )"
    assert words("") == []


def test_word_tokenize_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nltk.data.path", [])
    with pytest.raises(
        EsckitError, match="needs NLTK's punkt_tab data: install it, or choose the tokenizer nltk-words"
    ):
        make_tokenizer("nltk-word-tokenize")


def test_chinese_goes_by_characters() -> None:
    gold, predicted = ["我很难过 OK。"], ["我难过。"]
    assert choose_tokenizer(gold) == "characters"
    assert choose_tokenizer(["I said 你好 to her"]) == "nltk-words"
    assert choose_tokenizer(["", "?!"]) == "nltk-words"
    assert make_tokenizer("characters").tokenize(gold[0]) == list("我很难过ok。")
    figures = text_figures(gold, predicted).figures
    assert figures["f1_utterance"] == pytest.approx(2 * 4 / (4 + 7))
    assert figures["rouge_l_utterance"] == pytest.approx(2.44 * 4 / (4 + 1.44 * 7))
    assert figures["rouge_score_l_utterance"] is None
    assert "tok:zh" in figures["sacrebleu_signature"]


def test_nltk_is_imported_without_scipy_and_leaves_it_usable() -> None:
    script = (
        "import sys\n"
        "from esckit.measures.text import make_tokenizer\n"
        "assert make_tokenizer('nltk-words').tokenize('A b.') == ['a', 'b', '.']\n"
        "assert not {'scipy', 'sklearn'} & sys.modules.keys()\n"
        "import scipy.stats, sklearn.metrics\n"
    )
    subprocess.run(
        [sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )


@pytest.mark.corpus
def test_gold_texts_of_esconv_have_the_published_distinctness() -> None:
    path = DATA / "esconv" / "valid.json"
    if not path.exists():
        pytest.skip(f"{path} is not there: set ESCKIT_DATA")
    dialogues = json.loads(path.read_text(encoding="utf-8"))
    texts = [turn["content"] for d in dialogues for turn in d["dialog"] if turn["speaker"] == "supporter"]
    words = make_tokenizer("nltk-words").tokenize
    ours = distinct([words(text) for text in texts], 1)
    assert (ours.utterance, ours.corpus) == pytest.approx(
        (0.916, 0.080), abs=0.003
    )  # the published figures are the test split's
