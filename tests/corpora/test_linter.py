"""The linter: every mistake of every dialogue, with file, line and turn, and nothing about good files."""

import json
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import Turn, conversation_to_json
from esckit.corpora.linter import KINDS, Finding, check_files
from esckit.errors import CorpusError

from ..trees import small_tree
from .items import (
    annomi_row,
    counselling_item,
    extes_item,
    item,
    utterance,
    write_annomi,
    write_items,
    write_lines,
)


def found(*paths: Path, format: str | None = None) -> list[tuple[int, str | None, str]]:
    """Line, turn and kind of every finding."""
    report = check_files(paths, format)
    assert sum(report.counts.values()) == len(report.findings)
    assert all(finding.message.endswith((".", "?")) and finding.kind in KINDS for finding in report.findings)
    return [(finding.line, finding.turn, finding.kind) for finding in report.findings]


def lines_of(items: list[Any], path: Path) -> Path:
    """A JSON list with a dialogue a line, from line 2 on."""
    path.write_text("[\n" + ",\n".join(map(json.dumps, items)) + "\n]\n", encoding="utf-8")
    return path


ANSWER = utterance("supporter", "Ok.", "Others")


def test_good_files_are_quiet(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        json.dumps(conversation_to_json(small_tree(provenance={"corpus": "mine", "licence": "CC0-1.0"}))) + "\n"
    )
    assert found(write_items(tmp_path / "e.json", [item()]), tmp_path / "t.jsonl") == []
    assert found(write_annomi(tmp_path / "a.csv", [annomi_row(), annomi_row(utterance_id="1", interlocutor="client",
        main_therapist_behaviour="n/a")])) == []  # fmt: skip
    assert found(write_lines(tmp_path / "s.jsonl", [counselling_item()]), format="smile") == []


def test_everything_that_is_wrong_with_a_dialogue_is_found_and_the_next_dialogue_too(tmp_path: Path) -> None:
    dialog = [
        utterance("seeker", "Hello."),
        utterance("supporter", "Hm.", "Advice"),
        {"speaker": "seeker", "annotation": {}, "content": 5},
        utterance("supporter", " \n", "Question"),
        utterance("supporter", "Ok.", "Adivce"),
        utterance("seeker", "Yes.", "Question"),
        {"speaker": "seeker", "content": None},
        utterance("supporter", "So?"),
    ]
    path = lines_of([item(dialog=dialog), item(id=8, dialog=[utterance("seeker", "Hello?")])], tmp_path / "e.json")
    assert found(path) == [
        (2, "1", "label"),
        (2, "2", "content"),
        (2, "4", "label"),
        (2, "6", "content"),
        (2, "5", "label"),
        (2, "3", "content"),
        (2, "7", "label"),
        (3, None, "one-sided"),
        (3, None, "near-duplicate"),
    ]


def test_a_record_that_is_none_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    good = json.dumps(item(dialog=[utterance("seeker", "Hello?"), ANSWER]))
    path.write_text(f'[\n{{"id": 1, "dialog": [}},\n{{"id": 2}},\n3,\n{good}\n]\n', encoding="utf-8")
    report = check_files([path])
    assert [(finding.line, finding.kind) for finding in report.findings] == [
        (2, "record"),
        (3, "record"),
        (4, "record"),
    ]
    assert report.dialogues == {str(path): 1}


def test_findings_stand_in_the_order_of_files_and_lines(tmp_path: Path) -> None:
    silent = [utterance("seeker", "Hello?")]
    two = lines_of([item(), item(id=8, situation="A.", dialog=silent)], tmp_path / "z.json")
    one = lines_of([item(id=9, situation="B.", dialog=[*silent, utterance("seeker", "You?")])], tmp_path / "a.json")
    assert [(Path(each.file).name, each.line) for each in check_files([two, one]).findings] == [
        ("z.json", 3),
        ("a.json", 2),
    ]


