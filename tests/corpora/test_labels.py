"""Labels of strategies as files write them: spellings, lists, and a user's map."""

import json
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import conversation_to_json
from esckit.corpora import read_corpus, write_corpus
from esckit.corpora.labels import LABELS_READ, NO_MAP, UnknownLabelError, read_label, read_label_map, several_labels
from esckit.corpora.linter import check_files
from esckit.errors import CorpusError
from esckit.strategy import CSO, ESCONV, fold_label

from ..trees import small_tree
from .items import annomi_row, extes_item, failed_item, item, utterance, write_annomi, write_items

OWN = {"Greeting": "Others", "Question": "Information", "Advice": None}


def labelled(*written: Any) -> list[dict[str, Any]]:
    return [item(dialog=[utterance("supporter", f"Text {n}.", each) for n, each in enumerate(written)])]


def map_of(folder: Path, labels: Any) -> Path:
    return write_items(folder / "map.json", labels)


@pytest.mark.parametrize(
    "spelling",
    [
        "Reflection of Feelings",
        "REFLECTION OF FEELINGS",
        " reflection  of feelings\n",
        "[Reflection of feelings]",
        "【Reflection of feelings】",
        "(reflection of feelings)",
        "reflection_of_feelings",
        '"Reflection of feelings."',
        "Reflection-of-feelings:",
        "Ｒｅｆｌｅｃｔｉｏｎ of feelings",
    ],
)
def test_spellings_of_a_label_are_one(spelling: str) -> None:
    assert read_label(spelling, ESCONV).strategy == "Reflection of feelings"


def test_no_two_labels_of_a_taxonomy_fold_into_one() -> None:
    for taxonomy in (ESCONV, CSO):
        assert len({fold_label(label) for label in taxonomy.labels}) == len(taxonomy.labels)


@pytest.mark.parametrize(
    ("written", "labels"),
    [
        (["Question", "Others"], ["Question", "Others"]),
        (["question"], None),
        ([], None),
        ("Question, Others", ["Question", "Others"]),
        ("[Question][Others]", ["Question", "Others"]),
        ("Question; others", ["Question", "Others"]),
        ("['Question', 'Others']", ["Question", "Others"]),
        (["Self-disclosure", "Question"], ["Self-disclosure", "Question"]),
        ("Restatement or Paraphrasing", None),
        (None, None),
        ("", None),
    ],
)
def test_of_several_labels_the_first_counts(written: Any, labels: list[str] | None) -> None:
    read = read_label(written, ESCONV)
    assert read.labels == labels
    if labels:
        assert read.strategy == labels[0]


@pytest.mark.parametrize("written", ["Advice", "Questions", 3, True, {"a": 1}, "Question, Advice", ["Advice"], [3]])
def test_what_is_no_label_is_unknown(written: Any) -> None:
    with pytest.raises(UnknownLabelError):
        read_label(written, ESCONV)


@pytest.mark.parametrize("text", [json.dumps(OWN), "Greeting: Others\nQuestion: Information\nAdvice: null\n"])
def test_a_map_is_json_or_yaml_and_comes_first(text: str, tmp_path: Path) -> None:
    (tmp_path / "map").write_text(text, encoding="utf-8")
    mapped = read_label_map(tmp_path / "map")
    assert [read_label(each, ESCONV, mapped).strategy for each in ("[greeting]", "question", "Advice", "Others")] == [
        "Others",
        "Information",
        None,
        "Others",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1]", "holds no map of labels: write one"),
        ("", "holds no map of labels"),
        ("a: [b]", "maps 'a' to ['b']: write one"),
        ("a: 3", "maps 'a' to 3"),
        ("a: b: c", "is neither YAML nor JSON"),
        ('{"a": }', "is neither YAML nor JSON"),
        ("a: Others\n'[A]': Question", "maps '[A]' twice, to 'Others' and 'Question'."),
    ],
)
def test_a_map_of_another_form_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError) as error:
        read_label_map(tmp_path / "map.yaml")
    assert str(error.value).startswith(f"{tmp_path / 'map.yaml'} {sentence}")
    assert "\n" not in str(error.value)


def test_a_map_to_no_label_says_which_there_are(tmp_path: Path) -> None:
    path = write_items(tmp_path / "e.json", labelled("Greeting"))
    with pytest.raises(CorpusError, match=r"map.json maps to 'Hello', which is no label of esconv: map to Question, "):
        read_corpus(path, labels=map_of(tmp_path, {"Greeting": "Hello"}))


