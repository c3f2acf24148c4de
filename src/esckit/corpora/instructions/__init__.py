"""General instructions, replayed so that a model keeps what it can do besides support; ours, or a user's file.

A file is JSON Lines, a JSON list or whatever else `source_files` takes apart, of chat messages (``messages``), of
ShareGPT's ``conversations``, or of Alpaca's rows (``instruction``, ``input``, ``output``). README.md is the data card
of our 60.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final, NamedTuple

from esckit.conversation.turn_rule import Message
from esckit.corpora.forms import FORMS, Said, form_of, told_fields
from esckit.corpora.source_files import dialogue_records
from esckit.corpora.speakers import Role, role_of
from esckit.errors import CorpusError
from esckit.files import hash_file

__all__ = ["LICENCE", "OWN", "Instructions", "hash_instructions", "read_instructions"]

LICENCE: Final = "CC0-1.0"
OWN: Final = "own"
"""Stands for the 60 that are shipped; a user's file of this name is ``./own``."""

_ROLES: Final[Mapping[Role, str]] = {"system": "system", "seeker": "user", "supporter": "assistant"}
_FIELDS: Final = "messages, ShareGPT's conversations, or Alpaca's instruction, input and output"


class Instructions(NamedTuple):
    """Chats, each of a system message or none and then user and assistant in turn; blanks at the ends are taken off.

    ``unusable`` is how many more the file has that are not so: no reply, an empty text, two users in a row.
    """

    chats: list[list[Message]]
    unusable: int


def read_instructions(source: str) -> Instructions:
    """Read a user's file, or ours for ``own``.

    Raises:
        CorpusError: it cannot be read, has records that are no chats, or no chat that can be used.
    """
    chats, unusable = [], 0
    with _file(source) as path:
        for record in dialogue_records(path):
            if record.problem is not None:
                raise CorpusError(f"{path}:{record.line}: {record.problem}")
            said = _said(record.value)
            if said is None:
                has = told_fields(record.value)
                raise CorpusError(
                    f"{path}:{record.line}: there are no messages to replay; it has {has}: give {_FIELDS}."
                )
            chat = _chat(said)
            chats += [chat] if chat else []
            unusable += not chat
    if not chats:
        why = f"of its {unusable} chats each has an empty text, or speakers out of turn" if unusable else "it is empty"
        raise CorpusError(f"{source} has no messages to replay ({why}): give {_FIELDS}.")
    return Instructions(chats, unusable)


def hash_instructions(source: str) -> str:
    """SHA-256 of the file that `read_instructions` reads."""
    with _file(source) as path:
        return hash_file(path)


@contextmanager
def _file(source: str) -> Iterator[Path]:
    if source != OWN:
        yield Path(source)
        return
    with as_file(files(__name__) / "instructions.jsonl") as path:
        yield path


def _said(value: Any) -> Iterator[Said] | None:
    """What is said in a record; None where it has none of the forms of chats."""
    if isinstance(value, dict) and {"instruction", "output"} <= value.keys():
        value = {**value, "history": value.get("history") or []}
    form = FORMS.get(form_of(value) or "")
    return form.said(value) if form and form.chat else None


def _chat(said: Iterator[Said]) -> list[Message]:
    """The messages; none where they cannot be used."""
    chat = []
    for each in said:
        role = role_of(each.who)
        if role is None or not isinstance(each.text, str) or not each.text.strip():
            return []
        chat.append(Message(_ROLES[role], each.text.strip()))
    spoken = [message.role for message in (chat[1:] if chat and chat[0].role == "system" else chat)]
    return chat if spoken and spoken == ["user", "assistant"] * (len(spoken) // 2) else []
