"""People's ratings as they save them: a line a rating, or a line an item with a column a rater, in CSV of any kind."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Final, NamedTuple

from esckit.errors import EsckitError
from esckit.files import decode_json
from esckit.measures.tables import CsvTable, from_sheet_cell, parse_csv, plain_name, read_table_text

_COLUMNS: Final = ("item", "rater", "rating")
_OTHER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "item": ("item id", "items", "conv id", "conversation id", "unit", "id", ""),
    "rater": ("rater id", "annotator", "annotator id", "coder", "judge"),
    "rating": ("ratings", "score", "value"),
}
"""How else these columns are called: looked for where no column has the name itself."""

_MISSING: Final = frozenset(
    ("na", "n/a", "n.a.", "nan", "null", "-", "--", "–", "—", ".", "<na>", "#n/a", "#nv", "None")
)
"""Marks of a missing rating where all others are numbers; but for Python's None in any case."""

_DECIMAL_COMMA: Final = re.compile(r"^([+-]?\d*),(\d+)$")
_VERDICT: Final = re.compile("rating|score|preference|choice|label", re.IGNORECASE)


class Ratings(NamedTuple):
    """Who said what: a row an item, a column a rater; None where a rater left an item out."""

    items: list[str]
    raters: list[str]
    table: list[list[str | float | None]]


def read_ratings(path: Path | str, columns: Sequence[str] | None = None) -> Ratings:
    """Read a file of ratings.

    Ratings are numbers, with a decimal point or comma, where all of them are, else names. An empty one is missing, and
    beside numbers also ``NA``, ``N/A``, ``nan``, ``null``, ``-``, ``.`` and their like.

    Args:
        path: CSV with comma, semicolon, tab or bar, in UTF-8 or UTF-16, its header in any case. A line a rating, in
            the columns item, rater and rating; or a line an item, in the column item and one for each rater. Other
            columns are not read.
        columns: what the three are called in this file, which then may hold JSON as well: a list of objects, or one a
            line.

    Raises:
        EsckitError: the file is missing, empty, no CSV, or lacks a column, or gives one item two ratings by one rater.
    """
    path = Path(path)
    text = read_table_text(path, what="a CSV file of ratings", error=EsckitError)
    if text.lstrip()[:1] in ("[", "{"):
        table = _json_table(text, path, columns)
    else:
        table = parse_csv(text, path, [*(columns or _COLUMNS), *sum(_OTHER_NAMES.values(), ())], EsckitError)
    given: dict[tuple[str, str], str] = {}
    said = list(_said(table, path, columns))
    filled = [row for row in said if row[2] or row[3]]
    for line, *cells in filled or said:  # rows of a sheet that nobody has rated are left out
        item, rater, rating = map(from_sheet_cell, cells)
        if not item or not rater:
            raise EsckitError(f"{path}, line {line}: a rating needs an item and a rater: fill both in.")
        if (item, rater) in given:
            raise EsckitError(f"{path}, line {line}: {rater} has rated {item} already: keep one rating.")
        given[item, rater] = rating
    items, raters = list(dict.fromkeys(i for i, _ in given)), sorted({r for _, r in given})
    if not any(given.values()):
        raise EsckitError(f"{path} holds no rating: write a line item,rater,rating for each.")
    values = _values([rating for rating in given.values() if rating])
    return Ratings(items, raters, [[values.get(given.get((item, rater), "")) for rater in raters] for item in items])


def _said(table: CsvTable, path: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, str, str, str]]:
    """Line, item, rater and rating of each that is given, as they stand in the cells."""
    places = [_place(table.columns, name, columns[k] if columns else None) for k, name in enumerate(_COLUMNS)]
    item, rater, rating = places
    if rater is None and rating is None and _is_wide(table, item or 0) and (item is not None or _names_lines(table)):
        raters = [k for k, name in enumerate(table.columns) if name and k != (item or 0)]
        return ((line, row[item or 0], table.columns[k], row[k]) for line, row in table.rows for k in raters)
    if item is None or rater is None or rating is None:
        lacking = (columns or _COLUMNS)[places.index(None)]
        raise EsckitError(f"{path} has no column {lacking}: write the header item,rater,rating.")
    return ((line, row[item], row[rater], row[rating]) for line, row in table.rows)


