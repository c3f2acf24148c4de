"""Which format a file has, and reading and writing by it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esckit.conversation import conversation_to_json, parse_conversation
from esckit.corpora import FORMATS, read_corpus, write_corpus
from esckit.corpora.formats import find_format
from esckit.corpora.labels import NO_MAP
from esckit.corpora.linter import KINDS, conversation_findings
from esckit.errors import CorpusError

from .items import (
    annomi_row,
    conversations,
    counselling_item,
    extes_item,
    failed_item,
    item,
    utterance,
    write_annomi,
    write_items,
    write_lines,
)


@pytest.mark.parametrize("format", ["tree", "esconv"])
def test_what_is_written_is_recognised_and_read_back(format: str, tmp_path: Path) -> None:
    path = tmp_path / "ESConv.json"
    write_corpus(path, conversations(3), format)
    assert find_format(path) == format
    assert read_corpus(path) == read_corpus(path, format) == conversations(3)


def test_every_format_is_recognised_but_those_that_look_alike(tmp_path: Path) -> None:
    files = {
        "esconv": write_items(tmp_path / "e.json", [item()]),
        "failed_esconv": write_items(tmp_path / "f.json", [failed_item()]),
        "extes": write_items(tmp_path / "x.json", [extes_item()]),
        "annomi": write_annomi(tmp_path / "a.csv", [annomi_row()]),
    }
    assert {format: find_format(path) for format, path in files.items()} == {format: format for format in files}
    with pytest.raises(CorpusError, match=r"s.jsonl could be cpsycoun or smile, .*: name the format \(--format;"):
        find_format(write_lines(tmp_path / "s.jsonl", [counselling_item()]))


@pytest.mark.parametrize("source", [item(), failed_item(), extes_item()], ids=["esconv", "failed_esconv", "extes"])
def test_lines_and_a_list_are_one_thing(source: Any, tmp_path: Path) -> None:
    listed, lines = write_items(tmp_path / "d", [source]), write_lines(tmp_path / "lines.txt", [source])
    assert find_format(listed) == find_format(lines)
    assert [tree.turns for tree in read_corpus(listed)] == [tree.turns for tree in read_corpus(lines)]


@pytest.mark.parametrize("format", sorted({*FORMATS} - {"tree", "esconv", "failed_esconv"}))
def test_formats_that_are_only_read_are_not_written(format: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=f"esckit reads the format '{format}' and does not write it: write tree."):
        write_corpus(tmp_path / "x", conversations(1), format)


def test_a_list_is_written_with_a_dialogue_a_line(tmp_path: Path) -> None:
    write_corpus(tmp_path / "x.json", conversations(3), "esconv")
    lines = (tmp_path / "x.json").read_text(encoding="utf-8").split("\n")
    assert (lines[0], lines[-2:], len(lines)) == ("[", ["]", ""], 6)
    write_corpus(tmp_path / "x.json", [], "esconv")
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("text", ["", " \n\n"])
def test_an_empty_file_is_called_empty(text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError, match="file is empty: give"):
        read_corpus(tmp_path / "file")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": ' + "9" * 5000, '[{"dialog": "\\ud800"}]'], ids=len)
def test_json_that_python_cannot_read_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError):
        read_corpus(tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("Hello", "text that is no JSON and has no speakers' marks"),
        ('{"text": []}', "text"),
        ('[{"conversation": [{"a": 1, "b": 2}], "c": {"d": 3}}]', "conversation (a, b), c (d)"),
        ("[[1, 2]]", "lists of values such as 1"),
        ('"text"', "texts without a speaker's mark"),
        ("seeker,supporter\n", "text that is no JSON and has no speakers' marks"),
    ],
)
def test_a_file_in_no_known_format_is_refused(text: str, has: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError) as error:
        read_corpus(path)
    assert str(error.value) == (
        f"{path} is in no format that esckit knows ({', '.join(FORMATS)}); it has {has}: "
        "convert it into one of them, as docs/corpora.md describes."
    )


WORDS = ("seeker", "speaker", "client", "usr", "Question", "Offer Hope", "", "1")
KEYS = ("id", "parent", "speaker", "content", "annotation", "strategy", "text", "User", "AI", "AI Strategy", "extra")
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 1) | st.floats() | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=4,
)
ENTRIES = st.lists(st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=6) | ANYTHING, max_size=4)
RECORDS = ANYTHING | st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("dialog", "content", "turns"), ENTRIES | ANYTHING),
        **dict.fromkeys(("id", "situation", "emotion_type", "topic", "scene", "taxonomy", "preferences"), ANYTHING),
        "format": st.just(1) | ANYTHING,
    },
)


@pytest.mark.parametrize("format", sorted({*FORMATS} - {"annomi"}))
@given(value=RECORDS)
def test_whatever_a_record_holds_is_read_or_said_to_be_wrong(format: str, value: Any) -> None:
    reading = FORMATS[format].read(json.dumps(value) if format == "tree" else value, 0, "file", NO_MAP)
    assert reading.conversation is not None or reading.problems or reading.dropped
    assert all(problem.text.endswith(".") for problem in (*reading.problems, *reading.dropped))
    if reading.conversation is not None:
        assert all(problem.kind in KINDS for problem in conversation_findings(reading.conversation, alternates=True))
        if not reading.problems:
            assert parse_conversation(json.dumps(conversation_to_json(reading.conversation))) == reading.conversation


def test_leading_space_and_indentation_do_not_hide_the_format(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("\n  " + json.dumps([item()], indent=2), encoding="utf-8")
    assert find_format(path) == "esconv"


def test_a_format_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    for act in (lambda: read_corpus(tmp_path, "csv"), lambda: write_corpus(tmp_path / "x", [], "csv")):
        with pytest.raises(CorpusError, match="the corpus format 'csv' is unknown: use one of tree, esconv"):
            act()


def test_the_wrong_format_for_a_file_is_refused(tmp_path: Path) -> None:
    path = write_items(tmp_path / "own.json", [item()])
    with pytest.raises(CorpusError, match=r"own.json:1: the record has format None"):
        read_corpus(path, "tree")


def test_a_file_without_supporter_turns_is_refused(tmp_path: Path) -> None:
    path = write_items(tmp_path / "own.json", [{"dialog": [utterance("seeker")]}] * 2)
    with pytest.raises(CorpusError) as error:
        read_corpus(path)
    assert str(error.value).startswith(f"{path} has no supporter turn in 2 dialogues: ")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"none.json does not exist: give the path of a dialogue file\."):
        read_corpus(tmp_path / "none.json")
