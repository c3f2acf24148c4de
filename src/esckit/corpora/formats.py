"""The file formats that dialogues are read from and written to."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from esckit.conversation import Conversation, Problem, conversation_problems, validate_conversation, write_conversations
from esckit.conversation.turn_rule import dialogue_messages
from esckit.corpora.annomi import annomi_records, read_annomi_transcript
from esckit.corpora.esconv import conversation_to_esconv, read_esconv_item
from esckit.corpora.model_written import read_counselling_item, read_extes_item
from esckit.corpora.records import Reading, Record, json_lines, json_list, text_lines
from esckit.errors import CorpusError
from esckit.files import atomic_write, read_lines


@dataclass(frozen=True)
class Format:
    """How a corpus is read and written.

    Attributes:
        records: takes a file apart into records.
        read: makes a conversation of a record, its place in the file (from 0) and the file's name.
        write: makes a record of a conversation again; None where the format is only read.
        alternates: the corpus promises that seeker and supporter take turns.
    """

    records: Callable[[Path], Iterator[Record]]
    read: Callable[[Any, int, str], Reading]
    write: Callable[[Conversation], dict[str, Any]] | None = None
    alternates: bool = False


def _read_tree(line: str, position: int, file: str) -> Reading:
    found = validate_conversation(line)
    if not isinstance(found, Conversation):
        return Reading(None, found)
    problems = list(conversation_problems(found))
    walkable = all(problem.kind == "label" for problem in problems)
    return Reading(found if walkable else None, problems)


FORMATS: Final[Mapping[str, Format]] = {
    "tree": Format(text_lines, _read_tree),
    "esconv": Format(json_list, read_esconv_item, conversation_to_esconv),
    "failed_esconv": Format(json_list, read_esconv_item, conversation_to_esconv),
    "extes": Format(json_list, read_extes_item, alternates=True),
    "annomi": Format(annomi_records, read_annomi_transcript),
    "cpsycoun": Format(json_lines, partial(read_counselling_item, corpus="cpsycoun"), alternates=True),
    "smile": Format(json_lines, partial(read_counselling_item, corpus="smile"), alternates=True),
}


def read_corpus(path: Path | str, format: str | None = None) -> list[Conversation]:
    """Read a file of dialogues in one of ``FORMATS``; where none is named, the file's beginning tells which.

    Where dialogues are left out by the rules of the format (ExTES), ``provenance["dropped"]`` of each conversation
    counts them: ``{"dialogues": n, reason: replies, ...}``.

    Raises:
        CorpusError: one sentence that names the file and the place, or says that the format is none of ours.
    """
    path = Path(path)
    conversations: dict[str, Conversation] = {}
    dropped: Counter[str] = Counter()
    for line, reading in read_records(path, find_format(path, format)):
        for problem in reading.problems:
            raise CorpusError(f"{path}:{line}: {problem.text}")
        if reading.dropped:
            dropped.update(["dialogues", *(reason.kind for reason in reading.dropped)])
        elif reading.conversation is not None:
            if reading.conversation.id in conversations:
                raise CorpusError(
                    f"{path}:{line}: conversation {reading.conversation.id!r} occurs twice; ids are unique in a file."
                )
            conversations[reading.conversation.id] = reading.conversation
    if not any(turn.speaker == "supporter" for tree in conversations.values() for turn in tree.turns):
        raise CorpusError(
            f"{path} has no supporter turn in {len(conversations)} dialogues: there is nothing to learn or measure, "
            "so check the speaker names, or give another file."
        )
    if not dropped:
        return list(conversations.values())
    return [replace(tree, provenance={**tree.provenance, "dropped": dict(dropped)}) for tree in conversations.values()]


def read_records(path: Path, format: str) -> Iterator[tuple[int, Reading]]:
    """Yield each record's line and what became of it; a record that is none is a problem like others.

    Raises:
        CorpusError: the file cannot be read at all.
    """
    for position, record in enumerate(FORMATS[format].records(path)):
        if record.problem is not None:
            yield record.line, Reading(None, [Problem("record", record.problem)])
        else:
            yield record.line, FORMATS[format].read(record.value, position, path.name)


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
    """The format that was asked for, or else the one that the file's first dialogue shows.

    Raises:
        CorpusError: it is none of ours, or it could be two of them.
    """
    if format is not None:
        return _known(format)
    start = next((line.lstrip() for _, line in read_lines(path, what="a dialogue file") if line.strip()), None)
    if start is None:
        raise CorpusError(f"{path} is empty: give a file with at least one dialogue.")
    if start.startswith("["):
        return _list_format(path)
    if start.startswith("{"):
        first = _first_object(json_lines(path))
        if "format" in first:
            return "tree"
        if "dialog" in first:
            raise CorpusError(f"{path} could be cpsycoun or smile, which differ in their licences: name the format.")
    elif "main_therapist_behaviour" in start:
        return "annomi"
    raise CorpusError(
        f"{path} is in no format that esckit knows ({', '.join(FORMATS)}): "
        "convert it into one of them, as docs/corpora.md describes."
    )


def _list_format(path: Path) -> str:
    first = _first_object(json_list(path))
    if "content" in first:
        return "extes"
    if "messages" in first:
        raise CorpusError(
            f"{path} holds chat messages, which are written and not read, as they do not say what their fillers are: "
            "give the file that they were made from."
        )
    dialog = first.get("dialog")
    speakers = [entry.get("speaker") for entry in dialog if isinstance(entry, dict)] if isinstance(dialog, list) else []
    return "failed_esconv" if "speaker" in speakers or "listener" in speakers else "esconv"


def _first_object(records: Iterator[Record]) -> dict[str, Any]:
    return next((record.value for record in records if isinstance(record.value, dict)), {})


def _known(format: str) -> str:
    if format not in FORMATS:
        raise CorpusError(f"the corpus format {format!r} is unknown: use one of {', '.join(FORMATS)}.")
    return format
