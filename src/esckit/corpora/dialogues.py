"""Dialogues in any of the field's common forms (`forms`) into the tree, and what is known of the corpora in them.

Read are the utterances, in order and verbatim. Taken off, and kept in the turn's ``extra``: a strategy in brackets at
the beginning of a chat model's reply (``label``), and a speaker's mark before a line (``mark``). A blank user message,
which chat models need between two replies, is nobody's turn; the next turn's ``extra`` has it (``filler``). System
texts stand in the conversation's ``extra``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from esckit.conversation import Conversation
from esckit.corpora.forms import FORMS, Said, form_of, told_fields
from esckit.corpora.labels import LABELS_READ, NO_MAP, LabelMap, ReadLabel, UnknownLabelError, read_label
from esckit.corpora.records import Dialogue, Reading, dialogue_name
from esckit.corpora.scripts import language_of
from esckit.corpora.speakers import role_of
from esckit.strategy import ESCONV, Taxonomy


@dataclass(frozen=True)
class Source:
    """What is known of a corpus beside its form.

    Attributes:
        forms: those that it is published in; a file in none of them is told apart as the first.
        licence: as its authors state it, where that is known here.
        language: None takes what the script shows.
    """

    forms: tuple[str, ...]
    licence: str = "unknown"
    language: str | None = None


SOURCES: Final[Mapping[str, Source]] = {
    "cpsycoun": Source(("dialog", "rows", "marked", "alpaca", "list", "messages"), "CC-BY-4.0", "zh"),
    "smile": Source(("dialog", "rows", "list", "messages"), "CC0-1.0", "zh"),
    "soulchat": Source(("messages", "sharegpt"), language="zh"),
    "emollm": Source(("emollm",)),
    "augesc": Source(("pairs",)),
    "escot": Source(("escot",)),
    "psyqa": Source(("psyqa",), language="zh"),
    "messages": Source(("messages", "list")),
    "sharegpt": Source(("sharegpt",)),
    "marked_lines": Source(("marked",)),
}
"""Corpora and general forms by the name of their format."""

_LABEL: Final = re.compile(r"\s*[\[【]([^\[\]【】\n]{1,60})[\]】]\s*")
_NAMES: Final = "seeker, user, client or supporter, assistant, counselor"


def read_dialogue(item: Any, position: int | str, file: str = "", labels: LabelMap = NO_MAP, *, corpus: str) -> Reading:
    """Read one dialogue of a corpus of ``SOURCES`` (`records`); without an ``id`` its position or name names it."""
    source = SOURCES[corpus]
    dialogue = Dialogue(dialogue_name(item, position))
    found = next((form for form in source.forms if FORMS[form].shows(item)), None)
    if found is None:
        return _formless(dialogue, item, source, corpus)
    form = FORMS[found]
    if not dialogue.allowed(item):
        return Reading(None, dialogue.problems)
    reader = _Reader(dialogue, labels, labels.taxonomy(ESCONV), chat=form.chat)
    for index, said in enumerate(form.said(item)):
        reader.read(index, said)
    if found == "psyqa":
        dialogue.turns = [turn if turn.parent is None else replace(turn, parent="0") for turn in dialogue.turns]
    fields = item if isinstance(item, dict) else {}
    topic = fields.get("topic")
    kinds = {"topic": topic} if isinstance(topic, str) else {}
    own = fields.get("id", fields.get("questionID", position))
    conversation = Conversation(
        id="-".join([corpus, *kinds.values(), str(own)]),
        turns=dialogue.turns,
        language=source.language or language_of(dialogue.turns),
        taxonomy=reader.taxonomy.name if reader.labelled else None,
        labels=kinds,
        provenance={"corpus": corpus, "file": file, "licence": source.licence},
        extra={**{k: v for k, v in fields.items() if k not in (*form.own, *kinds)}, **reader.system()},
    )
    return dialogue.reading(conversation)


def _formless(dialogue: Dialogue, item: Any, source: Source, corpus: str) -> Reading:
    """What is missing for the corpus's first form, or which form the record has instead."""
    known = form_of(item)
    if source.forms[0] == "dialog" and known is None:
        dialogue.entries(item, "dialog")
    if not dialogue.problems:
        has = f"the form {known!r}" if known else told_fields(item)
        dialogue.problem("record", f"is not in a form of {corpus} (it has {has}): name the format that it has.")
    return Reading(None, dialogue.problems)


class _Reader:
    """Adds utterances to a dialogue; ``labelled`` where one of them carries a strategy."""

    def __init__(self, dialogue: Dialogue, labels: LabelMap, taxonomy: Taxonomy, *, chat: bool) -> None:
        self.dialogue, self.labels, self.taxonomy, self.chat = dialogue, labels, taxonomy, chat
        self.labelled = False
        self._filler: str | None = None
        self._system: list[dict[str, Any]] = []

    def read(self, index: int, said: Said) -> None:
        text = self._text(said.text, index)
        role = role_of(said.who)
        if text is None:
            return
        if role is None:
            has = "names no speaker" if said.who is None else f"has the unknown speaker {said.who!r}"
            self.dialogue.problem("speaker", f"{has}: use {_NAMES} (docs/corpora.md lists all).", index)
        elif role == "system":
            self._system.append({"turn": index, "text": text})
        elif self.chat and role == "seeker" and not text.strip():
            self._filler = text
        else:
            extra = dict(said.rest)
            if self._filler is not None:
                extra["filler"], self._filler = self._filler, None
            text, read = self._strategy(text, extra, index) if role == "supporter" else (text, ReadLabel(None))
            if read.labels is not None:
                extra[LABELS_READ] = read.labels
            self.labelled |= read.strategy is not None
            self.dialogue.add(index, role, text, read.strategy, extra)

    def system(self) -> dict[str, Any]:
        """The system text, where there is one before all turns, else each with its place; and a blank last message."""
        end = {} if self._filler is None else {"filler": self._filler}
        if [each["turn"] for each in self._system] == [0]:
            return {"system": self._system[0]["text"], **end}
        return {"system": self._system, **end} if self._system else end

    def _text(self, text: Any, index: int) -> str | None:
        """A text, or the texts of a list of parts; None, and a problem, where there is something else."""
        if isinstance(text, str):
            return text
        if isinstance(text, list) and text:
            parts = [each.get("text") if isinstance(each, dict) else each for each in text]
            words = [part for part in parts if isinstance(part, str)]
            if len(words) == len(parts):
                return "\n".join(words)
            self.dialogue.problem("content", "has a part that is no text: only words can be read, take it out.", index)
            return None
        self.dialogue.problem("content", "has no text: give every utterance a text with its speaker.", index)
        return None

    def _strategy(self, text: str, extra: dict[str, Any], index: int) -> tuple[str, ReadLabel]:
        """A supporter's strategy: of a field, or of a mark in brackets, which is taken off the text."""
        annotation = extra.get("annotation")
        written = extra.get("strategy", annotation.get("strategy") if isinstance(annotation, dict) else None)
        if written is not None:
            return text, self.dialogue.label(written, index, self.taxonomy, self.labels)
        mark = _LABEL.match(text) if self.chat else None
        if mark:
            try:
                read = read_label(mark[1], self.taxonomy, self.labels)
            except UnknownLabelError:  # something in brackets that is no strategy is part of what was said
                return text, ReadLabel(None)
            extra["label"] = mark[0]
            return text[mark.end() :], read
        return text, ReadLabel(None)