def test_a_broken_annotation_does_not_hide_the_rest_of_its_turn(tmp_path: Path) -> None:
    dialog = [{"speaker": "seeker", "content": 3, "annotation": "none"}, ANSWER]
    path = lines_of([item(dialog=dialog)], tmp_path / "e.json")
    assert found(path) == [(2, "0", "content"), (2, "0", "record")]


@pytest.mark.parametrize("text", ["[]", "[\n]\n"])
def test_a_file_without_dialogues_is_a_finding(text: str, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(text, encoding="utf-8")
    assert found(tmp_path / "e.json") == [(1, None, "record")]


def test_unknown_speakers_are_named_and_the_rest_of_the_order_is_not_judged(tmp_path: Path) -> None:
    dialog = [utterance("seeker", "Hi."), utterance("A", "Hm."), utterance("B", "Ok."), utterance("seeker", "So.")]
    assert found(lines_of([item(dialog=dialog)], tmp_path / "e.json")) == [(2, "1", "speaker"), (2, "2", "speaker")]


def test_where_speakers_need_not_take_turns_only_long_runs_are_odd(tmp_path: Path) -> None:
    six = [utterance("seeker", f"Word {n}.") for n in range(6)]
    assert found(lines_of([item(dialog=[*six, ANSWER])], tmp_path / "e.json")) == []
    seven = [ANSWER, *six, six[0]]
    assert found(lines_of([item(dialog=seven)], tmp_path / "e.json")) == [(2, "7", "role-order")]


def test_where_they_take_turns_every_break_is_odd(tmp_path: Path) -> None:
    told = [
        {"speaker": speaker, "content": f"第{n}句话"}
        for n, speaker in enumerate(["counselor", "client", "client", "counselor", "counselor"])
    ]
    path = write_lines(tmp_path / "c.jsonl", [counselling_item(), counselling_item(id=4, dialog=told)])
    assert found(path, format="cpsycoun") == [(2, "0", "role-order"), (2, "2", "role-order"), (2, "4", "role-order")]


def test_dialogues_of_extes_that_reading_leaves_out_are_named_by_their_replies(tmp_path: Path) -> None:
    items = [extes_item(("Others", "Bye."), ("Advice", "Run."), (None, "Hm.")), extes_item()]
    assert found(lines_of(items, tmp_path / "x.json")) == [
        (2, "1", "label"),
        (2, "3", "label"),
        (2, "5", "label"),
        (3, None, "licence"),
    ]


def test_every_problem_of_a_tree_is_found(tmp_path: Path) -> None:
    good = conversation_to_json(small_tree())
    turns: list[dict[str, Any]] = [
        {"id": "0", "parent": None, "speaker": "seeker", "text": "Hi.", "strategy": "Question"},
        {"id": "1", "parent": "0", "speaker": "supporter", "text": "Hm.", "strategy": "Advice"},
        {"id": "2", "parent": "1", "speaker": "supporter", "text": "", "strategy": "Others"},
    ]
    path = write_lines(
        tmp_path / "t.jsonl",
        [
            good | {"id": "a", "turns": turns, "preferences": []},
            good | {"id": "b", "turns": [turns[0] | {"text": 5}, turns[1] | {"speaker": "x"}], "preferences": []},
            good | {"id": "c", "turns": [turns[1] | {"strategy": None}, turns[1]], "preferences": []},
            {key: value for key, value in good.items() if key != "format"},
        ],
    )
    assert found(path) == [
        (1, "0", "label"),
        (1, "1", "label"),
        (1, "2", "content"),
        (1, None, "licence"),
        (1, None, "source"),
        (2, "0", "content"),
        (2, "1", "speaker"),
        (3, "1", "tree"),
        (3, "1", "tree"),
        (3, "1", "label"),
        (4, None, "tree"),
    ]


def test_alternatives_that_were_mined_are_no_oddities(tmp_path: Path) -> None:
    tree = small_tree(provenance={"corpus": "mine", "licence": "CC0-1.0"})
    first = tree.trunk[0].id
    mined = [Turn(f"m{n}", first, "supporter", f"Hm {n}.", source="model") for n in range(8)]
    planned = Turn("p", tree.trunk[-1].id, "supporter", None, "Question")
    assert found(write_lines(tmp_path / "t.jsonl", [conversation_to_json(tree.grow([*mined, planned]))])) == []


def test_a_licence_or_source_that_is_missing_is_said_once_a_file(tmp_path: Path) -> None:
    provenances: list[dict[str, str]] = [
        {"licence": "CC0-1.0", "source": "https://example.org"},
        {"licence": "CC0-1.0"},
        {"corpus": "mine", "licence": ""},
        {"corpus": "mine"},
    ]
    texts = ["One two.", "Three four.", "Five six.", "Seven eight."]
    trees = [
        conversation_to_json(small_tree(id=text, provenance=provenance, situation=text, preferences=[]))
        for text, provenance in zip(texts, provenances, strict=True)
    ]
    for tree, text in zip(trees, texts, strict=True):
        tree["turns"][0]["text"] = text
    path = write_lines(tmp_path / "t.jsonl", trees)
    findings = check_files([path]).findings
    assert [(each.line, each.kind) for each in findings] == [(2, "source"), (3, "licence")]
    assert findings[1].message == (
        f"2 conversations state no licence, the first 'Five six.' ({path}:3): set provenance.licence."
    )


def test_near_duplicates_and_ids_are_compared_across_files(tmp_path: Path) -> None:
    one = lines_of(
        [item(id=1, situation="My dog died.", dialog=[utterance("seeker", "Hi."), ANSWER])], tmp_path / "a.json"
    )
    other = lines_of(
        [
            item(id=2, situation="Nothing else.", dialog=[utterance("seeker", "Hello."), ANSWER]),
            item(id=1, situation="my dog died", dialog=[utterance("seeker", "Hey."), ANSWER]),
        ],
        tmp_path / "b.json",
    )
    report = check_files([one, other])
    place = (str(one), 2, "esconv-1")
    assert report.findings == [
        Finding(
            str(other),
            3,
            "esconv-1",
            None,
            "id",
            f"conversation 'esconv-1' has the id of 'esconv-1' ({one}:2): make the ids unique.",
            place,  # type: ignore[arg-type]
        ),
        Finding(
            str(other),
            3,
            "esconv-1",
            None,
            "near-duplicate",
            f"conversations 'esconv-1' and 'esconv-1' ({one}:2) have the same situation: take one of them out.",
            place,  # type: ignore[arg-type]
        ),
    ]
    assert (report.across, report.dialogues) == (1, {str(one): 1, str(other): 2})


def test_a_near_duplicate_names_the_turns_and_the_words(tmp_path: Path) -> None:
    story = "my firm let ten people go and i am afraid that i am next"
    dialogues = [
        item(
            id=n,
            situation=f"Case {n}.",
            dialog=[utterance("seeker", f"{hello} {n}."), ANSWER, utterance("seeker", story), ANSWER],
        )
        for n, hello in enumerate(["Good morning", "Hi there"])
    ]
    report = check_files([lines_of(dialogues, tmp_path / "a.json")])
    assert [finding.turn for finding in report.findings] == ["2"]
    assert str(report.findings[0]).startswith(f"{tmp_path / 'a.json'}:3: [near-duplicate] conversations 'esconv-1' and")
    assert f", such as \"{story}\" in turns '2' and '2': keep both in one part." in report.findings[0].message
    assert report.across == 0


def test_a_file_that_cannot_be_read_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"none.json does not exist"):
        check_files([tmp_path / "none.json"])


@pytest.mark.corpus
def test_esconv_has_the_known_oddities_and_no_other(data_dir: Path) -> None:
    report = check_files([data_dir / "esconv/train.json", data_dir / "esconv/valid.json"])
    assert (report.counts, report.across) == ({"role-order": 7, "near-duplicate": 33}, 0)
    failed = check_files([data_dir / "failed_esconv/FailedESConv.json"])
    assert failed.counts == {"role-order": 8, "near-duplicate": 25}
