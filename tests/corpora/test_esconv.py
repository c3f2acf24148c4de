"""ESConv into the tree and back, its errors, and the Hub's rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import Conversation, Preference, Turn
from esckit.corpora import read_corpus
from esckit.corpora.esconv import (
    conversation_to_esconv,
    hub_row_to_conversation,
    read_esconv_hub,
)
from esckit.errors import CorpusError

from .items import esconv_conversation, failed_item, item, utterance, write_items


def test_every_field_finds_its_place() -> None:
    conversation = esconv_conversation(item(), 3, file="train.json")
    assert (conversation.id, conversation.language, conversation.taxonomy) == ("esconv-7", "en", "esconv")
    assert conversation.situation == "I may lose my job."
    assert conversation.labels == {
        "experience_type": "Current Experience",
        "emotion_type": "anxiety",
        "problem_type": "job crisis",
    }
    assert conversation.provenance == {"corpus": "esconv", "file": "train.json", "licence": "CC-BY-NC-4.0"}
    assert conversation.extra == {"id": 7, "survey_score": item()["survey_score"], "seeker_question1": ""}
    assert conversation.turns == [
        Turn("0", None, "supporter", "What brings you here?", "Question"),
        Turn("1", "0", "seeker", " My job. \n"),
        Turn("2", "1", "supporter", "You sound worried.", "Reflection of feelings"),
        Turn("3", "2", "supporter", "Since when?", "Question"),
    ]


def test_without_an_id_the_position_names_the_conversation_and_no_id_is_invented() -> None:
    source = item()
    del source["id"]
    conversation = esconv_conversation(source, 3)
    assert conversation.id == "esconv-3"
    assert "id" not in conversation_to_esconv(conversation)


def test_labels_of_failed_esconv_are_mapped_and_restored() -> None:
    conversation = esconv_conversation(failed_item(), 0)
    assert conversation.id == "failed-esconv-0"
    assert [turn.speaker for turn in conversation.turns] == ["seeker", "supporter"]
    assert conversation.turns[0].extra == {"annotation": {"feedback": "2"}}
    assert conversation.turns[1].strategy == "Providing Suggestions"
    assert conversation.turns[1].extra == {"annotation": {"strategy": "Direct Guidance"}}
    assert conversation_to_esconv(conversation) == failed_item()


@pytest.mark.parametrize(
    ("alias", "label"),
    [
        ("Direct Guidance", "Providing Suggestions"),
        ("Approval and Reassurance", "Affirmation and Reassurance"),
        ("Restatement", "Restatement or Paraphrasing"),
        ("Questions", "Question"),
        ("Other", "Others"),
    ],
)
def test_each_alias_holds_in_failed_esconv_alone(alias: str, label: str) -> None:
    dialog = [utterance("listener", "Hm.", alias)]
    assert esconv_conversation(failed_item(dialog=dialog), 0).turns[0].strategy == label
    with pytest.raises(CorpusError, match=f"unknown strategy '{alias}'"):
        esconv_conversation(item(dialog=[utterance("supporter", "Hm.", alias)]), 0)


ODD_BUT_VALID: dict[str, dict[str, Any]] = {
    "only a dialogue": {"dialog": [utterance("seeker")]},
    "no annotation": {"dialog": [{"speaker": "seeker", "content": "Hello."}]},
    "null strategy": {"dialog": [{"speaker": "supporter", "content": "", "annotation": {"strategy": None}}]},
    "a supporter turn without a strategy": {"dialog": [utterance("supporter")]},
    "fields of an utterance": {"dialog": [{**utterance("seeker"), "time": 3, "id": "u1", "strategy": "none"}]},
    "fields of an annotation": {"dialog": [{**utterance("seeker"), "annotation": {"feedback": "5", "a": [1]}}]},
    "a strategy beside the annotation": {
        "dialog": [{"speaker": "supporter", "content": "Hm.", "strategy": "question", "annotation": {}}]
    },
    "a strategy without an annotation": {
        "dialog": [{"speaker": "supporter", "content": "Hm.", "strategy": ["Question", "Others"], "feedback": None}]
    },
    "null labels": item(situation=None, emotion_type=None, id="x-1"),
    "number as a label": item(problem_type=3),
    "empty texts": item(situation="", emotion_type=""),
    "awkward text": {"dialog": [utterance("seeker", "\u2028\x00 \U0001f642")]},
}


@pytest.mark.parametrize("source", ODD_BUT_VALID.values(), ids=ODD_BUT_VALID.keys())
def test_whatever_is_valid_comes_back_equal(source: dict[str, Any]) -> None:
    assert conversation_to_esconv(esconv_conversation(source, 0)) == source


def test_a_relabelled_turn_is_written_with_its_new_label() -> None:
    conversation = esconv_conversation(failed_item(), 0)
    first, second = conversation.turns
    changed = Conversation("c", [first, Turn("1", "0", "supporter", "Hm.", "Question", extra=second.extra)])
    assert conversation_to_esconv(changed)["dialog"][1]["annotation"] == {"strategy": "Question"}


def test_a_strategy_may_stand_beside_the_annotation() -> None:
    source = {"dialog": [{"speaker": "supporter", "content": "Hm.", "strategy": "Question"}]}
    (turn,) = esconv_conversation(source, 0).turns
    assert turn.strategy == "Question"
    changed = Conversation("c", [Turn("0", None, "supporter", "Hm.", "Others", extra=turn.extra)])
    assert conversation_to_esconv(changed)["dialog"] == [{**source["dialog"][0], "strategy": "Others"}]


BROKEN_ITEMS: dict[str, tuple[Any, str]] = {
    "no object": ("Hello", "dialogue 4 has no list `dialog` of utterances: add one, or remove the dialogue."),
    "no dialog": ({"id": 9}, "dialogue 4 (id 9) has no list `dialog` of utterances"),
    "empty dialog": ({"dialog": []}, "dialogue 4 has no list `dialog` of utterances"),
    "id": ({"id": [1], "dialog": [utterance("seeker")]}, "dialogue 4 (id [1]) has an id that is neither a number nor"),
    "no utterance": (
        {"dialog": ["Hi"]},
        "dialogue 4, turn 0 has no text under `content`: give every utterance a text.",
    ),
    "content": (
        item(dialog=[utterance("seeker"), {"speaker": "seeker", "content": 5}]),
        "dialogue 4 (id 7), turn 1 has",
    ),
    "speaker": (
        item(dialog=[utterance("nobody")]),
        "turn 0 has the unknown speaker 'nobody': use seeker or supporter.",
    ),
    "no speaker": ({"dialog": [{"content": "Hi"}]}, "turn 0 has the unknown speaker None: use seeker or supporter."),
    "mixed speakers": (
        failed_item(dialog=[utterance("speaker"), utterance("nobody")]),
        "turn 1 has the unknown speaker 'nobody': use speaker or listener.",
    ),
    "annotation": (
        {"dialog": [{"speaker": "seeker", "content": "Hi", "annotation": None}]},
        "turn 0 has an `annotation` that is no object: write {} where there is nothing to say.",
    ),
    "strategy": (
        item(dialog=[utterance("supporter", "Hi", "Advice")]),
        "turn 0 has the unknown strategy 'Advice': use one of Question, Restatement or Paraphrasing, Reflection of",
    ),
    "strategy that is no text": (
        {"dialog": [{"speaker": "supporter", "content": "Hi", "annotation": {"strategy": 3}}]},
        "turn 0 has the unknown strategy 3: use one of",
    ),
    "seeker with a strategy": (
        item(dialog=[utterance("seeker", "Hi", "Question")]),
        "turn '0': a seeker turn carries the strategy 'Question'",
    ),
    "half a character": (
        item(dialog=[utterance("seeker", "\ud800")]),
        "holds half a character or a number that is none",
    ),
    "not a number": (item(survey_score=float("nan")), "holds half a character or a number that is none"),
}


@pytest.mark.parametrize(("source", "message"), BROKEN_ITEMS.values(), ids=BROKEN_ITEMS.keys())
def test_a_broken_dialogue_is_named(source: Any, message: str, tmp_path: Path) -> None:
    path = write_items(tmp_path / "own.json", [*({"dialog": [utterance("seeker")]} for _ in range(4)), source])
    with pytest.raises(CorpusError) as error:
        read_corpus(path, "esconv")
    assert str(error.value).startswith(f"{path}:1: ")
    assert message in str(error.value)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[\n{"dialog": [{"speaker": "seeker", "content": "Hi"}]},\n{]',
            "own.json:3: not valid JSON (Expecting property name enclosed in double quotes): mend",
        ),
        ("{}", "own.json:1: dialogue 0 has no list `dialog` of utterances: add one, or remove the dialogue."),
        ("[]", "own.json has no supporter turn in 0 dialogues: "),
    ],
)
def test_a_broken_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError) as error:
        read_corpus(tmp_path / "own.json", "esconv")
    assert message in str(error.value)


def test_an_id_occurs_once(tmp_path: Path) -> None:
    path = write_items(tmp_path / "own.json", [item(), item()])
    with pytest.raises(CorpusError, match=r"own.json:1: conversation 'esconv-7' occurs twice; ids are unique in a fil"):
        read_corpus(path, "esconv")


@pytest.mark.parametrize(
    ("grow", "words"),
    [
        (lambda tree: tree.grow([Turn("m", "1", "supporter", "Hm.")]), "alternative turns or preferences"),
        (
            lambda tree: tree.grow([Turn("m", "1", "supporter", "Hm.")], [Preference("2", "m", "turn")]),
            "alternative turns or preferences",
        ),
        (lambda tree: tree.grow([Turn("m", "3", "supporter", None, "Question")]), "planned turns, scores or verdicts"),
        (lambda tree: tree.grow([Turn("m", "3", "seeker", "Hm.", scores={"v": 1.0})]), "planned turns, scores or ver"),
        (lambda _: Conversation("esconv-7", [], taxonomy="cso"), "strategies of the taxonomy 'cso'"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(grow: Callable[[Conversation], Conversation], words: str) -> None:
    with pytest.raises(CorpusError, match=f"conversation 'esconv-7' has {words}.*: write it as a tree"):
        conversation_to_esconv(grow(esconv_conversation(item(), 0)))


# -------------------------------------------------------------------------------------------------------------- the Hub

ROW = {
    "emotion_type": "anxiety",
    "situation": "I may lose my job.",
    "dialog": [
        {"text": "Hello good afternoon.", "speaker": "usr"},
        {"text": "Hi, good afternoon.", "speaker": "sys", "strategy": "Question"},
    ],
    "seeker_question1": "Yes.",
}


@pytest.mark.parametrize("line", [json.dumps(ROW), json.dumps({"text": json.dumps(ROW)})])
def test_a_row_of_the_hub_is_a_dialogue_or_holds_one_as_text(line: str) -> None:
    conversation = hub_row_to_conversation(line, 5, "valid")
    assert conversation.id == "esconv-hub-valid-4"
    assert conversation.provenance["file"] == "valid.txt"
    assert conversation.labels == {"emotion_type": "anxiety"}
    assert conversation.extra == {"seeker_question1": "Yes."}
    assert conversation.turns == [
        Turn("0", None, "seeker", "Hello good afternoon."),
        Turn("1", "0", "supporter", "Hi, good afternoon.", "Question"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "the row is no dialogue of the known form (JSONDecodeError"),
        ("[]", "the row is no dialogue of the known form (TypeError"),
        ('{"dialog": [{"text": "Hi"}]}', "the row is no dialogue of the known form (KeyError: 'speaker')"),
        ('{"dialog": [{"text": "Hi", "speaker": "nobody"}]}', "dialogue 4, turn 0 has the unknown speaker 'nobody'"),
    ],
)
def test_a_row_that_has_changed_is_named(line: str, message: str) -> None:
    with pytest.raises(CorpusError) as error:
        hub_row_to_conversation(line, 5, "valid")
    assert str(error.value).startswith(f"thu-coai/esconv valid.txt:5: {message}")


def test_the_hub_is_read_in_its_own_parts(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("valid", 2), ("test", 1)):
        (tmp_path / f"{part}.txt").write_text(f"{json.dumps(ROW)}\n" * count, encoding="utf-8")
    corpus = read_esconv_hub(lambda name: tmp_path / name)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (3, 2, 1)
    assert (corpus.name, corpus.licence) == ("esconv", "CC-BY-NC-4.0")


@pytest.mark.parametrize("failure", [ConnectionError("no route"), ImportError("no huggingface_hub")])
def test_a_hub_that_cannot_be_reached_is_one_sentence(failure: Exception) -> None:
    def download(name: str) -> Path:
        raise failure

    with pytest.raises(CorpusError) as error:
        read_esconv_hub(download)
    assert str(error.value) == (
        f"thu-coai/esconv cannot be fetched from the Hugging Face Hub ({type(failure).__name__}): "
        "install esckit[train] and go online, or give a local ESConv file as docs/corpora.md describes."
    )


# -------------------------------------------------------------------------------------------------------- the real data


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["esconv/train.json", "esconv/valid.json", "failed_esconv/FailedESConv.json"])
def test_every_published_dialogue_comes_back_equal(name: str, data_dir: Path) -> None:
    items = json.loads((data_dir / name).read_text(encoding="utf-8"))
    conversations = read_corpus(data_dir / name)
    assert [conversation_to_esconv(conversation) for conversation in conversations] == items
    for source, conversation in zip(items, conversations, strict=True):
        assert [turn.text for turn in conversation.trunk] == [entry["content"] for entry in source["dialog"]]
