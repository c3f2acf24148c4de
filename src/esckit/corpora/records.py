"""A source file taken apart into records, each with its line: a JSON list, or JSON Lines.

A record that cannot be read says why and does not hide those after it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from esckit.files import after_space, decode_json, decode_json_at, read_lines, read_text

__all__ = ["Record", "json_lines", "json_list", "json_problem", "text_lines"]

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
            yield Record(record.line, problem=json_problem(error))


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
            yield Record(error.lineno, problem=json_problem(error))
            at = text.find("\n{", at) + 1
            if not at:
                return
    if text[at + 1 :].strip():
        yield Record(line, problem="there is text after the end of the list: remove it.")


def json_problem(error: json.JSONDecodeError) -> str:
    """One sentence from an error of the JSON parser."""
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
