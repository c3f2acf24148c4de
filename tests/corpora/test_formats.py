"""Which format a file has, and reading and writing by it."""

import json
from pathlib import Path

import pytest

from esckit.corpora import FORMATS, read_corpus, write_corpus
from esckit.corpora.formats import detect_format
from esckit.errors import CorpusError

from .items import conversations, item, utterance, write_items


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_is_recognised_and_read_back(format: str, tmp_path: Path) -> None:
    path = tmp_path / "ESConv.json"
    write_corpus(path, conversations(3), format)
    assert detect_format(path) == format
    assert read_corpus(path) == read_corpus(path, format) == conversations(3)


@pytest.mark.parametrize("text", ["", "Hello", '{"dialog": []}', "{\n", '"text"', "seeker,supporter\n"])
def test_a_file_in_no_known_format_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError) as error:
        read_corpus(path)
    assert str(error.value) == (
        f"{path} is neither a JSON list of ESConv dialogues nor JSON Lines of conversation trees: "
        "convert it into one of them, as docs/corpora.md describes."
    )


def test_leading_space_and_indentation_do_not_hide_the_format(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("\n  " + json.dumps([item()], indent=2), encoding="utf-8")
    assert detect_format(path) == "esconv"


def test_a_format_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    for act in (lambda: read_corpus(tmp_path, "csv"), lambda: write_corpus(tmp_path / "x", [], "csv")):
        with pytest.raises(CorpusError, match="the corpus format 'csv' is unknown: use one of tree, esconv"):
            act()


def test_the_wrong_format_for_a_file_is_refused(tmp_path: Path) -> None:
    path = write_items(tmp_path / "own.json", [item()])
    with pytest.raises(CorpusError, match=r"own.json:1: the record: input should be an object"):
        read_corpus(path, "tree")


def test_a_file_without_supporter_turns_is_refused(tmp_path: Path) -> None:
    path = write_items(tmp_path / "own.json", [{"dialog": [utterance("seeker")]}] * 2)
    with pytest.raises(CorpusError) as error:
        read_corpus(path)
    assert str(error.value).startswith(f"{path} has no supporter turn in 2 dialogues: ")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"none.json does not exist: give the path of a dialogue file\."):
        read_corpus(tmp_path / "none.json")
