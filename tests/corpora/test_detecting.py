"""What a file's format is told from, and the files that are refused with a sentence instead of being guessed."""

import json
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import conversation_to_json
from esckit.corpora import read_corpus, write_corpus
from esckit.corpora.formats import find_format
from esckit.errors import CorpusError

from ..trees import small_tree
from .items import counselling_item, item, utterance, write_items, write_lines

NONE: dict[str, Any] = {
    "instruction rows": {"instruction": "Help.", "input": "seeker: Hm.", "output": "Why?"},
    "AnnoMI as JSON": {"dialog": [{"interlocutor": "client", "content": "Hm."}]},
    "DailyDialog": {"dialog": [{"text": "Hm.", "act": 1, "emotion": 0}]},
    "queries": {"query": "Hm.", "response": "Why?", "history": [{"query": "a", "response": "b"}]},
    "preferences": {"prompt": "Hm.", "chosen": "Why?", "rejected": "So?"},
    "an emotion": {"text": "Hm.", "label": "sadness"},
    "role cards": {"base": "A card.", "language": "en", "id": 1},
    "pairs of other names": [["A", "Hm."], ["B", "Why?"]],
    "texts": "Hm.",
    "numbers": 3,
    "an empty dialogue": {"dialog": []},
}


@pytest.mark.parametrize("value", NONE.values(), ids=NONE)
@pytest.mark.parametrize("write", [write_items, write_lines])
def test_what_shows_no_form_is_refused_and_its_fields_are_named(value: Any, write: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "d.json", [value, value])
    with pytest.raises(CorpusError) as error:
        find_format(path)
    assert "is in no format that esckit knows (tree, esconv," in str(error.value)
    if isinstance(value, dict):
        assert next(iter(value)) in str(error.value).partition("it has")[2]


@pytest.mark.parametrize("key", ["data", "train"])
def test_lists_inside_an_object_are_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=rf"it has {key} \(id, experience_type, .*dialog"):
        find_format(write_items(tmp_path / "d.json", {key: [item()]}))


def test_one_broken_dialogue_does_not_hide_the_format(tmp_path: Path) -> None:
    assert find_format(write_items(tmp_path / "a.json", [{"situation": "Hm."}, 3, item()])) == "esconv"
    assert find_format(write_lines(tmp_path / "b.jsonl", [{"situation": "Hm."}, item()])) == "esconv"
    (tmp_path / "c.json").write_text('[\n{"a": },\n{"dialog": [{"speaker": "seeker", "content": "Hm."}]}]')
    assert find_format(tmp_path / "c.json") == "esconv"


UNSURE: dict[str, tuple[Any, str]] = {
    "lines": (
        [counselling_item()],
        "could be cpsycoun or smile, which differ in their licences: name the format (",
    ),
    "one marked dialogue": (
        ["求助者：我很累。", "支持者：怎么了？"],
        "is in no format that esckit knows for certain: one dialogue in marked lines is cpsycoun's or anybody's",
    ),
    "rows with a history": (
        [{"instruction": "Hm.", "input": "", "output": "Why?", "history": [["a", "b"]]}],
        "is in no format that esckit knows for certain: rows for instruction tuning with a history may be",
    ),
}


@pytest.mark.parametrize(("value", "sentence"), UNSURE.values(), ids=UNSURE)
def test_what_could_be_several_is_refused_and_read_by_name(value: Any, sentence: str, tmp_path: Path) -> None:
    path = write_items(tmp_path / "d.json", value)
    with pytest.raises(CorpusError) as error:
        read_corpus(path)
    assert sentence in str(error.value)
    assert len(read_corpus(path, "cpsycoun")) == 1


def test_a_list_of_trees_is_read_too(tmp_path: Path) -> None:
    path = write_items(tmp_path / "t.json", [conversation_to_json(small_tree())])
    assert read_corpus(path) == [small_tree()]


def test_esconv_with_other_names_of_speakers_is_written_back_as_it_was(tmp_path: Path) -> None:
    source = [item(dialog=[utterance("Usr", "Hm."), utterance("SUPPORTER", "Why?", "Question")])]
    trees = read_corpus(write_items(tmp_path / "e.json", source))
    assert [turn.speaker for turn in trees[0].turns] == ["seeker", "supporter"]
    write_corpus(tmp_path / "back.json", trees, "esconv")
    assert json.loads((tmp_path / "back.json").read_text()) == source