def test_all_unknown_labels_are_counted_and_the_map_is_named(tmp_path: Path) -> None:
    path = write_items(tmp_path / "e.json", labelled("Tip", "Greeting", "Tip", "Question"))
    with pytest.raises(CorpusError) as error:
        read_corpus(path)
    assert str(error.value).startswith(
        f"{path}:1: dialogue 0 (id 7), turn 0 has the unknown strategy 'Tip': use one of"
    )
    assert str(error.value).endswith(
        ", Others, or give a map of labels (--labels MAP.yaml, in a recipe corpus.labels); "
        "unknown in this file: 'Tip' (2), 'Greeting' (1)."
    )
    assert all("--labels" in finding.message for finding in check_files([path]).findings if finding.kind == "label")


def test_labels_are_written_back_as_they_were(tmp_path: Path) -> None:
    source = labelled("Greeting", "[question]", ["Others", "Question"], "Advice", None)
    path = write_items(tmp_path / "e.json", source)
    mapped = map_of(tmp_path, OWN)
    trees = read_corpus(path, labels=mapped)
    assert [turn.strategy for turn in trees[0].turns] == ["Others", "Information", "Others", None, None]
    assert trees[0].turns[2].extra[LABELS_READ] == ["Others", "Information"]
    assert several_labels(trees) == check_files([path], labels=mapped).several == 1
    write_corpus(tmp_path / "t.jsonl", trees)
    for where in (path, tmp_path / "t.jsonl"):
        read = read_corpus(where, labels=mapped if where == path else None)
        write_corpus(tmp_path / "back.json", read, "esconv")
        back = json.loads((tmp_path / "back.json").read_text(encoding="utf-8"))
        assert [entry["annotation"] for entry in back[0]["dialog"]] == [
            entry["annotation"] for entry in source[0]["dialog"]
        ]


def test_a_turn_that_was_labelled_anew_is_written_with_its_new_label(tmp_path: Path) -> None:
    from dataclasses import replace

    (tree,) = read_corpus(write_items(tmp_path / "e.json", labelled(["Others", "Question"], "[question]")))
    turns = [replace(turn, strategy="Information") for turn in tree.turns]
    write_corpus(tmp_path / "back.json", [replace(tree, turns=turns)], "esconv")
    back = json.loads((tmp_path / "back.json").read_text(encoding="utf-8"))
    assert [entry["annotation"]["strategy"] for entry in back[0]["dialog"]] == ["Information", "Information"]


def test_a_map_reaches_every_format(tmp_path: Path) -> None:
    """Trees, FailedESConv, ExTES, AnnoMI and chat messages; its labels choose the taxonomy."""
    body = conversation_to_json(small_tree())
    for turn in body["turns"]:
        if turn.get("strategy"):
            turn["strategy"] = "Tip"
    chat = {"messages": [{"role": "user", "content": "Hm."}, {"role": "assistant", "content": "[Tip] Rest."}]}
    files = {
        "tree": write_items(tmp_path / "t.json", [body]),
        "failed_esconv": write_items(tmp_path / "f.json", [failed_item(dialog=[utterance("listener", "Hm.", "Tip")])]),
        "extes": write_items(tmp_path / "x.json", [extes_item(("Tip", "Rest."))]),
        "annomi": write_annomi(tmp_path / "a.csv", [annomi_row(main_therapist_behaviour="Tip")]),
        "messages": write_items(tmp_path / "m.json", [chat]),
    }
    mapped = map_of(tmp_path, {"Tip": "Providing Suggestions"})
    for format, path in files.items():
        (tree,) = read_corpus(path, labels=mapped)
        strategies = {turn.strategy for turn in tree.turns if turn.strategy}
        assert (format, tree.taxonomy, strategies) == (format, "esconv", {"Providing Suggestions"})
    assert read_corpus(files["tree"], labels=mapped)[0].trunk[1].extra["strategy"] == "Tip"


def test_a_map_s_exact_labels_choose_between_taxonomies_that_spell_alike(tmp_path: Path) -> None:
    path = write_annomi(tmp_path / "a.csv", [annomi_row(main_therapist_behaviour="question")])
    (tree,) = read_corpus(path, labels=map_of(tmp_path, {"question": "Question"}))
    assert (tree.taxonomy, tree.turns[0].strategy) == ("esconv", "Question")
    (tree,) = read_corpus(path, labels=map_of(tmp_path, {"question": "reflection"}))
    assert (tree.taxonomy, tree.turns[0].strategy) == ("annomi", "reflection")


def test_a_tree_with_labels_in_another_spelling_is_read(tmp_path: Path) -> None:
    body = conversation_to_json(small_tree())
    first = next(turn for turn in body["turns"] if turn.get("strategy"))
    written, first["strategy"] = first["strategy"], f"[{first['strategy'].upper()}]"
    (tree,) = read_corpus(write_items(tmp_path / "t.json", [body]))
    turn = tree.turn(first["id"])
    assert (turn.strategy, turn.extra["strategy"]) == (written, f"[{written.upper()}]")


def test_no_map_maps_nothing() -> None:
    assert NO_MAP.taxonomy(CSO) is CSO
    assert NO_MAP.labels == {}
