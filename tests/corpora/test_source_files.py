"""Files taken apart into records with their lines, broken ones too."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esckit.corpora.source_files import Record, json_lines, json_list
from esckit.errors import CorpusError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def of(text: str, tmp_path: Path) -> list[Record]:
    path = tmp_path / "file"
    path.write_text(text, encoding="utf-8")
    return list(json_list(path))


@given(items=st.lists(JSON, max_size=5), indent=st.sampled_from([None, 0, 2]))
def test_a_list_gives_its_items_however_it_is_indented(
    items: list[Any], indent: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = json.dumps(items, indent=indent)
    assert [record.value for record in of(text, tmp_path_factory.getbasetemp())] == items


def test_each_item_has_the_line_where_it_begins(tmp_path: Path) -> None:
    assert of('\n[ {"a":\n 1},\n\n{"b": 2}\n,{"c": "\\n"}, {}]\n', tmp_path) == [
        Record(2, {"a": 1}),
        Record(5, {"b": 2}),
        Record(6, {"c": "\n"}),
        Record(6, {}),
    ]


@pytest.mark.parametrize(
    ("text", "records"),
    [
        ('[\n{"a": 1},\n{"b": },\n{"c": 3}\n]', [{"a": 1}, 3, {"c": 3}]),
        ('[\n{"a": 1},\n{"b": "no end,\n{"c": 3}\n]', [{"a": 1}, 3, {"c": 3}]),
        ('[\n{"a": 1}\n{"b": 2}\n]', [{"a": 1}, 3, {"b": 2}]),
        ('[\n{"a": 1},\n]', [{"a": 1}, 3]),
        ('[\n{"a": 1},\n{"b": 2}', [{"a": 1}, {"b": 2}, 3]),
        ('[\n{"a": 1}\n] and more', [{"a": 1}, 2]),
        ('[\n{"a": 1}\n', [{"a": 1}, 3]),
        ("[", [1]),
    ],
)
def test_a_broken_item_says_so_and_does_not_hide_the_others(text: str, records: list[Any], tmp_path: Path) -> None:
    """Numbers stand for the lines of problems."""
    assert [record.line if record.problem else record.value for record in of(text, tmp_path)] == records


def test_lines_are_numbered_and_blank_ones_skipped(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text('{"a": 1}\n\n{"b": }\n "c"\n', encoding="utf-8")
    assert list(json_lines(path)) == [
        Record(1, {"a": 1}),
        Record(3, problem="not valid JSON (Expecting value): mend that line."),
        Record(4, "c"),
    ]


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"[\xff]")
    with pytest.raises(CorpusError, match=r"file is not UTF-8 text \(byte 1\), and neither UTF-16 nor"):
        next(json_list(tmp_path / "file"))
