"""A CSV file of ratings, and all coefficients of it."""

import json
from pathlib import Path

import pytest

from esckit.errors import EsckitError
from esckit.measures import agreement, read_ratings
from esckit.measures.agreement import cohen_kappa, krippendorff_alpha


def write(path: Path, *lines: str, header: str = "item,rater,rating") -> Path:
    (path / "ratings.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path / "ratings.csv"


def test_numbers_names_and_missing_ratings(tmp_path: Path) -> None:
    ratings = read_ratings(write(tmp_path, "x,bo,2", "x,al,1", "y,al,", "y,bo,1.0"))
    assert ratings == (["x", "y"], ["al", "bo"], [[1.0, 2.0], [None, 1.0]])
    names = read_ratings(write(tmp_path, '"x, one",al,none', '"x, one",bo,2'))
    assert names.table == [["none", "2"]]
    assert read_ratings(write(tmp_path, "x,al,nan", "x,bo,1")).table == [[None, 1.0]]


def test_other_columns_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path, "1,al,x,good", "1,bo,x,bad", header="\ufeffrating,rater,item,why")
    assert read_ratings(path).table == [[1.0, 1.0]]


def test_everything_is_there(tmp_path: Path) -> None:
    lines = [f"{item},{rater},{item % 3 + (rater == 'c' and item == 1)}" for item in range(9) for rater in "abc"]
    ratings = read_ratings(write(tmp_path, *lines))
    found = agreement(ratings, resamples=50)
    json.dumps(found, allow_nan=False)
    assert (found["items"], found["raters"], found["ratings"], found["categories"]) == (
        9,
        ["a", "b", "c"],
        27,
        [0, 1, 2],
    )
    assert found["fleiss"]["value"] < 1
    expected = krippendorff_alpha(ratings.table, "ordinal").value
    assert found["krippendorff"]["ordinal"]["value"] == expected
    assert [pair["raters"] for pair in found["cohen"]] == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert found["cohen"][0]["plain"]["value"] == found["cohen"][0]["plain"]["interval"][1] == 1
    columns = list(zip(*ratings.table, strict=True))
    assert found["cohen"][1]["quadratic"]["value"] == cohen_kappa(columns[0], columns[2], quadratic=True).value


def test_what_does_not_apply_is_null(tmp_path: Path) -> None:
    found = agreement(read_ratings(write(tmp_path, "x,al,yes", "x,bo,no", "y,al,yes")), resamples=5)
    assert found["fleiss"] is None
    assert found["krippendorff"]["nominal"] is not None
    assert (
        found["krippendorff"]["ordinal"] is found["krippendorff"]["interval"] is found["cohen"][0]["quadratic"] is None
    )
    alone = agreement(read_ratings(write(tmp_path, "x,al,1", "y,bo,2")), resamples=5)
    assert alone["krippendorff"]["nominal"] is alone["cohen"][0]["plain"] is None


@pytest.mark.parametrize(
    ("lines", "header", "message"),
    [
        (["x,1"], "item,rating", "has no column rater: write the header item,rater,rating."),
        ([], "", "has no column item: write the header item,rater,rating."),
        ([], "item,rater,rating", "holds no rating: write a line item,rater,rating for each."),
        (["x,al,"], "item,rater,rating", "holds no rating"),
        (["x,al,1", "x,al,2"], "item,rater,rating", "line 3: al has rated x already: keep one rating."),
        (["x,,1"], "item,rater,rating", "line 2: a rating needs an item and a rater: fill both in."),
        (["x"], "item,rater,rating", "line 2: a rating needs an item and a rater: fill both in."),
    ],
)
def test_bad_files(tmp_path: Path, lines: list[str], header: str, message: str) -> None:
    with pytest.raises(EsckitError) as caught:
        read_ratings(write(tmp_path, *lines, header=header))
    assert message in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(EsckitError, match="does not exist: give the path of a CSV file of ratings"):
        read_ratings(tmp_path / "none.csv")
