"""The file formats that dialogues are read from and written to."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from esckit.conversation import Conversation, Problem, conversation_problems, validate_conversation, write_conversations
from esckit.conversation.turn_rule import dialogue_messages
from esckit.corpora.annomi import annomi_records, read_annomi_transcript
from esckit.corpora.detecting import detect_format
from esckit.corpora.dialogues import SOURCES, read_dialogue
from esckit.corpora.encodings import lines_of
from esckit.corpora.esconv import conversation_to_esconv, read_esconv_item
from esckit.corpora.extes import read_extes_item
from esckit.corpora.labels import ADVICE, NO_MAP, LabelMap, as_label_map, told_unknown
from esckit.corpora.records import Reading, relabelled
from esckit.corpora.source_files import Record, dialogue_records, text_lines
from esckit.errors import CorpusError
from esckit.files import atomic_write


@dataclass(frozen=True)
class Format:
    """How a corpus is read and written.

    Attributes:
        records: takes a file apart into records.
        read: makes a conversation of a record, its place in the file (from 0, or its own name), the file's name and a
            map of labels.
        write: makes a record of a conversation again; None where the format is only read.
        alternates: the corpus promises that seeker and supporter take turns.
        all_labelled: it promises a strategy for every reply, where it has strategies.
    """

    records: Callable[[Path], Iterator[Record]]
    read: Callable[[Any, int | str, str, LabelMap], Reading]
    write: Callable[[Conversation], dict[str, Any]] | None = None
    alternates: bool = False
    all_labelled: bool = True


def _tree_records(path: Path) -> Iterator[Record]:
    """The lines of a file of trees; the items of one that was saved as a list."""
    if next((line.lstrip() for _, line in lines_of(path) if line.strip()), "")[:1] != "[":
        return text_lines(path)
    return (
        replace(record, value=json.dumps(record.value, ensure_ascii=False)) if record.problem is None else record
        for record in dialogue_records(path)
    )


def _read_tree(line: str, position: int | str, file: str = "", labels: LabelMap = NO_MAP) -> Reading:
    found = validate_conversation(line)
    if not isinstance(found, Conversation):
        return Reading(None, found)
    found, unknown = relabelled(found, labels)
    problems = list(conversation_problems(found))
    walkable = all(problem.kind == "label" for problem in problems)
    return Reading(found if walkable else None, problems, unknown=unknown)


FORMATS: Final[Mapping[str, Format]] = {
    "tree": Format(_tree_records, _read_tree),
    "esconv": Format(dialogue_records, read_esconv_item, conversation_to_esconv),
    "failed_esconv": Format(dialogue_records, read_esconv_item, conversation_to_esconv),
    "extes": Format(dialogue_records, read_extes_item, alternates=True),
    "annomi": Format(annomi_records, read_annomi_transcript),
    **{
        name: Format(
            dialogue_records,
            partial(read_dialogue, corpus=name),
            alternates=name in ("cpsycoun", "smile"),
            all_labelled=name != "escot",
        )
        for name in SOURCES
    },
}


def read_corpus(
    path: Path | str, format: str | None = None, *, labels: Path | str | LabelMap | None = None
) -> list[Conversation]:
    """Read a file of dialogues in one of ``FORMATS``; where none is named, what its dialogues look like tells which.

    Where dialogues are left out by the rules of the format (ExTES), ``provenance["dropped"]`` of each conversation
    counts them: ``{"dialogues": n, reason: replies, ...}``.

    Args:
        path: the file, or a folder of such files.
        format: of ``FORMATS``.
        labels: a map of labels or its path (`labels.read_label_map`).

    Raises:
        CorpusError: one sentence that names the file and the place, or says that the format is none of ours.
    """
    path = Path(path)
    conversations: dict[str, Conversation] = {}
    dropped: Counter[str] = Counter()
    unknown = _UnknownLabels(path)
    for line, reading in read_records(path, find_format(path, format), as_label_map(labels)):
        for problem in reading.problems:
            if problem.kind != "label" or not reading.unknown:
                raise CorpusError(f"{path}:{line}: {problem.text}")
            unknown.first = unknown.first or f"{path}:{line}: {problem.text}"
        unknown.counts.update(reading.unknown)
        if reading.dropped:
            dropped.update(["dialogues", *(reason.kind for reason in reading.dropped)])
        elif reading.conversation is not None:
            if reading.conversation.id in conversations:
                raise CorpusError(
                    f"{path}:{line}: conversation {reading.conversation.id!r} occurs twice; ids are unique in a file."
                )
            conversations[reading.conversation.id] = reading.conversation
    unknown.refuse()
    if not any(turn.speaker == "supporter" for tree in conversations.values() for turn in tree.turns):
        raise CorpusError(
            f"{path} has no supporter turn in {len(conversations)} dialogues: there is nothing to learn or measure, "
            "so check the speaker names, or give another file."
        )
    if not dropped:
        return list(conversations.values())
    return [replace(tree, provenance={**tree.provenance, "dropped": dict(dropped)}) for tree in conversations.values()]


@dataclass
class _UnknownLabels:
    """The labels of a file that nobody knows: all are counted before the first is complained about."""

    path: Path
    first: str | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def refuse(self) -> None:
        if self.first is not None:
            advice = "" if ADVICE in self.first else f", {ADVICE}"
            told = f"{self.first.removesuffix('.')}{advice}"
            raise CorpusError(f"{told}; unknown in this file: {told_unknown(self.counts)}.")


def read_records(path: Path, format: str, labels: LabelMap = NO_MAP) -> Iterator[tuple[int, Reading]]:
    """Yield each record's line and what became of it; a record that is none is a problem like others.

    Raises:
        CorpusError: the file cannot be read at all.
    """
    for position, record in enumerate(FORMATS[format].records(path)):
        if record.problem is not None:
            yield record.line, Reading(None, [Problem("record", record.problem)])
        else:
            own = position if record.name is None else record.name
            yield record.line, FORMATS[format].read(record.value, own, path.name, labels)


def has_own_id(conversation: Conversation, format: str) -> bool:
    """Whether the file says the conversation's id; else its place in the file does, and it is unique there alone."""
    return format in ("tree", "annomi") or any(key in conversation.extra for key in ("id", "questionID"))


