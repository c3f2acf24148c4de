"""Tables as people save them: CSV with whatever delimiter, JSON, JSON Lines or Parquet, in the usual encodings."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from esckit.errors import EsckitError
from esckit.files import readable, reads_like_chinese

_DELIMITERS: Final = ",;\t|"
_MARKS: Final = (  # the longer of two that begin alike stands first
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ARCHIVE: Final = b"PK\x03\x04"
_LONGEST_CELL: Final = 1 << 30
_SEPARATOR_LINE: Final = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)  # Excel's own way to name the delimiter


class CsvTable(NamedTuple):
    """A CSV file's cells as they stand there, without blanks around.

    Attributes:
        columns: as the header names them.
        rows: each line's number, from 1, and its cells, as many as there are columns; blank lines, and the header
            where it stands there again, are left out.
    """

    columns: list[str]
    rows: list[tuple[int, list[str]]]


def read_table_text(path: Path, *, what: str, error: type[EsckitError], chinese: bool = False) -> str:
    """Read text in UTF-8, or in UTF-16 or UTF-32 where a byte-order mark or zeros between the letters tell so.

    Args:
        path: the file; ``what`` it should be stands in the message.
        what: such as "a dialogue file".
        error: the class of errors.
        chinese: whether GB18030, which holds GBK, is read too, where the outcome reads like Chinese. A name or two are
            too little to tell that.

    Raises:
        EsckitError: of the class asked for, where the file cannot be read or is in another encoding.
    """
    with readable(path, what, error):
        data = path.read_bytes()
    if data.startswith(_ARCHIVE):
        raise error(f"{path} is a workbook (xlsx, ods) or another archive: save the sheet as CSV in UTF-8.")
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None) or _without_mark(data)
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as cause:
        if chinese and (text := _as_chinese(data)):
            return text
        name = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        raise error(f"{path} is not {name} text (byte {cause.start}): save it as UTF-8.") from cause


def _as_chinese(data: bytes) -> str | None:
    """GB18030 text; None where it is none: bytes of another encoding give rare characters."""
    text = data.decode("gb18030", errors="replace")
    return text if "\ufffd" not in text and reads_like_chinese(text) else None


def _without_mark(data: bytes) -> str:
    """In UTF-16 the first sign of a table, a Latin letter or a bracket, has one byte that is zero."""
    first = data[:2]
    return {b"\0": "utf-16-be"}.get(first[:1]) or {b"\0": "utf-16-le"}.get(first[1:], "utf-8")


def parse_csv(text: str, path: Path, known: Iterable[str], error: type[EsckitError]) -> CsvTable:
    """Take a CSV table apart, whatever its delimiter is: comma, semicolon, tab or bar.

    The one under which the header has most of the columns that are ``known`` (by `plain_name`), and then most columns.

    Raises:
        EsckitError: of the class asked for; a line has more cells than the header, or two columns have one name.
    """
    csv.field_size_limit(_LONGEST_CELL)  # a prompt may be longer than what Python allows by default
    told = _SEPARATOR_LINE.match(text)
    wanted = {plain_name(name) for name in known}
    found: list[tuple[int, list[str]]] = []

    def fitness(delimiter: str) -> tuple[int, int]:
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        return sum(plain_name(cell) in wanted for cell in header), len(header)

    try:
        delimiter = told[1] if told else max(_DELIMITERS, key=fitness)
        reader = csv.reader(io.StringIO(text[told.end() :] if told else text, newline=""), delimiter=delimiter)
        for row in reader:
            cells = [cell.removeprefix("\ufeff").strip() for cell in row]
            if any(cells) and not (found and cells == found[0][1]):  # files were put one below the other
                found.append((reader.line_num + bool(told), cells))
    except csv.Error as cause:
        raise error(f"{path} is no CSV table ({cause}): save it as CSV in UTF-8.") from cause
    columns = found[0][1] if found else []
    twice = next((name for name, number in Counter(filter(None, columns)).items() if number > 1), None)
    if twice:
        raise error(f"{path} has two columns {twice}: give each a name of its own.")
    return CsvTable(
        columns, [(line, _fill(cells, len(columns), f"{path}, line {line}", error)) for line, cells in found[1:]]
    )


def _fill(cells: list[str], width: int, place: str, error: type[EsckitError]) -> list[str]:
    if any(cells[width:]):
        raise error(
            f"{place} has {len(cells)} cells and the header {width}: put a text or a number that holds the delimiter "
            "between quotes, or save the table with another delimiter."
        )
    return (cells + [""] * width)[:width]


def plain_name(column: str) -> str:
    """A column's name without its case, blanks and signs: what its spellings have in common."""
    return re.sub(r"[\W_]+", "", column).casefold()


_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")


def sheet_cell(text: str) -> str:
    """A text as it may stand in a cell of a spreadsheet, which takes what begins like a formula for one."""
    return f"'{text}" if _FORMULA.match(text) else text


def from_sheet_cell(cell: str) -> str:
    """The text that `sheet_cell` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
