"""The starter corpus that the package ships."""

from importlib.resources import files

import pytest

from esckit.conversation import Conversation
from esckit.corpora import Corpus, corpus_statistics, load_corpus
from esckit.strategy import ESCONV


@pytest.fixture(scope="module")
def starter() -> Corpus:
    return load_corpus("starter")


@pytest.fixture(scope="module")
def dialogues(starter: Corpus) -> list[Conversation]:
    return [*starter.train, *starter.valid, *starter.test]


def test_the_split_is_18_3_3(starter: Corpus) -> None:
    assert (len(starter.train), len(starter.valid), len(starter.test)) == (18, 3, 3)
    assert starter.licence == "CC0-1.0"


def test_there_is_enough_of_every_strategy_in_every_part(starter: Corpus, dialogues: list[Conversation]) -> None:
    figures = corpus_statistics(dialogues)
    assert figures["supporter_utterances"] >= 240
    assert figures["supporter_utterances_without_strategy"] == 0
    assert min(figures["strategy_counts"].values()) >= 20
    for part in (starter.train, starter.valid, starter.test):
        assert min(corpus_statistics(part)["strategy_counts"][label] for label in ESCONV.labels) >= 3


def test_every_dialogue_says_what_it_is(dialogues: list[Conversation]) -> None:
    for dialogue in dialogues:
        assert dialogue.situation
        assert set(dialogue.labels) == {"emotion_type", "problem_type", "outcome"}
        assert dialogue.labels["outcome"] in ("better", "mixed", "worse")
        assert (dialogue.provenance["corpus"], dialogue.provenance["licence"]) == ("starter", "CC0-1.0")
        assert dialogue.trunk == dialogue.turns
        assert all(turn.text and turn.text == turn.text.strip() for turn in dialogue.turns)


def test_no_utterance_occurs_twice(dialogues: list[Conversation]) -> None:
    texts = [turn.text for dialogue in dialogues for turn in dialogue.turns]
    assert len(texts) == len(set(texts))


def test_no_two_dialogues_share_a_run_of_eight_words(dialogues: list[Conversation]) -> None:
    seen: dict[tuple[str, ...], str] = {}
    for dialogue in dialogues:
        for turn in dialogue.turns:
            words = (turn.text or "").casefold().split()
            for start in range(len(words) - 7):
                assert seen.setdefault(tuple(words[start : start + 8]), dialogue.id) == dialogue.id


def test_licence_and_data_card_are_shipped() -> None:
    folder = files("esckit.corpora") / "starter"
    assert "CC0 1.0 Universal" in (folder / "LICENSE").read_text(encoding="utf-8")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "not clinically validated" in card
    assert "large language model" in card