def write_corpus(path: Path | str, conversations: Iterable[Conversation], format: str = "tree") -> None:
    """Write conversations as trees, or in another of ``FORMATS`` that esckit writes, atomically.

    Raises:
        CorpusError: a conversation does not fit into the format, or the format is only read.
        EsckitError: the file cannot be written.
    """
    path = Path(path)
    if format == "tree":
        write_conversations(path, conversations)
        return
    write = FORMATS[_known(format)].write
    if write is None:
        raise CorpusError(f"esckit reads the format {format!r} and does not write it: write tree.")
    write_list(path, map(write, conversations))


def write_list(path: Path, items: Iterable[Any]) -> None:
    """Write one JSON list, an item a line, atomically."""
    with atomic_write(path) as file:
        before = "[\n"
        for item in items:
            file.write(before + json.dumps(item, ensure_ascii=False, allow_nan=False))
            before = ",\n"
        file.write("\n]\n" if before == ",\n" else "[]\n")


def conversation_to_messages(conversation: Conversation, system: str) -> dict[str, Any]:
    """Return ``{"id", "messages": [{"role", "content"}]}`` as DecoupledESC trains on: written, never read back.

    Raises:
        CorpusError: no supporter speaks.
    """
    messages = dialogue_messages(conversation)
    if not messages:
        raise CorpusError(f"conversation {conversation.id!r} has no supporter turn to write: take it out.")
    spoken = [{"role": message.role, "content": message.content} for message in messages]
    own_id = conversation.extra.get("id", conversation.id)
    return {"id": own_id, "messages": [{"role": "system", "content": system}, *spoken]}


def find_format(path: Path, format: str | None = None) -> str:
    """The format that was asked for, or else the one that the file's dialogues show (`detecting`).

    Raises:
        CorpusError: it is none of ours, or it could be two of them.
    """
    if format is not None:
        return _known(format)
    return detect_format(path, tuple(FORMATS))


def _known(format: str) -> str:
    if format not in FORMATS:
        raise CorpusError(f"the corpus format {format!r} is unknown: use one of {', '.join(FORMATS)}.")
    return format
