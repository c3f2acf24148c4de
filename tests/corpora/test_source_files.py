"""Files taken apart into records with their lines, broken ones too."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esckit.corpora.source_files import Record, dialogue_records, json_lines, json_list
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


@settings(deadline=None)
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


# ----------------------------------------------------------------------------------------------- however it is laid out

ONE, TWO = {"dialog": [1]}, {"dialog": [2]}
LAYOUTS = {
    "a list": json.dumps([ONE, TWO]),
    "an indented list": json.dumps([ONE, TWO], indent=2),
    "lines": f"{json.dumps(ONE)}\n{json.dumps(TWO)}\n",
    "lines with blank ones": f"\n{json.dumps(ONE)}\n\n{json.dumps(TWO)}",
    "lines with carriage returns": f"{json.dumps(ONE)}\r\n{json.dumps(TWO)}\r\n",
    "texts alone in lines": "\n".join(json.dumps(json.dumps(each)) for each in (ONE, TWO)),
    "texts in lines": "\n".join(json.dumps({"text": json.dumps(each)}) for each in (ONE, TWO)),
}


def laid_out(text: str, tmp_path: Path, name: str = "d.txt") -> list[Record]:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    return list(dialogue_records(tmp_path / name))


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_lists_and_lines_are_one_thing(text: str, tmp_path: Path) -> None:
    assert [record.value for record in laid_out(text, tmp_path)] == [ONE, TWO]


SAID = [["usr", "Hm."], ["sys", "Why?"]]
TALK = [{"role": "user", "content": "Hm."}, {"role": "assistant", "content": "Why?"}]
MARKED = ["User: Hm.", "Assistant: Why?"]
DIALOGUES: dict[str, tuple[str, list[tuple[str | None, Any]]]] = {
    "one object": (json.dumps(ONE, indent=1), [(None, ONE)]),
    "one object of messages": (json.dumps({"messages": TALK}, indent=1), [(None, {"messages": TALK})]),
    "one text": (json.dumps(json.dumps(ONE)), [(None, ONE)]),
    "one list of pairs": (json.dumps(SAID), [("d", SAID)]),
    "lists of pairs in lines": (f"{json.dumps(SAID)}\n{json.dumps(SAID)}", [(None, SAID)] * 2),
    "a list of lists of pairs": (json.dumps([SAID, SAID]), [(None, SAID)] * 2),
    "one list of marked lines": (json.dumps(MARKED), [("d", MARKED)]),
    "marked lines by name": (json.dumps({"a": MARKED, "b": MARKED}, indent=1), [("a", MARKED), ("b", MARKED)]),
    "the same in a line": (json.dumps({"a": MARKED}), [("a", MARKED)]),
    "a field of its own in lines": ("\n".join([json.dumps({"a": MARKED})] * 2), [(None, {"a": MARKED})] * 2),
    "marked text": ("User: Hm.\n\nAssistant: Why?\n", [("d", MARKED)]),
    "marked text over lines": ("User: Hm.\nYes.\nAssistant: Why?", [("d", ["User: Hm.\nYes.", MARKED[1]])]),
}


@pytest.mark.parametrize(("text", "records"), DIALOGUES.values(), ids=DIALOGUES)
def test_a_dialogue_is_told_from_a_list_of_them(
    text: str, records: list[tuple[str | None, Any]], tmp_path: Path
) -> None:
    assert [(record.name, record.value) for record in laid_out(text, tmp_path)] == records


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('{"a": \n{"b": 1}\n', [1, 0]),
        ('{"a": 1}\nb\n', [0, 2]),
        ('{\n"a": }', [2]),
        ('{"a": 1}\n{"b": }', [0, 2]),
        ("Hello.\nUser: Hm.", [1]),
    ],
)
def test_a_broken_line_is_named_and_does_not_hide_the_others(text: str, lines: list[int], tmp_path: Path) -> None:
    """0 is a line that can be read."""
    assert [record.line if record.problem else 0 for record in laid_out(text, tmp_path)] == lines


def test_a_folder_gives_its_files_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "smile"
    folder.mkdir()
    for name in ("10", "2", "0"):
        (folder / f"{name}.json").write_text(json.dumps([{"role": "client", "content": name}]), encoding="utf-8")
    (folder / "README.txt").write_text("No dialogue.", encoding="utf-8")
    records = list(dialogue_records(folder))
    assert [(record.name, record.value[0]["content"]) for record in records] == [("0", "0"), ("2", "2"), ("10", "10")]
    assert [record.line for record in records] == [1, 2, 3]


def test_folders_in_a_folder_are_part_of_the_name(tmp_path: Path) -> None:
    for topic in ("a", "b"):
        (tmp_path / topic).mkdir()
        (tmp_path / topic / "case_0.txt").write_text("User: Hm.\nAssistant: Why?", encoding="utf-8")
    (tmp_path / "b" / "case_1.txt").write_text("Nobody.", encoding="utf-8")
    records = list(dialogue_records(tmp_path))
    assert [record.name for record in records] == ["a-case_0", "b-case_0", None]
    assert str(records[2].problem).startswith("case_1.txt: this line is no JSON and has no speaker's mark")


def test_a_folder_without_dialogue_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is a folder without dialogue files"):
        list(dialogue_records(tmp_path))


def test_parquet_gives_its_rows_whatever_its_ending(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"text": json.dumps(ONE), "id": 1}, {"text": json.dumps(TWO), "id": 2}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.data")
    assert [record.value for record in dialogue_records(tmp_path / "rows.data")] == [{**ONE, "id": 1}, {**TWO, "id": 2}]
    broken = (tmp_path / "rows.data").read_bytes()[:-20]
    (tmp_path / "broken.parquet").write_bytes(broken)
    with pytest.raises(CorpusError, match=r"broken.parquet cannot be read as Parquet .*: download it again"):
        list(dialogue_records(tmp_path / "broken.parquet"))