def _place(columns: Sequence[str], name: str, given: str | None) -> int | None:
    plain = [plain_name(column) for column in columns]
    for wanted in [given] if given else [name, *_OTHER_NAMES[name]]:
        if plain_name(wanted) in plain:
            return plain.index(plain_name(wanted))
    return None


def _is_wide(table: CsvTable, item: int) -> bool:
    """Whether each line is another item, with two columns or more beside it."""
    items = [row[item] for _, row in table.rows]
    others = [name for place, name in enumerate(table.columns) if name and place != item]
    return len(others) > 1 and len(set(items)) == len(items)


def _names_lines(table: CsvTable) -> bool:
    """Whether the first column, whatever it is called, holds names and all others numbers or nothing."""
    cells = [[_number(cell) is not None or not cell or _is_missing(cell) for cell in row] for _, row in table.rows]
    return not any(row[0] for row in cells) and all(all(row[1:]) for row in cells)


def _json_table(text: str, path: Path, columns: Sequence[str] | None) -> CsvTable:
    """Objects as a table, where their columns are named; else the sentence that says what to do.

    Raises:
        EsckitError: the columns are not named, or it is no JSON list of objects, and none a line.
    """
    try:
        records = decode_json(text) if text.lstrip().startswith("[") else None
        if not isinstance(records, list):
            records = [decode_json(line) for line in text.split("\n") if line.strip()]
    except json.JSONDecodeError as error:
        raise EsckitError(f"{path} is neither CSV nor JSON ({error}): write the header item,rater,rating.") from error
    records = [record for record in records if isinstance(record, dict)]
    names = list(dict.fromkeys(name for record in records for name in record))
    if columns is None or not records:
        raise EsckitError(f"{path} has no column item, for it is JSON and not CSV: {_advice(names)}.")
    rows = [["" if record.get(name) is None else str(record[name]).strip() for name in names] for record in records]
    return CsvTable(names, list(enumerate(rows, 1)))


def _advice(names: Sequence[str]) -> str:
    """Which columns to write from JSON objects with these fields."""
    item, rater, rating = (_place(names, name, None) for name in _COLUMNS)
    if rating is None:
        rating = next((k for k, name in enumerate(names) if _VERDICT.search(name)), None)
    known = [names[k] for k in (item, rater, rating) if k is not None]
    write = "write the columns item,rater,rating from it"
    if len(known) < len(_COLUMNS):
        return f"{write}, or say what they are called: esckit agreement --columns ITEM,RATER,RATING"
    here = f"{known[0]}, {known[1]} and {known[2]}"
    return f"{write} (here {here}), or give esckit agreement --columns {','.join(known)}"


def _values(written: Sequence[str]) -> dict[str, str | float]:
    """Each rating as it is written to what it means; a mark of a missing one means nothing."""
    numbers = {rating: number for rating in written if (number := _number(rating)) is not None}
    words = {rating for rating in written if rating not in numbers}
    if numbers and all(map(_is_missing, words)):
        return dict(numbers)
    return {rating: rating for rating in written}


def _is_missing(word: str) -> bool:
    return word in _MISSING or word.casefold() in _MISSING


def _number(rating: str) -> float | None:
    """What a rating's text counts; None where it is a word."""
    try:
        number = float(_DECIMAL_COMMA.sub(r"\1.\2", rating))
    except ValueError:
        return None
    return number if isfinite(number) else None


def suspect_words(ratings: Ratings) -> list[str]:
    """Ratings that count as names and may not be meant so, most frequent first.

    The words beside which others are numbers; where none is, the marks of a missing rating.
    """
    said = [rating for row in ratings.table for rating in row if isinstance(rating, str)]
    words = Counter(rating for rating in said if _number(rating) is None)
    mixed = words.total() < len(said)
    return [word for word, _ in words.most_common() if mixed or _is_missing(word)]
