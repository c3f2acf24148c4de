"""A table of ratings, and everything about the agreement in it."""

import csv
import io
from itertools import combinations
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from esckit.errors import EsckitError
from esckit.files import read_text
from esckit.measures.agreement import LEVELS, Level, cohen_kappa, fleiss_kappa, krippendorff_alpha
from esckit.measures.intervals import Draws

__all__ = ["Ratings", "agreement", "read_ratings"]

_COLUMNS = ("item", "rater", "rating")


class Ratings(NamedTuple):
    """Who said what: a row an item, a column a rater; None where a rater left an item out."""

    items: list[str]
    raters: list[str]
    table: list[list[str | float | None]]


def read_ratings(path: Path | str) -> Ratings:
    """Read a CSV file with the columns item, rater and rating; an empty rating is a missing one.

    Ratings are numbers where all of them are, else names. Other columns are not read.

    Raises:
        EsckitError: the file is missing or empty, lacks a column, or gives one item two ratings by one rater.
    """
    text = read_text(Path(path), what="a CSV file of ratings", error=EsckitError).removeprefix("\ufeff")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise EsckitError(f"{path} has no column {missing[0]}: write the header item,rater,rating.")
    given: dict[tuple[str, str], str] = {}
    for row in reader:
        item, rater, rating = ((row[column] or "").strip() for column in _COLUMNS)
        if not item or not rater:
            raise EsckitError(f"{path}, line {reader.line_num}: a rating needs an item and a rater: fill both in.")
        if (item, rater) in given:
            raise EsckitError(f"{path}, line {reader.line_num}: {rater} has rated {item} already: keep one rating.")
        given[item, rater] = rating
    items, raters = list(dict.fromkeys(i for i, _ in given)), sorted({r for _, r in given})
    if not any(given.values()):
        raise EsckitError(f"{path} holds no rating: write a line item,rater,rating for each.")
    values = _values([rating for rating in given.values() if rating])
    table = [[values.get(given.get((item, rater), "")) for rater in raters] for item in items]
    return Ratings(items, raters, table)


def agreement(ratings: Ratings, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Return every coefficient that the ratings allow, JSON-ready; None where one does not apply (docs/measures.md)."""
    table, raters = ratings.table, ratings.raters
    said = {rating for row in table for rating in row if rating is not None}
    numbers = all(isinstance(rating, float) for rating in said)
    categories = sorted(said, key=lambda rating: (rating, "") if isinstance(rating, float) else (0, rating))
    counts = np.array([[row.count(category) for category in categories] for row in table])
    each = counts.sum(1)
    equally = each.min() == each.max() > 1
    draws = Draws(seed, resamples)

    def cohen(a: int, b: int, quadratic: bool) -> dict[str, Any] | None:
        first, second = ([row[rater] for row in table] for rater in (a, b))
        together = any(None not in pair for pair in zip(first, second, strict=True))
        if not together or (quadratic and not numbers):
            return None
        return cohen_kappa(first, second, quadratic=quadratic, draws=draws).to_json()

    def alpha(level: Level) -> dict[str, Any] | None:
        if each.max() < 2 or (level != "nominal" and not numbers):
            return None
        return krippendorff_alpha(table, level, draws).to_json()

    return {
        "format": 1,
        "seed": seed,
        "resamples": resamples,
        "items": len(table),
        "raters": raters,
        "ratings": int(each.sum()),
        "categories": categories,
        "fleiss": fleiss_kappa(counts, draws).to_json() if equally else None,
        "krippendorff": {level: alpha(level) for level in LEVELS},
        "cohen": [
            {"raters": [raters[a], raters[b]], "plain": cohen(a, b, False), "quadratic": cohen(a, b, True)}
            for a, b in combinations(range(len(raters)), 2)
        ],
    }


def _values(written: list[str]) -> dict[str, str | float]:
    """Each rating as it is written to what it means."""
    try:
        numbers = {rating: float(rating) for rating in written}
    except ValueError:
        return {rating: rating for rating in written}
    return dict(numbers) if all(map(isfinite, numbers.values())) else {rating: rating for rating in written}
