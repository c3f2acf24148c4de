"""Ratings as people save them: any delimiter and encoding, a column a rater, marks of missing ones, other programs'."""

import json
from pathlib import Path
from typing import Any

import pytest

from esckit.errors import EsckitError
from esckit.measures import agreement, read_ratings
from esckit.measures.rating_files import Ratings
from esckit.measures.tables import from_sheet_cell, sheet_cell

from ..field import field

LINES = ["item,rater,rating", "x,al,1", "x,bo,2", "y,al,3", "y,bo,3"]
PLAIN = Ratings(["x", "y"], ["al", "bo"], [[1.0, 2.0], [3.0, 3.0]])


def read(folder: Path, text: str, encoding: str = "utf-8", **how: Any) -> Ratings:
    path = folder / "ratings.csv"
    path.write_bytes(text.encode(encoding))
    return read_ratings(path, **how)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_delimiters_line_ends_and_encodings(tmp_path: Path, delimiter: str, end: str, encoding: str) -> None:
    text = end.join(line.replace(",", delimiter) for line in LINES)
    assert read(tmp_path, text, encoding) == PLAIN


@pytest.mark.parametrize(
    "text",
    [
        "\n".join([" Item ,\tRATER, Rating ", *LINES[1:]]),
        "\n".join(["Item ID,Annotator,Score", *LINES[1:]]),
        "\n".join(["sep=,", *LINES]),
        "\n".join([*LINES[:3], ",,", *LINES[3:], "", ",,"]),
        "\n".join([*LINES[:3], LINES[0], *LINES[3:]]),
        "\n".join([*LINES[:3], "\ufeff" + LINES[0], *LINES[3:]]),
        "\n".join([*LINES, "z,,"]),
        "item,al,bo\nx,1,2\ny,3,3\n",
        "Item;bo;al\nx;2;1\ny;3;3\n",
        ",al,bo\nx,1,2\ny,3,3\n",
        "id,al,bo,\nx,1,2,\ny,3,3,\n",
        "Utterance;al;bo\nx;1;2\ny;3;3\n",
        'item,rater,rating,talk\nx,al,1,"a;b;c;d\n;e"\nx,bo,2,""\ny,al,3,a\ny,bo,3,b\n',
    ],
)
def test_forms_of_the_same_ratings(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == PLAIN


def test_decimal_commas(tmp_path: Path) -> None:
    semicolons = "item;rater;rating\nx;al;1,5\nx;bo;-2,25\ny;al;3\ny;bo;,5\n"
    assert read(tmp_path, semicolons).table == [[1.5, -2.25], [3.0, 0.5]]
    assert read(tmp_path, 'item,al,bo\nx,"1,5",2\ny,3,3.5\n').table == [[1.5, 2.0], [3.0, 3.5]]
    with pytest.raises(EsckitError, match=r"line 2 has 4 cells and the header 3: put a text or a number that holds"):
        read(tmp_path, "item,rater,rating\nx,al,1,5\n")


@pytest.mark.parametrize("mark", ["NA", "N/A", "nan", "NaN", "null", "-", ".", "–", "<NA>", "#N/A", "None", ""])
def test_marks_of_missing_ratings(tmp_path: Path, mark: str) -> None:
    ratings = read(tmp_path, f"item,rater,rating\nx,al,1\nx,bo,{mark}\ny,al,3\ny,bo,3\n")
    assert ratings.table == [[1.0, None], [3.0, 3.0]]
    assert "1 of 4 ratings is missing." in agreement(ratings, resamples=5)["warnings"]
    assert read(tmp_path, f"item,al,bo\nx,1,{mark}\ny,3,3\n") == ratings


def test_words_that_make_names_of_numbers_are_named(tmp_path: Path) -> None:
    ratings = read(tmp_path, "item,rater,rating\nx,al,1\nx,bo,bad\ny,al,NA\ny,bo,bad\nz,al,2\nz,bo,2\n")
    found = agreement(ratings, resamples=5)
    assert found["categories"] == ["1", "2", "NA", "bad"]
    assert any(text.startswith("'bad', 'NA' count as names, and so do all ratings") for text in found["warnings"])
    assert any(text.startswith("Coefficients of numbers") for text in found["warnings"])


def test_a_mark_among_names_is_a_name_and_named(tmp_path: Path) -> None:
    found = agreement(read(tmp_path, "item,rater,rating\nx,al,yes\nx,bo,NA\ny,al,no\ny,bo,no\n"), resamples=5)
    assert found["categories"] == ["NA", "no", "yes"]
    assert any(text.startswith("'NA' counts as names") for text in found["warnings"])


def test_few_items_and_figures_that_are_null_are_told(tmp_path: Path) -> None:
    told = agreement(read(tmp_path, "item,al,bo,cy\nx,1,2,1\ny,3,,3\n"), resamples=5)["warnings"]
    assert told[0] == "Only 2 items: under 10 of them intervals are too narrow."
    assert any(text.startswith("fleiss is null") for text in told)
    many = "item,al,bo\n" + "".join(f"i{k},{k % 3},{k % 2}\n" for k in range(10))
    assert agreement(read(tmp_path, many), resamples=5)["warnings"] == []


@pytest.mark.parametrize("raters", [2, 3, 5])
def test_intervals_hold_the_least_agreement(tmp_path: Path, raters: int) -> None:
    """Nobody ever agrees, and every rating is as frequent: no draw of items agrees less."""
    names = "abcde"[:raters]
    lines = [f"i{k},{','.join(str((k + step) % 6) for step in range(raters))}" for k in range(6)]
    found = agreement(read(tmp_path, "\n".join([f"item,{','.join(names)}", *lines])), resamples=200)
    each = [found["fleiss"], *found["krippendorff"].values()]
    each += [pair[kind] for pair in found["cohen"] for kind in ("plain", "quadratic")]
    assert found["fleiss"]["value"] < 0
    for figure in each:
        assert figure["interval"][0] <= figure["value"] <= figure["interval"][1]


EXPORT = [
    {"conv_id": "a", "annotator": 1, "model-preference": "-4", "id": 1},
    {"conv_id": "a", "annotator": 2, "model-preference": "-2", "id": 1},
    {"conv_id": "b", "annotator": 1, "model-preference": None, "id": 2},
]


@pytest.mark.parametrize("as_lines", [False, True])
def test_json_is_read_where_its_columns_are_named(tmp_path: Path, as_lines: bool) -> None:
    text = "\n".join(map(json.dumps, EXPORT)) if as_lines else json.dumps(EXPORT, indent=1)
    columns = ("conv_id", "annotator", "model-preference")
    assert read(tmp_path, text, columns=columns) == (["a", "b"], ["1", "2"], [[-4.0, -2.0], [None, None]])
    with pytest.raises(EsckitError) as caught:
        read(tmp_path, text)
    assert str(caught.value).endswith(
        "ratings.csv has no column item, for it is JSON and not CSV: write the columns item,rater,rating from it (here "
        "conv_id, annotator and model-preference), or give esckit agreement --columns "
        "conv_id,annotator,model-preference."
    )


def test_columns_of_a_csv_file_may_be_named(tmp_path: Path) -> None:
    text = "turn,who,points,rating\nx,al,1,9\nx,bo,2,9\ny,al,3,9\ny,bo,3,9\n"
    assert read(tmp_path, text, columns=("Turn", "who", "points")) == PLAIN


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"a": 1}',
            "it is JSON and not CSV: write the columns item,rater,rating from it, or say what they",
        ),
        ("[1, 2]", "it is JSON and not CSV"),
        ("[", "is neither CSV nor JSON (Expecting value"),
        ("item,worker,points\nx,al,1\nx,bo,2\n", "has no column rater: write the header item,rater,rating."),
        ("item,points\nx,1\n", "has no column rater"),
        ("turn,al,bo\n1,1,2\n2,3,3\n", "has no column item"),
        ("turn,al,note\nx,1,fine\ny,3,fine\n", "has no column item"),
        ("item,rater,rater,rating\nx,al,bo,1\n", "has two columns rater: give each a name of its own."),
        ("item,al,bo\nx,1,2\n,3,4\n", "line 3: a rating needs an item and a rater: fill both in."),
        ("item,al,bo\nx,,\ny,,\n", "holds no rating"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EsckitError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)


