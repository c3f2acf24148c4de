"""From one record of a source to a conversation, with everything that is wrong with it: what the formats share.

Each format's reader takes a record, its position in the file from 0, and the file's name without folders, for the
provenance; it returns a `Reading`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from esckit.conversation import Conversation, Problem, Speaker, Turn, conversation_problems

__all__ = ["Dialogue", "Reading", "dialogue_name"]


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
    """A dialogue that is being read: its turns so far, and what is wrong with it.

    Attributes:
        where: names the dialogue in problems.
    """

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
