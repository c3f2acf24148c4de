"""Chat messages, against DecoupledESC's own."""

import json
from pathlib import Path

import pytest

from esckit.conversation import Conversation, Turn
from esckit.corpora import read_corpus
from esckit.corpora.formats import conversation_to_messages
from esckit.errors import CorpusError

from .items import esconv_conversation, item, utterance


def test_a_dialogue_by_hand() -> None:
    source = item(dialog=[*item()["dialog"], utterance("seeker", "Since May.")])
    assert conversation_to_messages(esconv_conversation(source, 0), "Be kind.") == {
        "id": 7,
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "[Question] What brings you here?"},
            {"role": "user", "content": "My job."},
            {"role": "assistant", "content": "[Reflection of feelings] You sound worried."},
            {"role": "user", "content": " "},
            {"role": "assistant", "content": "[Question] Since when?"},
        ],
    }


def test_without_an_id_of_the_source_the_conversation_has_its_own_and_planned_turns_are_not_said() -> None:
    turns = [Turn("0", None, "supporter", "Hm."), Turn("1", "0", "supporter", None, "Question")]
    messages = conversation_to_messages(Conversation("c", turns), "S")
    assert messages["id"] == "c"
    assert [message["content"] for message in messages["messages"]] == ["S", "Hi", "Hm."]


def test_a_dialogue_without_a_supporter_is_refused() -> None:
    silent = Conversation("c", [Turn("0", None, "seeker", "Hello?")])
    with pytest.raises(CorpusError, match="conversation 'c' has no supporter turn to write: take it out"):
        conversation_to_messages(silent, "S")


@pytest.mark.corpus
@pytest.mark.parametrize(("part", "dialogues"), [("valid", 130), ("train", 1028)])
def test_all_dialogues_equal_those_of_the_paper_but_for_the_system_text(
    part: str, dialogues: int, data_dir: Path
) -> None:
    published = json.loads((data_dir / f"esconv/{part}_messages.json").read_text(encoding="utf-8"))
    ours = [conversation_to_messages(each, "S") for each in read_corpus(data_dir / f"esconv/{part}.json")]
    assert len(ours) == dialogues
    for mine, theirs in zip(ours, published, strict=True):
        assert theirs["messages"][0]["role"] == "system"
        assert mine["messages"][0] == {"role": "system", "content": "S"}
        assert (mine["id"], mine["messages"][1:]) == (theirs["id"], theirs["messages"][1:])
