"""Splits by drawing, by ids, and by DecoupledESC's ids."""

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esckit.conversation import Conversation, Turn
from esckit.corpora import load_corpus, read_corpus
from esckit.corpora.splits import (
    Corpus,
    Parts,
    decoupled_esc_split_ids,
    origin_of,
    split_by,
    split_by_ids,
    split_by_ratio,
)
from esckit.errors import CorpusError

from .items import conversations

TEN = conversations(10)


def ids(parts: Parts) -> list[list[str]]:
    return [[conversation.id for conversation in part] for part in parts]


@pytest.mark.parametrize(
    ("ratio", "sizes"),
    [("8:1:1", [8, 1, 1]), ("9:1", [9, 1, 0]), ("1:1", [5, 5, 0]), (".7:.2:.1", [7, 2, 1]), ("1:0:0", [10, 0, 0])],
)
def test_a_ratio_gives_the_sizes(ratio: str, sizes: list[int]) -> None:
    assert [len(part) for part in split_by_ratio(TEN, ratio, seed=0)] == sizes


@given(st.integers(0, 60), st.lists(st.integers(1, 9), min_size=2, max_size=3), st.integers())
def test_a_ratio_puts_every_dialogue_into_one_part(count: int, weights: list[int], seed: int) -> None:
    drawn = split_by_ratio([Conversation(str(n), []) for n in range(count)], ":".join(map(str, weights)), seed=seed)
    assert sorted(chain(*ids(drawn)), key=int) == [str(n) for n in range(count)]


def test_a_draw_depends_on_seed_and_ids_and_not_on_the_order_of_the_file() -> None:
    first = ids(split_by_ratio(TEN, "8:1:1", seed=3))
    again = ids(split_by_ratio(TEN[::-1], "8:1:1", seed=3))
    assert [sorted(part) for part in first] == [sorted(part) for part in again]
    assert first[0] == sorted(first[0], key=lambda name: int(name.removeprefix("esconv-"))), (
        "parts keep the file's order"
    )
    assert len({tuple(ids(split_by_ratio(TEN, "8:1:1", seed=seed))[2]) for seed in range(20)}) > 3
    assert first[1:] == [["esconv-2"], ["esconv-9"]], "a seed must draw the same parts in every version"


@pytest.mark.parametrize("ratio", ["8", "8:1:1:1", "a:b", "0:1:1", "8:-1", "nan:1", "inf:1", ":", "8:1:"])
def test_a_ratio_that_cannot_be_read_is_refused(ratio: str) -> None:
    with pytest.raises(CorpusError, match=r"write train:valid:test in numbers, such as 8:1:1\.|lists no dialogues"):
        split_by_ratio(TEN, ratio, seed=0)


def test_ids_are_texts_or_positions_and_what_is_not_listed_is_in_no_part(tmp_path: Path) -> None:
    path = tmp_path / "ids.json"
    path.write_text('{"train": [0, "esconv-4", 1], "test": ["esconv-2"], "excluded": [3]}', encoding="utf-8")
    assert ids(split_by(TEN, str(path), seed=0)) == [["esconv-0", "esconv-1", "esconv-4"], [], ["esconv-2"]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([0], "the split mine lists no dialogues for train: write {"),
        ({"valid": [0]}, "the split mine lists no dialogues for train: write {"),
        ({"train": [0], "dev": [1]}, "the split mine has the unknown part 'dev': write {"),
        ({"train": [0], "valid": 1}, "the split mine has something else than ids under 'valid': write {"),
        ({"train": [0, True]}, "the split mine has something else than ids under 'train': write {"),
        ({"train": [0, 0]}, "the split mine lists 0 for train and for train: list every dialogue once."),
        ({"train": [0], "test": ["esconv-0"]}, "the split mine lists 'esconv-0' for train and for test: list every"),
        (
            {"train": [0, 10], "valid": ["x"]},
            "the split mine lists 3 dialogues, and 2 of them are not in the file (such as 'esconv-10'): give the file",
        ),
    ],
)
def test_ids_that_do_not_fit_are_refused(wrong: Any, message: str) -> None:
    with pytest.raises(CorpusError) as error:
        split_by_ids(TEN, wrong, source="mine")
    assert str(error.value).startswith(message)


def test_an_id_file_is_named_where_it_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"give the path of an id file, 'decoupled-esc' or a ratio such as 8:1:1\."):
        split_by(TEN, str(tmp_path / "none.json"), seed=0)
    (tmp_path / "ids.json").write_text("{\n'", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"ids.json:2: not valid JSON"):
        split_by(TEN, str(tmp_path / "ids.json"), seed=0)


def test_the_shipped_ids_divide_all_1300_positions() -> None:
    parts = decoupled_esc_split_ids()
    assert {name: len(part) for name, part in parts.items()} == {
        "test": 130,
        "valid": 130,
        "train": 1028,
        "excluded_from_train": 12,
    }
    assert sorted(chain(*parts.values())) == list(range(1300))


