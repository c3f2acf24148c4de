"""A source file taken apart into records: JSON Lines, a JSON list, one dialogue, marked text, Parquet, or a folder.

How a file is laid out tells nothing about its format: each list format may come in any of these.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from esckit.corpora.encodings import lines_of, text_of
from esckit.corpora.forms import is_utterance, unwrapped
from esckit.corpora.speakers import read_mark
from esckit.errors import CorpusError
from esckit.files import after_space, decode_json, decode_json_at, readable

_PARQUET: Final = b"PAR1"
_JSON: Final = ("{", "[", '"')
_NUMBERS: Final = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Record:
    """One dialogue as it stands in a file.

    Attributes:
        line: where it begins, from 1; in a folder the number of its file, in Parquet that of its row.
        value: what stands there, or None where ``problem`` says why there is none.
        name: its own name, where it has one: the file's where the file is one dialogue, or its key.
    """

    line: int
    value: Any = None
    problem: str | None = None
    name: str | None = None


def dialogue_records(path: Path) -> Iterator[Record]:
    """Yield the dialogues of a file or a folder, whichever way it is laid out.

    Raises:
        CorpusError: it cannot be read at all.
    """
    if path.is_dir():
        yield from _folder(path)
    elif is_parquet(path):
        yield from _parquet(path)
    else:
        for record in _of_file(path):
            yield replace(record, value=unwrapped(record.value)) if record.problem is None else record


def _of_file(path: Path) -> Iterator[Record]:
    starts = ((number, line.strip()) for number, line in lines_of(path) if line.strip())
    (_, first), (_, second) = next(starts, (0, "")), next(starts, (0, ""))
    kind = first[:1]
    if kind not in _JSON:
        return _marked_text(path)
    lines = second[:1] == "[" if kind == "[" else second != "" or kind == '"'
    if lines and _decodes(first):
        return json_lines(path)
    if kind == "[":
        return _list_or_dialogue(path)
    text = text_of(path)
    if second[:1] == "{" and not _decodes(text):  # the first of several lines is broken
        return json_lines(path)
    return _one_value(text)


def _decodes(text: str) -> bool:
    try:
        decode_json(text)
    except ValueError:
        return False
    return True


def text_lines(path: Path) -> Iterator[Record]:
    """Yield the lines of a file that hold more than white space."""
    for number, line in lines_of(path, what="a dialogue file (JSON Lines)"):
        if line.strip():
            yield Record(number, line)


def json_lines(path: Path) -> Iterator[Record]:
    """Yield the values of a JSON Lines file."""
    for record in text_lines(path):
        try:
            yield Record(record.line, decode_json(record.value))
        except json.JSONDecodeError as error:
            yield Record(record.line, problem=_json_problem(error))


def _one_value(text: str) -> Iterator[Record]:
    try:
        value = decode_json(text)
    except json.JSONDecodeError as error:
        yield Record(error.lineno, problem=_json_problem(error))
        return
    yield from _keyed_dialogues(value) or [Record(1, value)]


def _keyed_dialogues(value: Any) -> list[Record]:
    """The dialogues of an object that holds nothing else: each a list of utterances, under its name."""
    if not isinstance(value, dict) or not value:
        return []
    lists = all(isinstance(each, list) and any(map(is_utterance, each[:2])) for each in value.values())
    named = {"messages", "conversations", "conversation", "dialog"} & value.keys()
    return [Record(1, each, name=name) for name, each in value.items()] if lists and not named else []


def _list_or_dialogue(path: Path) -> Iterator[Record]:
    """The items of a JSON list, or the list itself where its items are utterances."""
    said: list[Any] | None = None
    for place, record in enumerate(json_list(path)):
        if place == 0 and is_utterance(record.value):
            said = []
        if said is None or record.problem is not None:
            yield record
        else:
            said.append(record.value)
    if said is not None:
        yield Record(1, said, name=path.stem)


def json_list(path: Path) -> Iterator[Record]:
    """Yield the items of one JSON list; after one that is no JSON, go on at the next line that begins with ``{``."""
    text = text_of(path, what="a dialogue file (a JSON list)")
    at, line, counted = after_space(text, 0) + 1, 1, 0
    at = after_space(text, at)
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


def _marked_text(path: Path) -> Iterator[Record]:
    """One dialogue whose utterances begin with the speaker's mark; a line without one goes on with the last."""
    said: list[str] = []
    for record in text_lines(path):
        line = str(record.value).strip()
        if read_mark(line):
            said.append(line)
        elif said:
            said[-1] += f"\n{line}"
        else:
            yield Record(record.line, problem="this line is no JSON and has no speaker's mark (`name: text`): mend it.")
            return
    if said:
        yield Record(1, said, name=path.stem)


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, whatever its ending."""
    with readable(path, "a dialogue file", CorpusError), path.open("rb") as file:
        return file.read(len(_PARQUET)) == _PARQUET


def _parquet(path: Path) -> Iterator[Record]:
    try:
        from pyarrow import ArrowException  # type: ignore[import-untyped]
        from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]
    except ImportError as error:
        raise CorpusError(
            f"{path} is Parquet, which needs pyarrow: pip install pyarrow, or write JSON Lines."
        ) from error
    try:
        rows = (row for batch in ParquetFile(path).iter_batches() for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield Record(number, unwrapped(row))
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise CorpusError(f"{path} cannot be read as Parquet ({reason}): download it again.") from error


def folder_files(folder: Path) -> list[Path]:
    """The dialogue files of a folder and of those in it, in the order of the numbers in their names.

    Raises:
        CorpusError: there is none.
    """
    for ending in ("json", "jsonl", "txt"):
        if found := [file for file in folder.rglob(f"*.{ending}") if file.is_file()]:
            return sorted(found, key=lambda file: [_natural(part) for part in file.relative_to(folder).parts])
    raise CorpusError(f"{folder} is a folder without dialogue files (.json, .jsonl or .txt): give another.")


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _NUMBERS.split(name)]


def _folder(folder: Path) -> Iterator[Record]:
    for number, file in enumerate(folder_files(folder), 1):
        name = "-".join(file.relative_to(folder).with_suffix("").parts)
        records = list(dialogue_records(file))
        for place, record in enumerate(records):
            if record.problem is not None:
                yield Record(number, problem=f"{file.name}: {record.problem}")
            else:
                own = name if len(records) == 1 else f"{name}-{record.name or place}"
                yield Record(number, record.value, name=own)
