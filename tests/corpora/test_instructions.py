"""General instructions: the 60 that are shipped, and users' files in the forms that people have."""

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation.turn_rule import Message
from esckit.corpora import load_corpus
from esckit.corpora.instructions import OWN, hash_instructions, read_instructions
from esckit.errors import CorpusError
from esckit.files import hash_file

FOLDER = files("esckit.corpora.instructions")
CHAT = [Message("user", "Name a tree."), Message("assistant", "Oak.")]
SUPPORT = "depress|anxi|therap|lonel|grief|suicid|counsel|stress|sorry to hear|feeling"


def write(folder: Path, value: Any, name: str = "replay.json") -> str:
    (folder / name).write_text(json.dumps(value), encoding="utf-8")
    return str(folder / name)


def runs(text: str, length: int = 8) -> Iterator[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return zip(*(words[start:] for start in range(length)), strict=False)


def test_ours_are_60_different_chats_and_none_is_about_support() -> None:
    chats, unusable = read_instructions(OWN)
    assert (len(chats), unusable) == (60, 0)
    asked = [message.content for chat in chats for message in chat if message.role == "user"]
    assert len(set(asked)) == len(asked)
    texts = [message.content for chat in chats for message in chat]
    assert [text for text in texts if re.search(SUPPORT, text, re.IGNORECASE)] == []
    starter = {run for tree in load_corpus("starter").train for turn in tree.turns for run in runs(turn.text or "")}
    assert starter.isdisjoint(run for text in texts for run in runs(text))
    assert {chat[0].role for chat in chats} == {"system", "user"}
    assert max(map(len, chats)) > 2


def test_licence_and_data_card_are_shipped_and_the_card_counts_right() -> None:
    assert "CC0 1.0 Universal" in (FOLDER / "LICENSE").read_text(encoding="utf-8")
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert sum(int(count) for count in re.findall(r"\| (\d+) \|", card)) == 60
    assert hash_instructions(OWN) == hash_file(Path(str(FOLDER / "instructions.jsonl")))


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "Name a tree."}, {"role": "assistant", "content": "Oak."}]},
        {"conversations": [{"from": "human", "value": "Name a tree."}, {"from": "gpt", "value": "Oak."}]},
        {"instruction": "Name a tree.", "input": "", "output": "Oak."},
        {"instruction": "Name a tree.", "output": "Oak."},
        {"instruction": "Name a tree.", "output": "Oak.", "history": None},
        [{"role": "user", "content": "Name a tree."}, {"role": "assistant", "content": "Oak."}],
    ],
)
def test_the_forms_of_chats(record: Any, tmp_path: Path) -> None:
    assert read_instructions(write(tmp_path, [record, record])).chats == [CHAT, CHAT]
    lines = tmp_path / "replay.jsonl"
    lines.write_text(f"{json.dumps(record)}\n" * 3, encoding="utf-8")
    assert read_instructions(str(lines)).chats == [CHAT] * 3


def test_an_input_a_history_and_a_system_text_are_read(tmp_path: Path) -> None:
    row = {
        "instruction": "Sort.",
        "input": "b, a",
        "output": "a, b",
        "system": "Be brief.",
        "history": [["Hi", "Hello"]],
    }
    (chat,) = read_instructions(write(tmp_path, [row])).chats
    assert chat == [
        Message("system", "Be brief."),
        *(Message("user", "Hi"), Message("assistant", "Hello")),
        *(Message("user", "Sort.\nb, a"), Message("assistant", "a, b")),
    ]


def test_chats_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    good = {"instruction": "Name a tree.", "output": "Oak."}
    empty = {"instruction": "Name a tree.", "output": " "}
    unanswered = {"messages": [{"role": "user", "content": "Hi"}]}
    twice = {
        "messages": [*unanswered["messages"], {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "A"}]
    }
    stranger = {"messages": [{"role": "user", "content": "Hi"}, {"role": "tool", "content": "A"}]}
    found = read_instructions(write(tmp_path, [empty, good, unanswered, twice, stranger]))
    assert found == ([CHAT], 4)
    with pytest.raises(CorpusError, match=r"has no messages to replay \(of its 2 chats each has an empty text"):
        read_instructions(write(tmp_path, [empty, unanswered]))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"question": "2 + 2?", "answer": "4"}]', "no messages to replay; it has question, answer: give messages"),
        ('{"text": "Once upon a time"}\n{"text": "b"}\n', "no messages to replay; it has text: give messages"),
        ("[]", r"has no messages to replay \(it is empty\): give messages, ShareGPT's conv"),
        ("", "no messages to replay"),
        ('{"messages": [}\n{"messages": []}\n', "not valid JSON"),
        ("Once upon a time", "this line is no JSON"),
    ],
)
def test_a_file_without_messages_is_refused_in_one_sentence(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "replay.json").write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError, match=told) as error:
        read_instructions(str(tmp_path / "replay.json"))
    assert str(error.value).startswith(str(tmp_path / "replay.json"))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nothing\.json"):
        read_instructions(str(tmp_path / "nothing.json"))