def test_decoupled_esc_divides_a_whole_esconv_by_position() -> None:
    parts = split_by(conversations(1300), "decoupled-esc", seed=0)
    expected = decoupled_esc_split_ids()
    assert ids(parts) == [[f"esconv-{n}" for n in sorted(expected[part])] for part in ("train", "valid", "test")]
    with pytest.raises(CorpusError, match="decoupled-esc lists 1288 dialogues, and 1278 of them are not in the file"):
        split_by(TEN, "decoupled-esc", seed=0)


def test_the_published_parts_have_the_retellings_too() -> None:
    parts = split_by(conversations(1300), "decoupled-esc-published", seed=0)
    assert [len(part) for part in parts] == [1040, 130, 130]
    ours = split_by(conversations(1300), "decoupled-esc", seed=0)
    assert (parts.valid, parts.test) == (ours.valid, ours.test)


def test_a_ratio_in_order_draws_nothing() -> None:
    assert ids(split_by(TEN, "8:1:1 in order", seed=0)) == [
        [f"esconv-{n}" for n in range(8)],
        ["esconv-8"],
        ["esconv-9"],
    ]
    assert split_by(TEN, "9:1 in order", seed=0) == split_by(TEN, "9:1 in order", seed=1)
    with pytest.raises(CorpusError, match="the split '9:1 sorted' cannot be read: write a ratio such as 8:1:1, or"):
        split_by(TEN, "9:1 sorted", seed=0)


@pytest.mark.corpus
def test_the_data_folder_has_decoupled_esc_parts(data_dir: Path) -> None:
    published = json.loads((data_dir / "esconv/split_ids.json").read_text(encoding="utf-8"))
    assert published == decoupled_esc_split_ids()
    corpus = load_corpus("esconv", train=data_dir / "esconv/train.json", valid=data_dir / "esconv/valid.json")
    for part, dialogues, supporter_turns in ((corpus.train, 1028, 14606), (corpus.valid, 130, 1821)):
        assert len(part) == dialogues
        assert sum(turn.speaker == "supporter" for c in part for turn in c.trunk) == supporter_turns
        assert all(turn.strategy for c in part for turn in c.trunk if turn.speaker == "supporter")
    assert [c.id for c in corpus.train] == [f"esconv-{n}" for n in published["train"]]
    assert {c.id for c in corpus.valid} == {f"esconv-{n}" for n in published["valid"]}


@pytest.mark.corpus
def test_one_file_split_by_ids_gives_the_same_parts_as_two_files(data_dir: Path, tmp_path: Path) -> None:
    parts = {part: json.loads((data_dir / f"esconv/{part}.json").read_text("utf-8")) for part in ("train", "valid")}
    (tmp_path / "both.json").write_text(json.dumps(parts["valid"] + parts["train"]), encoding="utf-8")
    here = {part: ids for part, ids in decoupled_esc_split_ids().items() if part != "test"}
    (tmp_path / "ids.json").write_text(json.dumps(here), encoding="utf-8")
    corpus = load_corpus("esconv", file=tmp_path / "both.json", split=str(tmp_path / "ids.json"))
    for name, part in (("train", corpus.train), ("valid", corpus.valid)):
        expected = read_corpus(data_dir / f"esconv/{name}.json")
        assert [c.turns for c in part] == [c.turns for c in expected]


def versions(sources: int, each: int) -> list[Conversation]:
    """Dialogues that were derived from some sources, one version of all before the next one of all."""
    turns = [Turn("0", None, "seeker", "Hello."), Turn("1", "0", "supporter", "Hello.", "Others")]
    return [
        Conversation(f"q-{source}--role-{role}", turns, provenance={"derived_from": f"q-{source}"})
        for role in range(each)
        for source in range(sources)
    ]


@pytest.mark.parametrize("split", ["8:1:1", "8:1:1 in order", "1:1"])
def test_versions_of_a_source_are_in_one_part(split: str) -> None:
    derived = versions(20, 9)
    parts = split_by(derived, split, seed=0)
    origins = [{origin_of(tree) for tree in part} for part in parts]
    assert sum(map(len, origins)) == len(set().union(*origins)) == 20
    assert sum(map(len, parts)) == len(derived)
    whole = split_by([replace(tree, id=origin_of(tree)) for tree in derived[:20]], split, seed=0)
    assert [{tree.id for tree in part} for part in whole] == origins, "they go where their source would go"


def test_versions_of_a_source_in_two_parts_are_no_corpus() -> None:
    one, other = versions(1, 2)
    source = replace(one, id="q-0", provenance={})
    for pair in ((one, other), (source, one)):
        with pytest.raises(CorpusError, match="or what is derived from them, stand in both train and test"):
            Corpus("own", [pair[0]], [], [pair[1]], "unknown", "own.json")
