"""From arguments to a checked corpus, and a sentence for each wrong combination."""

from pathlib import Path
from typing import Any

import pytest

from esckit.corpora import load_corpus, write_corpus
from esckit.errors import CorpusError

from .items import conversations, item, utterance, write_items

CARDS = conversations(6)


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Path]:
    """Tree files of 3, 2 and 1 dialogues, and all six in ``file``."""
    slices = {"train": CARDS[:3], "valid": CARDS[3:5], "test": CARDS[5:], "file": CARDS}
    for name, part in slices.items():
        write_corpus(tmp_path / f"{name}.jsonl", part)
    return {name: tmp_path / f"{name}.jsonl" for name in slices}


def test_a_file_a_part(parts: dict[str, Path]) -> None:
    corpus = load_corpus("tree", train=str(parts["train"]), valid=parts["valid"], test=parts["test"])
    assert (corpus.train, corpus.valid, corpus.test) == (CARDS[:3], CARDS[3:5], CARDS[5:])
    assert (corpus.name, corpus.licence) == ("tree", "CC-BY-NC-4.0")
    assert corpus.source == f"{parts['train']}, {parts['valid']}, {parts['test']}"


def test_valid_and_test_may_be_left_out(parts: dict[str, Path]) -> None:
    corpus = load_corpus("tree", train=parts["train"])
    assert (corpus.train, corpus.valid, corpus.test) == (CARDS[:3], [], [])


def test_one_file_and_a_ratio(parts: dict[str, Path]) -> None:
    corpus = load_corpus("tree", file=parts["file"], split="4:1:1", split_seed=5)
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [4, 1, 1]
    assert corpus == load_corpus("tree", file=parts["file"], split="4:1:1", split_seed=5)
    assert corpus.source == f"{parts['file']} split by 4:1:1"
    drawn = [load_corpus("tree", file=parts["file"], split="4:1:1", split_seed=seed).test for seed in range(20)]
    assert any(test != corpus.test for test in drawn)


def test_esconv_files_are_read_as_such(tmp_path: Path) -> None:
    corpus = load_corpus("esconv", file=write_items(tmp_path / "E.json", [item(id=n) for n in range(4)]), split="3:1")
    assert sorted(c.id for c in corpus.train + corpus.valid) == ["esconv-0", "esconv-1", "esconv-2", "esconv-3"]


def test_licences_are_gathered_and_their_absence_said(tmp_path: Path) -> None:
    text = '{"format": 1, "id": "%s", "turns": [{"id": "0", "parent": null, "speaker": "supporter", "text": "Hi"}]%s}\n'
    own = tmp_path / "own.jsonl"
    own.write_text(text % ("a", "") + text % ("b", ', "provenance": {"licence": "CC0-1.0"}'), encoding="utf-8")
    assert load_corpus("tree", train=own).licence == "CC0-1.0, unknown"


def test_parts_that_only_places_name_do_not_overlap(tmp_path: Path) -> None:
    """Rows of ESConv have no ids: the first dialogue of each file is called by its place."""
    bare = [{key: value for key, value in item().items() if key != "id"}]
    files: dict[str, Any] = {part: write_items(tmp_path / f"{part}.json", bare) for part in ("train", "valid", "test")}
    corpus = load_corpus("esconv", **files)
    assert [tree.id for part in corpus.parts.values() for tree in part] == [
        "train-esconv-0",
        "valid-esconv-0",
        "test-esconv-0",
    ]
    assert [tree.id for tree in load_corpus("esconv", train=files["train"]).train] == ["esconv-0"]


def test_turns_are_merged_after_the_split_and_the_source_says_so(parts: dict[str, Path]) -> None:
    corpus = load_corpus("tree", train=parts["train"], valid=parts["valid"], turn_rule="merged", merged_label="last")
    assert corpus.source.endswith(", turns merged (last label)")
    assert [turn.strategy for turn in corpus.train[0].turns] == ["Question", None, "Question"]
    plain = load_corpus("tree", train=parts["train"], valid=parts["valid"])
    assert [tree.id for tree in plain.train] == [tree.id for tree in corpus.train]


def test_a_map_of_labels_is_for_files(tmp_path: Path) -> None:
    own = write_items(tmp_path / "e.json", [item(dialog=[utterance("supporter", "Hm.", "Tip")])])
    mapped = write_items(tmp_path / "map.json", {"Tip": "Information"})
    assert load_corpus("esconv", train=own, labels=mapped).train[0].turns[0].strategy == "Information"
    with pytest.raises(CorpusError, match="a map of labels is for files, and the corpus starter is given without any"):
        load_corpus("starter", labels=mapped)


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "name": (
        "esc",
        {},
        "the corpus 'esc' is unknown: use one of starter, starter-zh, tree, esconv, failed_esconv, extes,",
    ),
    "starter with files": ("starter", {"train": "a"}, "the starter corpus brings its own"),
    "the Chinese starter with files": ("starter-zh", {"train": "a"}, "the starter-zh corpus brings its own"),
    "starter with a split": ("starter", {"split": "8:1:1"}, "the starter corpus brings its own"),
    "both ways": ("tree", {"train": "a", "file": "b"}, "a corpus is"),
    "parts and a split": ("tree", {"train": "a", "split": "8:1:1"}, "a corpus is"),
    "valid alone": ("tree", {"valid": "a"}, "a valid file is given without a train file: add train."),
    "test alone": ("esconv", {"test": "a"}, "a test file is given without a train file: add train."),
    "file alone": ("tree", {"file": "a"}, "a corpus with a file needs a split (such as 8:1:1) too: add it, or give"),
    "split alone": ("esconv", {"split": "8:1:1"}, "a corpus with a split needs a file too: add it, or give"),
    "tree without files": ("tree", {}, "the corpus tree needs files: give train (valid, test), or file and split."),
    "smile without files": ("smile", {}, "the corpus smile needs files: give train"),
    "missing file": ("tree", {"train": "no/such/file"}, "no/such/file does not exist: give the path of"),
}


@pytest.mark.parametrize(("name", "arguments", "message"), WRONG.values(), ids=WRONG.keys())
def test_arguments_that_do_not_go_together_are_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CorpusError) as error:
        load_corpus(name, **arguments)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(("one", "other"), [("train", "valid"), ("train", "test"), ("valid", "test")])
def test_parts_that_overlap_are_refused(one: str, other: str, parts: dict[str, Path]) -> None:
    files: dict[str, Any] = {"train": parts["train"], "valid": parts["valid"], other: parts[one]}
    with pytest.raises(CorpusError) as error:
        load_corpus("tree", **files)
    shared = {"train": "3 conversations", "valid": "2 conversations"}[one]
    assert str(error.value).startswith(shared)
    assert f"stand in both {one} and {other} (such as 'esconv-" in str(error.value)


def test_an_empty_training_part_is_refused(parts: dict[str, Path]) -> None:
    with pytest.raises(
        CorpusError, match=r"the training part of .* split by 1:99 is empty: give it dialogues, or anoth"
    ):
        load_corpus("tree", file=parts["file"], split="1:99")


def test_a_part_without_supporter_turns_is_named(parts: dict[str, Path], tmp_path: Path) -> None:
    silent = write_items(tmp_path / "silent.json", [{"dialog": [utterance("seeker")]}])
    with pytest.raises(CorpusError, match=r"silent.json has no supporter turn in 1 dialogues: "):
        load_corpus("esconv", train=silent)
