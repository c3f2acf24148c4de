"""The starter corpus that the package ships."""

import re
from collections.abc import Iterable
from importlib.resources import files
from itertools import combinations

import pytest

from esckit.conversation import Conversation
from esckit.corpora import Corpus, corpus_statistics, load_corpus
from esckit.corpora.error_labels import read_error_examples
from esckit.strategy import ESCONV

PROBLEM_TYPES = {
    "academic pressure",
    "alcohol abuse",
    "appearance anxiety",
    "breakup with partner",
    "conflict with parents",
    "issues with children",
    "job crisis",
    "ongoing depression",
    "problems with friends",
    "procrastination",
    "school bullying",
    "sleep problems",
}
PHONE_NUMBER = re.compile(r"\+?\d(?:[\s().-]?\d){6,}")
ADDRESS = re.compile(r"https?:|www\.|\S@\S|\b\w+\.(?:com|org|net|edu|gov|io|uk|de|nz|au)\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def starter() -> Corpus:
    return load_corpus("starter")


@pytest.fixture(scope="module")
def dialogues(starter: Corpus) -> list[Conversation]:
    return [*starter.train, *starter.valid, *starter.test]


def texts(dialogue: Conversation) -> list[str]:
    return [dialogue.situation or "", *(turn.text or "" for turn in dialogue.turns)]


def runs_of_eight_words(texts: Iterable[str]) -> set[tuple[str, ...]]:
    runs = set()
    for text in texts:
        words = re.findall(r"[\w']+", text.lower())
        runs |= {tuple(words[start : start + 8]) for start in range(len(words) - 7)}
    return runs


def test_the_split_is_44_8_8(starter: Corpus) -> None:
    assert (len(starter.train), len(starter.valid), len(starter.test)) == (44, 8, 8)
    assert starter.licence == "CC0-1.0"


def test_there_is_enough_of_every_strategy(dialogues: list[Conversation]) -> None:
    figures = corpus_statistics(dialogues)
    assert figures["supporter_utterances"] >= 600
    assert figures["supporter_utterances_without_strategy"] == 0
    assert min(figures["strategy_counts"][label] for label in ESCONV.labels) >= 0.04 * figures["supporter_utterances"]


def test_every_part_has_every_strategy_and_good_and_bad_outcomes(starter: Corpus) -> None:
    for part in (starter.train, starter.valid, starter.test):
        assert min(corpus_statistics(part)["strategy_counts"][label] for label in ESCONV.labels) >= 3
        assert {dialogue.labels["outcome"] for dialogue in part} == {"better", "mixed", "worse"}


def test_every_problem_type_is_there_and_the_small_parts_repeat_none(starter: Corpus) -> None:
    train, valid, test = (
        [dialogue.labels["problem_type"] for dialogue in part] for part in (starter.train, starter.valid, starter.test)
    )
    assert set(train) == {*valid, *test} == PROBLEM_TYPES
    assert len(set(valid)) == len(set(test)) == 8


def test_every_dialogue_says_what_it_is(dialogues: list[Conversation]) -> None:
    for dialogue in dialogues:
        assert dialogue.situation
        assert set(dialogue.labels) == {"emotion_type", "problem_type", "outcome"}
        assert (dialogue.provenance["corpus"], dialogue.provenance["licence"]) == ("starter", "CC0-1.0")
        assert dialogue.trunk == dialogue.turns
        assert all(turn.text and turn.text == turn.text.strip() for turn in dialogue.turns)


def test_no_utterance_occurs_twice(dialogues: list[Conversation]) -> None:
    utterances = [turn.text for dialogue in dialogues for turn in dialogue.turns]
    assert len(utterances) == len(set(utterances))


def test_no_two_dialogues_share_a_run_of_eight_words(dialogues: list[Conversation]) -> None:
    runs = {dialogue.id: runs_of_eight_words(texts(dialogue)) for dialogue in dialogues}
    assert [pair for pair in combinations(runs, 2) if runs[pair[0]] & runs[pair[1]]] == []


def test_there_are_no_phone_numbers_and_no_addresses(dialogues: list[Conversation]) -> None:
    everything = [text for dialogue in dialogues for text in texts(dialogue)]
    for example in read_error_examples():
        everything += [example.response, example.reason, *(utterance.text for utterance in example.context)]
    assert [text for text in everything if PHONE_NUMBER.search(text) or ADDRESS.search(text)] == []


def test_error_examples_come_from_no_dialogue(dialogues: list[Conversation]) -> None:
    utterances = {text.lower() for dialogue in dialogues for text in texts(dialogue)}
    runs = set().union(*(runs_of_eight_words(texts(dialogue)) for dialogue in dialogues))
    for example in read_error_examples():
        own = [example.response, *(utterance.text for utterance in example.context)]
        assert not utterances & {text.lower() for text in own}
        assert not runs & runs_of_eight_words(own)


def test_licence_and_data_card_are_shipped_and_the_card_counts_right(dialogues: list[Conversation]) -> None:
    folder = files("esckit.corpora") / "starter"
    assert "CC0 1.0 Universal" in (folder / "LICENSE").read_text(encoding="utf-8")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "not clinically validated" in card
    assert "large language model" in card
    figures = corpus_statistics(dialogues)
    assert f"{len(dialogues)} English support dialogues, {figures['utterances']:,} utterances" in card
    for label in ESCONV.labels:
        count = figures["strategy_counts"][label]
        assert re.search(rf"\| {label} \|.*\| {count} \({count / figures['supporter_utterances']:.1%}\) \|", card)
