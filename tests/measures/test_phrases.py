"""Frequent and overused phrases, on responses made by hand."""

import math

import pytest

from esckit.measures.phrases import FEWEST, MOST, phrases

from .rows import measured, random_rows


def split(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


def test_a_phrase_counts_once_a_response_and_from_three_on() -> None:
    said = split("a b c x a b c", "a b c y", "d e f", "z a b c", "d e f", "q")
    (only,) = phrases(said, said).frequent
    assert (only.phrase, only.count, only.share) == ("a b c", 3, 3 / 6)
    assert FEWEST == 3  # d e f stands in two


def test_punctuation_parts_phrases() -> None:
    said = split(*["i see . you know that"] * 3)
    assert [each.phrase for each in phrases(said, said).frequent] == ["you know that"]


def test_a_part_of_a_longer_phrase_is_left_out_unless_it_often_stands_alone() -> None:
    longer, shorter = "so sorry to hear that", "sorry to hear"
    nearly = split(*[longer] * 8, *[shorter] * 2)
    assert [each.phrase for each in phrases(nearly, nearly).frequent] == [longer]
    often = split(*[longer] * 7, *[shorter] * 3)
    first = phrases(often, often).frequent
    assert [(each.phrase, each.count) for each in first] == [(shorter, 10)]  # what shares three words is shown once


def test_windows_of_one_long_phrase_are_shown_once() -> None:
    said = split(*["it sounds like you are going through a hard time"] * 4)
    shown = [each.phrase.split() for each in phrases(said, said).frequent]
    triples = [tuple(words[i : i + 3]) for words in shown for i in range(len(words) - 2)]
    assert len(triples) == len(set(triples))
    assert [len(words) for words in shown] == [5, 5]


def test_overused_is_by_the_log_odds_ratio() -> None:
    said = split(*["i hear you now"] * 30, *["we can talk now"] * 10, *["x"] * 60)
    gold = split(*["i hear you now"] * 2, *["we can talk now"] * 8, *["x"] * 90)
    found = phrases(said, gold)
    assert [each.phrase for each in found.frequent] == ["i hear you now", "we can talk now"]
    (over,) = found.overused
    assert (over.phrase, over.count, over.gold_count, over.gold_share) == ("i hear you now", 30, 2, 0.02)
    ratio = math.log(30.5 / 70.5) - math.log(2.5 / 98.5)
    assert over.z == pytest.approx(ratio / math.sqrt(1 / 30.5 + 1 / 70.5 + 1 / 2.5 + 1 / 98.5))
    assert phrases(said, said).overused == []
    unheard = phrases(said, split(*["x"] * 100)).overused
    assert [(each.phrase, each.gold_count) for each in unheard] == [("i hear you now", 0), ("we can talk now", 0)]
    assert unheard[0].z > unheard[1].z


def test_lists_are_short_and_in_order() -> None:
    said = split(*[f"w{n} v{n} u{n}" for n in range(30) for _ in range(3 + n % 5)])
    found = phrases(said, split(*["x"] * len(said)))
    assert len(found.frequent) == MOST
    assert [each.count for each in found.frequent] == sorted((each.count for each in found.frequent), reverse=True)
    assert found.frequent[0].count == 7


def test_evaluate_has_them() -> None:
    rows = [*random_rows(60)]
    text = measured(rows, metrics=["text"], resamples=10).text
    assert (
        text.phrases
        == phrases(
            [row.predicted_text.split() for row in rows if row.predicted_text], [row.gold_text.split() for row in rows]
        ).frequent
    )
    assert "overused_phrases" in text.to_json()
