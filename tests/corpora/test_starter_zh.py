"""The Chinese starter corpus that the package ships."""

import re
from importlib.resources import files
from itertools import combinations

import pytest

from esckit.conversation import Conversation
from esckit.corpora import Corpus, corpus_statistics, load_corpus
from esckit.corpora.linter import check_files
from esckit.strategy import ESCONV

TOPICS = {"成长", "情绪", "恋爱", "人际", "行为", "家庭", "治疗", "婚姻", "职业"}


@pytest.fixture(scope="module")
def starter() -> Corpus:
    return load_corpus("starter-zh")


@pytest.fixture(scope="module")
def dialogues(starter: Corpus) -> list[Conversation]:
    return [*starter.train, *starter.valid, *starter.test]


def runs_of_eight(dialogue: Conversation) -> set[str]:
    texts = [
        re.sub(r"\W", "", text) for text in (dialogue.situation or "", *(turn.text or "" for turn in dialogue.turns))
    ]
    return {text[start : start + 8] for text in texts for start in range(len(text) - 7)}


def test_the_split_is_16_4_4_and_every_topic_is_trained_on(starter: Corpus) -> None:
    assert (len(starter.train), len(starter.valid), len(starter.test)) == (16, 4, 4)
    assert (starter.name, starter.licence, starter.source) == (
        "starter-zh",
        "CC0-1.0",
        "esckit's Chinese starter corpus",
    )
    train, valid, test = ([tree.labels["problem_type"] for tree in part] for part in starter.parts.values())
    assert set(train) == TOPICS
    assert len(set(valid)) == len(set(test)) == 4
    for part in starter.parts.values():
        assert min(corpus_statistics(part)["strategy_counts"][label] for label in ESCONV.labels) >= 1


def test_every_dialogue_says_what_it_is_and_is_chinese(dialogues: list[Conversation]) -> None:
    for tree in dialogues:
        assert tree.language == "zh"
        assert tree.situation
        assert set(tree.labels) == {"emotion_type", "problem_type", "outcome"}
        assert tree.labels["outcome"] in {"better", "mixed", "worse"}
        assert (tree.provenance["corpus"], tree.provenance["licence"]) == ("starter-zh", "CC0-1.0")
        assert tree.trunk == tree.turns
        assert 12 <= len(tree.turns) <= 20
        for turn in tree.turns:
            assert turn.text
            assert turn.text == turn.text.strip()
            assert re.search(r"[\u4e00-\u9fff]", turn.text)
            assert turn.source == "claude"
            assert bool(turn.strategy) == (turn.speaker == "supporter")


def test_the_linter_finds_nothing() -> None:
    report = check_files([str(files("esckit.corpora") / "starter_zh" / "dialogues.jsonl")])
    assert [str(finding) for finding in report.findings] == []


def test_no_two_dialogues_share_a_run_of_eight_characters_and_no_number_is_a_telephone_s(
    dialogues: list[Conversation],
) -> None:
    runs = {tree.id: runs_of_eight(tree) for tree in dialogues}
    assert [pair for pair in combinations(runs, 2) if runs[pair[0]] & runs[pair[1]]] == []
    assert not any(re.search(r"\d{5,}|https?:|www\.", turn.text or "") for tree in dialogues for turn in tree.turns)


def test_licence_and_data_card_are_shipped_and_the_card_counts_right(starter: Corpus) -> None:
    folder = files("esckit.corpora") / "starter_zh"
    assert "CC0 1.0 Universal" in (folder / "LICENSE").read_text(encoding="utf-8")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "not clinically validated" in card
    everything = corpus_statistics([*starter.train, *starter.valid, *starter.test])
    assert f"24 Chinese support dialogues, {everything['utterances']} utterances, " in card
    parts = [corpus_statistics(part) for part in starter.parts.values()]
    for label in ESCONV.labels:
        counts = [figures["strategy_counts"][label] for figures in (*parts, everything)]
        share = f"{counts[-1] / everything['supporter_utterances']:.1%}"
        assert "| {} | {} | {} | {} | {} ({}) |".format(label, *counts, share) in card
