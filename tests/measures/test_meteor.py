"""METEOR against NLTK and by hand."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.meteor_score import single_meteor_score

from esckit.measures.text_figures import meteor, meteor_figures, wordnet

words = st.lists(st.sampled_from(["feel", "feeling", "feels", "sad", "so", "i", "."]), max_size=8)


class Synonyms:
    """A WordNet of one synonym, its own stem: NLTK's third stage sees what the second has stemmed."""

    def synsets(self, word: str) -> list[Any]:
        lemma = SimpleNamespace(name=lambda: "glum")
        return [SimpleNamespace(lemmas=lambda: [lemma])] if word == "sad" else []


class Silent:
    def synsets(self, word: str) -> list[Any]:
        return []


@given(words, words)
def test_equals_nltk(gold: list[str], predicted: list[str]) -> None:
    (found,) = meteor([gold], [predicted])
    assert found == pytest.approx(single_meteor_score(gold, predicted, wordnet=Silent()))
    assert 0 <= found <= 1


def test_by_hand() -> None:
    # "i feel sad" against "i am feeling sad": all 3 match (one by stem) in 2 chunks; P = 1, R = 3/4.
    mean = (1 * 0.75) / (0.9 * 1 + 0.1 * 0.75)
    (found,) = meteor([["i", "am", "feeling", "sad"]], [["i", "feel", "sad"]])
    assert found == pytest.approx(mean * (1 - 0.5 * (2 / 3) ** 3))
    assert meteor([["i"], ["i"], []], [["you"], [], ["i"]]).tolist() == [0, 0, 0]


def test_synonyms_count_where_they_are_given() -> None:
    gold, predicted = [["glum"]], [["sad"]]
    assert meteor(gold, predicted).tolist() == [0]
    assert meteor(gold, predicted, Synonyms())[0] > 0


def test_figures_name_their_stages_with_and_without_wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nltk.data.path", [])
    monkeypatch.setattr("esckit.measures.text_figures.wordnet", lambda: None)
    figures, each = meteor_figures([["glum"], ["i"]], [["sad"], ["i"]])
    assert figures["meteor_utterance"] == each.mean() == 0.25
    assert figures["meteor_wordnet_utterance"] is None
    assert figures["meteor_signature"].startswith("METEOR, exact and stem stages, no WordNet; nltk ")
    monkeypatch.setattr("esckit.measures.text_figures.wordnet", Synonyms)
    figures, _ = meteor_figures([["glum"], ["i"]], [["sad"], ["i"]])
    assert (figures["meteor_utterance"], figures["meteor_wordnet_utterance"]) == (0.25, 0.5)


def test_wordnet_is_none_where_its_data_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nltk.data.path", [])
    assert wordnet() is None
