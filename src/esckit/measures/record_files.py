"""Rows of a predictions file in whatever form it has: JSON Lines, a JSON list, CSV or Parquet."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from esckit.errors import PredictionsError
from esckit.files import decode_json, readable
from esckit.measures.tables import parse_csv, plain_name, read_table_text

Placed = tuple[str, Any]
"""A record, and the file and line or row that an error names."""

_WHAT: Final = "a predictions file (JSON Lines)"
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_PARQUET: Final = b"PAR1"
_TABLES: Final = (".csv", ".tsv", ".tab")


def read_records(path: Path, known: Iterable[str] = ()) -> list[Placed]:
    """Decode a file of records.

    A cell of a table that holds nothing is an empty text, one that holds a JSON list or object is that.

    Args:
        path: JSON Lines; a JSON list, alone, as the one list of an object, or one a column; CSV with any delimiter; or
            Parquet. Text is in UTF-8, UTF-16, UTF-32 or, if it is Chinese, GB18030 (GBK).
        known: names of columns, which tell a CSV table's delimiter, and a row from an object that holds rows.

    Raises:
        PredictionsError: the file is missing or empty, or holds none of these.
    """
    with readable(path, _WHAT, PredictionsError), path.open("rb") as file:
        if file.read(len(_PARQUET)) == _PARQUET:
            return _parquet(path)
    text = read_table_text(path, what=_WHAT, error=PredictionsError, chinese=True)
    start = text.lstrip()[:1]
    if path.suffix.lower() in _TABLES or (start not in ("{", "[", "") and _has_columns(text, path, known)):
        return _table(text, path, known)
    if start == "[":
        return _numbered(path, _whole(text, path))
    if start == "{" and (records := _in_one_object(text, known)):
        return _numbered(path, records)
    return list(json_lines(text, path))


def read_json_lines(path: Path) -> Iterator[Placed]:
    """Decode a JSON Lines file: each line's place, for error messages, and its value.

    Raises:
        PredictionsError: the file is missing or empty, or a line is no JSON.
    """
    yield from json_lines(read_table_text(path, what=_WHAT, error=PredictionsError, chinese=True), path)


def json_lines(text: str, path: Path) -> Iterator[Placed]:
    """Decode the text of a JSON Lines file; errors are those of `read_json_lines`."""
    if not text.strip():
        raise PredictionsError(f"{path} is empty: write one JSON object for each predicted supporter turn.")
    # Not splitlines(): a response may hold U+2028 and other characters that it takes for line ends.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        place = f"{path}, line {number}"
        try:
            yield place, _decode_printable(line)
        except json.JSONDecodeError as error:
            raise PredictionsError(
                f"{place}: this is not JSON ({error}): write one complete JSON object a line."
            ) from error


def _decode_printable(text: str) -> Any:
    """Decode JSON, and refuse half of a surrogate pair: it could be read, and neither printed nor written.

    Raises:
        json.JSONDecodeError: the text is no JSON, or holds such a half.
    """
    value = decode_json(text)
    try:
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise json.JSONDecodeError("Half of a surrogate pair", text, 0) from error
    return value


def _whole(text: str, path: Path) -> list[Any]:
    try:
        records = _decode_printable(text)
    except json.JSONDecodeError as error:
        raise PredictionsError(f"{path} is not JSON ({error}): give a complete JSON list or JSON Lines.") from error
    if not records:
        raise PredictionsError(f"{path} is an empty list: give one object for each predicted supporter turn.")
    return list(records)


def _in_one_object(text: str, known: Iterable[str]) -> list[Any]:
    """The records that one object holds, as its only list of objects or as a list a column; none where it is a row."""
    try:
        whole = _decode_printable(text)
    except json.JSONDecodeError:
        return []  # more lines follow
    names = {plain_name(name) for name in known}
    columns = {name: value for name, value in whole.items() if plain_name(name) in names}
    if columns and all(isinstance(value, list) for value in columns.values()):
        return [dict(zip(columns, row, strict=False)) for row in zip(*columns.values(), strict=False)]
    lists = [value for value in whole.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    return lists[0] if len(lists) == 1 and not columns else []


def _numbered(path: Path, records: Iterable[Any]) -> list[Placed]:
    return [(f"{path}, row {number}", record) for number, record in enumerate(records, start=1)]


def _has_columns(text: str, path: Path, known: Iterable[str]) -> bool:
    """Whether the first line is a header of two columns or more."""
    return len(parse_csv(text.split("\n", 1)[0], path, known, PredictionsError).columns) > 1


def _table(text: str, path: Path, known: Iterable[str]) -> list[Placed]:
    table = parse_csv(text, path, known, PredictionsError)
    if not table.rows:
        raise PredictionsError(f"{path} holds no row: give one for each predicted supporter turn.")
    named = [place for place, column in enumerate(table.columns) if column]
    return [
        (f"{path}, line {line}", {table.columns[place]: _cell(cells[place]) for place in named})
        for line, cells in table.rows
    ]


def _cell(text: str) -> Any:
    """What a cell holds: a strategy's name in brackets is a text."""
    if text[:1] in ("[", "{"):
        try:
            return _decode_printable(text)
        except json.JSONDecodeError:
            return text
    return text


def _parquet(path: Path) -> list[Placed]:
    try:
        from pyarrow import ArrowException  # type: ignore[import-untyped]
        from pyarrow.parquet import read_table  # type: ignore[import-untyped]
    except ImportError as error:
        raise PredictionsError(f"{path} is Parquet, which needs pyarrow: pip install pyarrow.") from error
    try:
        return _numbered(path, read_table(path).to_pylist())
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise PredictionsError(f"{path} cannot be read as Parquet ({reason}): write it again, or as CSV.") from error
