"""Lengths and openings, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esckit.measures.results import Opening
from esckit.measures.text import length_shares, openings


def test_lengths_by_hand() -> None:
    texts = [
        " ".join(["word"] * 40) + " .",  # 40 words: punctuation is none
        " ".join(["word"] * 41),
        "One. Two! ...",  # two sentences
        "I'm sorry... That hurts. Why?",
        "",
    ]
    assert length_shares(texts) == {
        "over_40_words_share": 1 / 5,
        "over_2_sentences_share": 1 / 5,
        "long_response_share": 2 / 5,
    }


def test_chinese_lengths() -> None:
    texts = ["难" * 41, "我难过。你呢？好！", "我 难 过。" * 2]
    shares = length_shares(texts, characters=True)
    assert shares["over_40_words_share"] == pytest.approx(1 / 3)
    assert shares["over_2_sentences_share"] == pytest.approx(1 / 3)
    assert shares["long_response_share"] == pytest.approx(2 / 3)


@given(st.lists(st.text(alphabet="ab .?", max_size=30), min_size=1, max_size=5))
def test_shares_are_shares(texts: list[str]) -> None:
    shares = length_shares(texts)
    over = shares["over_40_words_share"], shares["over_2_sentences_share"]
    assert max(over) <= shares["long_response_share"] <= min(sum(over), 1)
    assert length_shares(texts * 2) == shares


def test_openings_by_hand() -> None:
    texts = ["i am so sorry to hear", "i am so sorry .", "how are you ?", "i see", "how are you now"]
    assert openings([text.split() for text in texts], most=2) == [
        Opening(opening="i am so sorry", count=2, share=0.4),
        Opening(opening="how are you ?", count=1, share=0.2),
    ]


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=6), min_size=1, max_size=12))
def test_openings_count_what_is_long_enough(responses: list[list[str]]) -> None:
    found = openings(responses, most=1000)
    assert sum(entry.count for entry in found) == sum(len(tokens) >= 4 for tokens in responses)
    assert [entry.count for entry in found] == sorted((entry.count for entry in found), reverse=True)
