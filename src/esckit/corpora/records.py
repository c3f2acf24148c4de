"""What the formats share to make a conversation of a record: a dialogue that is being read, and what became of it.

Each format's reader takes a record's value (`source_files`), its position in the file from 0 or its own name, the
file's name without folders for the provenance, and a map of labels; it returns a `Reading`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from esckit.conversation import Conversation, Problem, Speaker, Turn, conversation_problems
from esckit.corpora.labels import ADVICE, LABELS_READ, NO_MAP, LabelMap, ReadLabel, UnknownLabelError, read_label
from esckit.corpora.speakers import speaker_of
from esckit.strategy import ESCONV, TAXONOMIES, Taxonomy


class Reading(NamedTuple):
    """What became of a record.

    Attributes:
        conversation: None where nothing could be read, or where the dialogue is dropped. Where there are problems, it
            holds what could be read (a label that is unknown is left out), good enough to look for more.
        problems: for each of these, strict reading would have stopped.
        dropped: why the dialogue is left out on purpose, by the rules of its format; empty where it is not.
        unknown: the labels of strategies that nobody knows, as written; each has its problem too.
    """

    conversation: Conversation | None
    problems: Sequence[Problem] = ()
    dropped: Sequence[Problem] = ()
    unknown: Sequence[str] = ()


def dialogue_name(item: Any, position: int | str) -> str:
    """What a dialogue is called in problems: its place in the file from 0 or its own name, and its id if it has one."""
    named = f" (id {item['id']!r})" if isinstance(item, dict) and "id" in item else ""
    return f"dialogue {position}{named}"


class Dialogue:
    """A dialogue that is being read: its turns so far, and what is wrong with it; ``where`` is its name in problems."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.turns: list[Turn] = []
        self.problems: list[Problem] = []
        self.unknown: list[str] = []

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
        self.allowed(item)
        return entries

    def allowed(self, item: Any) -> bool:
        """Whether the record can be written again as UTF-8 JSON and has a usable id; else a problem is noted."""
        if isinstance(item, dict) and not isinstance(item.get("id", 0), int | str):
            self.problem("id", "has an id that is neither a number nor a text: give it one, or leave it out.")
        try:  # what JSON can spell and no UTF-8 file can hold
            json.dumps(item, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, TypeError) as error:
            self.problem("record", f"holds half a character or a number that is none ({error}): mend it.")
        return not self.problems

    def text(self, entry: Any, key: str, index: int) -> str:
        """The text of an entry; empty, and a problem, where it is none."""
        text = entry.get(key) if isinstance(entry, dict) else None
        if isinstance(text, str):
            return text
        self.problem("content", f"has no text under `{key}`: give every utterance a text.", index)
        return ""

    def speaker(self, entry: Any, speakers: Mapping[str, Speaker], index: int) -> Speaker | None:
        """Who speaks: by the format's own names, else by `speakers.ROLES`; None, and a problem, where neither knows."""
        name = entry.get("speaker") if isinstance(entry, dict) else None
        known = speakers.get(name) or speaker_of(name) if isinstance(name, str) else None
        if known is None and isinstance(entry, dict):
            self.problem("speaker", f"has the unknown speaker {name!r}: use {' or '.join(speakers)}.", index)
        return known

    def label(
        self,
        written: Any,
        index: int,
        taxonomy: Taxonomy,
        mapped: LabelMap = NO_MAP,
        aliases: Mapping[str, str] | None = None,
    ) -> ReadLabel:
        """A strategy as written, read (`labels.read_label`); none, and a problem, where it is unknown."""
        try:
            return read_label(written, taxonomy, mapped, aliases)
        except UnknownLabelError as error:
            self.unknown.append(str(error))
            known = ", ".join(taxonomy.labels)
            self.problem("label", f"has the unknown strategy {error}: use one of {known}, {ADVICE}.", index)
            return ReadLabel(None)

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
        return Reading(None if dropped else conversation, problems, dropped, self.unknown)


def relabelled(conversation: Conversation, mapped: LabelMap) -> tuple[Conversation, list[str]]:
    """A tree whose labels are read as those of other formats are, and the labels that are unknown, left as they are.

    A label that is written otherwise goes to its turn's ``extra``.
    """
    default = TAXONOMIES.get(conversation.taxonomy or "")
    if default is None and not mapped.labels:
        return conversation, []
    taxonomy = mapped.taxonomy(default or ESCONV)
    turns, unknown = [], []
    for turn in conversation.turns:
        try:
            read = ReadLabel(turn.strategy)
            if turn.speaker == "supporter" and (mapped.labels or turn.strategy not in taxonomy.labels):
                read = read_label(turn.strategy, taxonomy, mapped)
        except UnknownLabelError as error:
            unknown.append(str(error))
        kept: dict[str, Any] = {} if read.strategy == turn.strategy else {"strategy": turn.strategy}
        kept |= {} if read.labels is None else {LABELS_READ: read.labels}
        turns.append(replace(turn, strategy=read.strategy, extra={**kept, **turn.extra}) if kept else turn)
    return replace(conversation, turns=turns, taxonomy=taxonomy.name), unknown