def test_another_encoding_is_named(tmp_path: Path) -> None:
    with pytest.raises(EsckitError, match=r"is not UTF-8 text \(byte 20\): save it as UTF-8\."):
        read(tmp_path, "item,rater,rating\nx,赵一,1\n", "gbk")
    (tmp_path / "odd.csv").write_bytes(b"\xff\xfei\x00t")
    with pytest.raises(EsckitError, match="is not UTF-16 text"):
        read_ratings(tmp_path / "odd.csv")


@pytest.mark.parametrize("text", ["", "a", "=1+1", "+49", "-3", "@name", "'=1", "''=1", "'quoted'", "\t=x", "a=b"])
def test_cells_of_sheets_are_no_formulas_and_read_back_equal(text: str) -> None:
    assert sheet_cell(text)[:1] not in ("=", "+", "-", "@", "\t")
    assert from_sheet_cell(sheet_cell(text)) == text


FIGURES = {
    "plain.csv": (0.302, 0.341, 0.785, 0.806, 18),
    "plain-without-one.csv": (None, 0.304, 0.789, 0.802, 17),
}


@pytest.mark.parametrize(
    ("name", "like"),
    [
        *(
            (f"19-{name}.csv", "plain.csv")
            for name in ("a-column-a-rater", "blanks", "capitals", "semicolons", "semicolons-bom", "tabs-utf16")
        ),
        ("19-decimal-commas.csv", "plain-halves.csv"),
        *((f"20-{name}.csv", "plain-without-one.csv") for name in ("na", "n-slash-a", "nan", "dash")),
    ],
)
def test_ratings_of_the_field(name: str, like: str) -> None:
    found, expected = (agreement(read_ratings(field(f"ratings/{each}")), resamples=50) for each in (name, like))
    assert found == expected
    if like in FIGURES:
        fleiss, *alphas, number = FIGURES[like]
        assert (
            found["fleiss"] is None if fleiss is None else found["fleiss"]["value"] == pytest.approx(fleiss, abs=5e-4)
        )
        values = [each["value"] for each in found["krippendorff"].values()]
        assert values == pytest.approx(alphas, abs=5e-4)
        assert (len(found["raters"]), found["ratings"]) == (3, number)
        assert ("1 of 18 ratings is missing." in found["warnings"]) == (number == 17)


def test_other_ratings_of_the_field() -> None:
    with pytest.raises(EsckitError, match="is not UTF-8 text"):
        read_ratings(field("ratings/19-gbk.csv"))
    with pytest.raises(EsckitError, match=r"it is JSON and not CSV.*conv_id, annotator and model-preference"):
        read_ratings(field("ratings/35-pairwise-export.json"))
    found = agreement(read_ratings(field("ratings/40-all-apart.csv")))
    for figure in (found["fleiss"], *found["krippendorff"].values()):
        assert figure["interval"][0] <= figure["value"] <= figure["interval"][1]
    assert found["warnings"][0].startswith("Only 6 items")
