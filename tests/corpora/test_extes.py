"""ExTES: sixteen labels to eight, and which dialogues are left out."""

from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import Turn
from esckit.corpora import load_corpus, read_corpus, write_corpus
from esckit.corpora.extes import read_extes_item
from esckit.errors import CorpusError
from esckit.strategy import EXTES_TO_CSO

from .items import extes_item, strictly, write_items


def test_every_field_finds_its_place() -> None:
    conversation = strictly(read_extes_item(extes_item(("Clarification", "You lost it?"), note=1), 4, "E.json"))
    assert (conversation.id, conversation.language, conversation.taxonomy) == ("extes-4", "en", "cso")
    assert (conversation.situation, conversation.labels) == ("I lost my cat.", {"scene": "Grief"})
    assert (conversation.provenance, conversation.extra) == ({"corpus": "extes", "file": "E.json"}, {"note": 1})
    assert conversation.turns == [
        Turn("0", None, "seeker", "I feel bad, 0."),
        Turn("1", "0", "supporter", "You lost it?", "Emotional Validation", extra={"AI Strategy": "Clarification"}),
    ]


@pytest.mark.parametrize(("label", "strategy"), EXTES_TO_CSO.items())
def test_each_of_fifteen_labels_is_mapped_in_any_case(label: str, strategy: str) -> None:
    for written in (label, f" {label.upper()} "):
        turn = strictly(read_extes_item(extes_item((written, "Hm.")), 0)).turns[1]
        assert (turn.strategy, turn.extra) == (strategy, {"AI Strategy": written})


def test_dialogues_with_others_without_a_label_or_with_an_unknown_one_are_left_out_and_counted(tmp_path: Path) -> None:
    good = ("Offer Hope", "It will pass.")
    items = [
        extes_item(good),
        extes_item(good, ("Others", "Bye."), ("Others", "Bye!")),
        extes_item((None, "Hm."), good),
        extes_item(("", "Hm.")),
        extes_item(("Advice", "Run.")),
        extes_item(good, good),
    ]
    path = write_items(tmp_path / "ExTES.json", items)
    conversations = read_corpus(path)
    assert [conversation.id for conversation in conversations] == ["extes-0", "extes-5"]
    counts = {"dialogues": 4, "Others": 2, "no label": 2, "unknown label": 1}
    assert [conversation.provenance["dropped"] for conversation in conversations] == [counts] * 2
    write_corpus(tmp_path / "trees.jsonl", conversations)
    assert read_corpus(tmp_path / "trees.jsonl") == conversations
    assert load_corpus("extes", file=path, split="1:1").licence == "unknown"


def test_where_nothing_is_left_out_nothing_is_counted(tmp_path: Path) -> None:
    (conversation,) = read_corpus(write_items(tmp_path / "ExTES.json", [extes_item()]))
    assert "dropped" not in conversation.provenance


def test_where_everything_is_left_out_there_is_nothing_to_read(tmp_path: Path) -> None:
    path = write_items(tmp_path / "ExTES.json", [extes_item(("Others", "Hm."))])
    with pytest.raises(CorpusError, match=r"ExTES.json has no supporter turn in 0 dialogues: "):
        read_corpus(path)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (3, "dialogue 0 has no list `content` of utterances: add one, or remove the dialogue."),
        ({"content": []}, "dialogue 0 has no list `content`"),
        ({"content": ["Hi"]}, 'dialogue 0, turn 0 is neither {"User": text} nor {"AI": text, "AI Strategy": label}: m'),
        ({"content": [{"User": "Hi", "AI": "Hi"}]}, "dialogue 0, turn 0 is neither"),
        ({"content": [{"User": None}]}, "dialogue 0, turn 0 has no text under `User`: give every utterance a text."),
        ({"content": [{"AI": 1, "AI Strategy": "Affirmation"}]}, "dialogue 0, turn 0 has no text under `AI`: "),
    ],
)
def test_a_broken_dialogue_is_named(item: Any, message: str, tmp_path: Path) -> None:
    path = write_items(tmp_path / "ExTES.json", [item])
    with pytest.raises(CorpusError) as error:
        read_corpus(path, "extes")
    assert str(error.value).startswith(f"{path}:1: {message}")
