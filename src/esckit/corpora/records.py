"""A source file taken apart into records, and what the formats share to make a conversation of one.

A record that cannot be read says why and does not hide those after it. Each format's reader takes a record, its
position in the file from 0, and the file's name without folders, for the provenance; it returns a `Reading`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from esckit.conversation import Conversation, Problem, Speaker, Turn, conversation_problems
from esckit.files import after_space, decode_json, decode_json_at, read_lines, read_text

_NOT_A_LIST: Final = "this is no list of dialogues: the file should be one JSON list with an object a dialogue."


@dataclass(frozen=True, slots=True)
class Record:
    """One dialogue as it stands in a file: the line where it begins, and its value or why there is none."""

    line: int
    value: Any = None
    problem: str | None = None


def text_lines(path: Path) -> Iterator[Record]:
    """Yield the lines of a file that hold more than white space."""
    for number, line in read_lines(path, what="a dialogue file (JSON Lines)"):
        if line.strip():
            yield Record(number, line)


def json_lines(path: Path) -> Iterator[Record]:
    """Yield the values of a JSON Lines file."""
    for record in text_lines(path):
        try:
            yield Record(record.line, decode_json(record.value))
        except json.JSONDecodeError as error:
            yield Record(record.line, problem=_json_problem(error))


def json_list(path: Path) -> Iterator[Record]:
    """Yield the items of one JSON list; after one that is no JSON, go on at the next line that begins with ``{``."""
    text = read_text(path, what="a dialogue file (a JSON list)")
    at, line, counted = after_space(text, 0), 1, 0
    if text[at : at + 1] != "[":
        yield Record(1, problem=_NOT_A_LIST)
        return
    at = after_space(text, at + 1)
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = decode_json_at(text, at)
            yield Record(line, value)
            at = _after_comma(text, end)
        except json.JSONDecodeError as error:
            yield Record(error.lineno, problem=_json_problem(error))
            at = text.find("\n{", at) + 1
            if not at:
                return
    if text[at + 1 :].strip():
        yield Record(line, problem="there is text after the end of the list: remove it.")


def _json_problem(error: json.JSONDecodeError) -> str:
    return f"not valid JSON ({error.msg}): mend that line."


def _after_comma(text: str, at: int) -> int:
    """Where the next item or the list's end stands, ``at`` being the end of an item."""
    at = after_space(text, at)
    if text[at : at + 1] == "]":
        return at
    after = after_space(text, at + 1)
    if text[at : at + 1] != ",":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    if text[after : after + 1] == "]":
        raise json.JSONDecodeError("Expecting value", text, after)
    return after


class Reading(NamedTuple):
    """What became of a record.

    Attributes:
        conversation: None where nothing could be read, or where the dialogue is dropped. Where there are problems, it
            holds what could be read (a label that is unknown is left out), good enough to look for more.
        problems: for each of these, strict reading would have stopped.
        dropped: why the dialogue is left out on purpose, by the rules of its format; empty where it is not.
    """

    conversation: Conversation | None
    problems: Sequence[Problem] = ()
    dropped: Sequence[Problem] = ()


def dialogue_name(item: Any, position: int) -> str:
    """What a dialogue is called in problems: its place in the file from 0, and its id where it has one."""
    named = f" (id {item['id']!r})" if isinstance(item, dict) and "id" in item else ""
    return f"dialogue {position}{named}"


class Dialogue:
    """A dialogue that is being read: its turns so far, and what is wrong with it; ``where`` is its name in problems."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.turns: list[Turn] = []
        self.problems: list[Problem] = []

    def problem(self, kind: str, text: str, turn: int | None = None) -> None:
        """Note a problem; ``text`` goes on after the dialogue's (and the turn's) name."""
        self.problems.append(self.named(kind, text, turn))

    def named(self, kind: str, text: str, turn: int | None = None) -> Problem:
        """A problem of this dialogue that is not noted."""
        place = self.where if turn is None else f"{self.where}, turn {turn}"
        return Problem(kind, f"{place} {text}", None if turn is None else str(turn))

    def entries(self, item: Any, key: str) -> list[Any]:
        """The dialogue's entries; none, and a problem, where there is no list of them."""
        entries = item.get(key) if isinstance(item, dict) else None
        if not isinstance(entries, list) or not entries:
            self.problem("record", f"has no list `{key}` of utterances: add one, or remove the dialogue.")
            return []
        if not isinstance(item.get("id", 0), int | str):
            self.problem("id", "has an id that is neither a number nor a text: give it one, or leave it out.")
        try:  # what JSON can spell and no UTF-8 file can hold
            json.dumps(item, ensure_ascii=False, allow_nan=False).encode()
        except ValueError as error:
            self.problem("record", f"holds half a character or a number that is none ({error}): mend it.")
        return entries

    def text(self, entry: Any, key: str, index: int) -> str:
        """The text of an entry; empty, and a problem, where it is none."""
        text = entry.get(key) if isinstance(entry, dict) else None
        if isinstance(text, str):
            return text
        self.problem("content", f"has no text under `{key}`: give every utterance a text.", index)
        return ""

    def speaker(self, entry: Any, speakers: Mapping[str, Speaker], index: int) -> Speaker | None:
        """Who speaks; None, and a problem, where the name is none of ``speakers``."""
        name = entry.get("speaker") if isinstance(entry, dict) else None
        if isinstance(name, str) and name in speakers:
            return speakers[name]
        if isinstance(entry, dict):
            self.problem("speaker", f"has the unknown speaker {name!r}: use {' or '.join(speakers)}.", index)
        return None

    def add(
        self,
        index: int,
        speaker: Speaker | None,
        text: str,
        strategy: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """Add a turn behind the last one; nothing where the speaker is unknown."""
        if speaker is not None:
            parent = self.turns[-1].id if self.turns else None
            self.turns.append(Turn(str(index), parent, speaker, text, strategy, extra=extra or {}))

    def reading(self, conversation: Conversation, dropped: Sequence[Problem] = ()) -> Reading:
        """The outcome, the rules of the tree included."""
        problems = [*self.problems, *conversation_problems(conversation)]
        return Reading(None if dropped else conversation, problems, dropped)
