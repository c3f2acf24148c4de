"""``esckit corpus`` as it is typed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from esckit.cli import main
from esckit.corpora import FORMATS, load_corpus, read_corpus, write_corpus
from esckit.prompts import load_prompt
from esckit.strategy import ESCONV
from tests.corpora.items import (
    conversations,
    counselling_item,
    extes_item,
    failed_item,
    item,
    utterance,
    write_items,
    write_lines,
)


class Outcome(NamedTuple):
    """What a command leaves."""

    code: int
    out: str
    err: str


Corpus = Callable[..., Outcome]


@pytest.fixture
def corpus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Corpus:
    """Runs ``esckit corpus`` with arguments."""

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["esckit", "corpus", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def esconv(tmp_path: Path) -> Path:
    return write_items(tmp_path / "ESConv.json", [item(id=n) for n in range(10)])


@pytest.mark.parametrize("command", [[], ["stats"], ["check"], ["split"], ["convert"]])
def test_every_help_has_an_example(command: list[str], corpus: Corpus) -> None:
    outcome = corpus(*command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"Example: esckit corpus {' '.join(command)}" in outcome.out


def test_the_help_names_every_format() -> None:
    from esckit.cli.corpus import _NAMES

    assert _NAMES.replace(" or ", ", ").split(", ") == list(FORMATS)


# ---------------------------------------------------------------------------------------------------------------- stats


def test_stats_prints_the_tables_of_the_paper(corpus: Corpus, esconv: Path) -> None:
    outcome = corpus("stats", esconv)
    assert (outcome.code, outcome.err) == (0, "")
    rows = {" ".join(line.split()) for line in outcome.out.splitlines()}
    assert {
        "dialogues 10",
        "utterances 40 30 10",
        "utterances a dialogue 4",
        "chat messages 60 30 30",
        "characters a chat message 17.83 32.33 3.33",
        "Question 20 66.67% 0% 100% 0% 0% 0% 100%",
        "Others 0 0.00% 0% 0% 0% 0% 0% 0%",
        "all 30",
        "emotion types: anxiety 10",
    } <= rows
    assert max(map(len, outcome.out.splitlines())) <= 80


def test_stats_of_several_files_as_json_and_as_a_picture(corpus: Corpus, esconv: Path, tmp_path: Path) -> None:
    smile = write_lines(tmp_path / "s.jsonl", [counselling_item()])
    both = tmp_path / "trees.jsonl"
    write_corpus(both, read_corpus(smile, "smile"))
    outcome = corpus("stats", esconv, both, "--json", "--picture", tmp_path / "p.svg")
    figures = json.loads(outcome.out)
    assert list(figures) == [str(esconv), str(both)]
    assert (figures[str(esconv)]["dialogues"], figures[str(both)]["strategy_counts"]) == (10, {})
    assert "ESConv.json: strategy by stage" in (tmp_path / "p.svg").read_text(encoding="utf-8")
    told = corpus("stats", smile, "--format", "smile").out
    assert "no table of strategies: no reply carries a strategy" in told
    assert "share" not in told


# ---------------------------------------------------------------------------------------------------------------- check


def test_check_exits_with_0_1_or_2(corpus: Corpus, tmp_path: Path) -> None:
    good = write_items(tmp_path / "good.json", [item()])
    assert corpus("check", good) == (0, "1 dialogues in 1 files: nothing found\n", "")
    outcome = corpus("check", write_items(tmp_path / "bad.json", [item(dialog=item()["dialog"][:1])]))
    assert outcome.code == 1
    assert "bad.json:1: [one-sided] conversation 'esconv-7' has only turns of the supporter: take" in outcome.out
    outcome = corpus("check", tmp_path / "none.json")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"esckit: {tmp_path / 'none.json'} does not exist: give the path of a dialogue file.\n"


def test_check_counts_all_and_prints_as_many_as_asked_for(corpus: Corpus, esconv: Path) -> None:
    outcome = corpus("check", esconv, "--limit", "2")
    assert outcome.out.splitlines()[2:] == [
        "... and 7 more: raise --limit, or use --json.",
        "10 dialogues in 1 files: 9 near-duplicate",
    ]
    report = json.loads(corpus("check", esconv, "--json", "--limit", "2").out)
    assert (report["counts"], len(report["findings"])) == ({"near-duplicate": 9, "near-duplicate-across-files": 0}, 9)
    assert report["findings"][0]["other"] == {
        "file": str(esconv),
        "line": 1,
        "dialogue": "esconv-0",
    }


# ---------------------------------------------------------------------------------------------------------------- split


def test_split_writes_parts_and_ids_that_divide_in_the_same_way_again(
    corpus: Corpus, esconv: Path, tmp_path: Path
) -> None:
    outcome = corpus("split", esconv, tmp_path / "a", "--ratios", "6:2:2", "--seed", "3")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0] == f"6 conversations written to {tmp_path / 'a/train.json'}"
    parts = [read_corpus(tmp_path / f"a/{part}.json") for part in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [6, 2, 2]
    drawn = load_corpus("esconv", file=esconv, split="6:2:2", split_seed=3)
    assert [[each.id for each in part] for part in parts] == [
        [each.id for each in part] for part in (drawn.train, drawn.valid, drawn.test)
    ]
    assert corpus("split", esconv, tmp_path / "b", "--ids", tmp_path / "a/ids.json").code == 0
    for name in ("train.json", "valid.json", "test.json", "ids.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_split_writes_trees_where_it_cannot_write_the_format_and_no_empty_part(corpus: Corpus, tmp_path: Path) -> None:
    extes = write_items(tmp_path / "x.json", [extes_item() for _ in range(4)])
    assert corpus("split", extes, tmp_path / "a", "--ratios", "3:1").code == 0
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["ids.json", "train.jsonl", "valid.jsonl"]


def test_split_takes_the_parts_of_the_paper(corpus: Corpus, tmp_path: Path) -> None:
    write_corpus(tmp_path / "E.json", conversations(1300), "esconv")
    assert corpus("split", tmp_path / "E.json", tmp_path / "a", "--decoupled-esc").out.split()[0] == "1028"


SPLITS = "esckit: --ratios, --ids, --decoupled-esc and --decoupled-esc-published exclude each other: give one.\n"


def test_split_refuses_what_does_not_go_together_and_overwrites_nothing(
    corpus: Corpus, esconv: Path, tmp_path: Path
) -> None:
    outcome = corpus("split", esconv, tmp_path / "a", "--ratios", "8:1:1", "--decoupled-esc")
    assert outcome == (2, "", SPLITS)
    outcome = corpus("split", esconv, tmp_path / "a", "--decoupled-esc")
    assert outcome.code == 2
    assert "decoupled-esc lists 1288 dialogues" in outcome.err
    assert not (tmp_path / "a").exists()
    assert corpus("split", esconv, tmp_path / "a").code == 0
    outcome = corpus("split", esconv, tmp_path / "a", "--ratios", "9:1")
    assert outcome.err == f"esckit: {tmp_path / 'a/train.json'} exists already: choose an empty folder, or remove it.\n"


# -------------------------------------------------------------------------------------------------------------- convert


@pytest.mark.parametrize(("format", "source"), [("esconv", item()), ("failed_esconv", failed_item())])
def test_convert_there_and_back_loses_nothing(format: str, source: object, corpus: Corpus, tmp_path: Path) -> None:
    path = write_items(tmp_path / "in.json", [source])
    assert corpus("convert", path, tmp_path / "t.jsonl", "--from", format).out.startswith("1 conversations written to ")
    assert corpus("convert", tmp_path / "t.jsonl", tmp_path / "out.json", "--to", format).code == 0
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == [source]


def test_convert_says_what_is_left_out(corpus: Corpus, tmp_path: Path) -> None:
    path = write_items(tmp_path / "x.json", [extes_item(), extes_item(("Others", "Bye.")), extes_item((None, "Hm."))])
    outcome = corpus("convert", path, tmp_path / "t.jsonl")
    assert outcome.out.splitlines()[1] == "2 dialogues left out for replies with: 1 Others, 1 no label"


def test_convert_writes_chat_messages_with_any_system_text(corpus: Corpus, esconv: Path, tmp_path: Path) -> None:
    def system(*arguments: str | Path) -> str:
        outcome = corpus("convert", esconv, tmp_path / "m.json", "--to", "messages", *arguments)
        assert (outcome.code, outcome.err) == (0, "")
        items = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
        assert [each["id"] for each in items] == list(range(10))
        assert items[0]["messages"][1:3] == [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "[Question] What brings you here?"},
        ]
        return str(items[0]["messages"][0]["content"])

    assert system() == load_prompt("support", "system", strategies=", ".join(ESCONV.labels))
    assert system("--system", "Be kind.") == "Be kind."
    assert system("--system", "Be\nkind. " * 200) == "Be\nkind. " * 200
    (tmp_path / "s.txt").write_text("Be brief.\n", encoding="utf-8")
    assert system("--system", tmp_path / "s.txt") == "Be brief."


def test_convert_refuses_what_it_cannot_do(corpus: Corpus, esconv: Path, tmp_path: Path) -> None:
    assert corpus("convert", esconv, esconv).err == f"esckit: {esconv} is a file that is read: write to another one.\n"
    outcome = corpus("convert", esconv, tmp_path / "x", "--system", "S")
    assert outcome.err == "esckit: --system goes with --to messages, not with --to tree: leave it out.\n"
    smile = write_lines(tmp_path / "s.jsonl", [counselling_item()])
    outcome = corpus("convert", smile, tmp_path / "x", "--from", "smile", "--to", "messages")
    assert outcome.err == (
        "esckit: esckit's own system text names the strategies of one taxonomy: give another by --system.\n"
    )
    assert corpus("convert", smile, tmp_path / "x", "--from", "smile", "--to", "messages", "--system", "S").code == 0
    outcome = corpus("convert", smile, tmp_path / "y", "--from", "smile", "--to", "esconv")
    assert outcome.code == 0  # without strategies, ESConv's form holds it


# ------------------------------------------------------------------------------------------------ labels and turn rules


def test_labels_are_mapped_by_every_command(corpus: Corpus, tmp_path: Path) -> None:
    own = write_items(tmp_path / "e.json", [item(dialog=[utterance("supporter", "Hm.", "Tip"), utterance("seeker")])])
    mapped = write_items(tmp_path / "map.json", {"Tip": "Information"})
    assert "give a map of labels (--labels MAP.yaml" in corpus("stats", own).err
    assert corpus("check", own).code == 1
    assert corpus("check", own, "--labels", mapped) == (0, "1 dialogues in 1 files: nothing found\n", "")
    figures = json.loads(corpus("stats", own, "--labels", mapped, "--json").out)
    assert figures[str(own)]["strategy_counts"]["Information"] == 1
    assert corpus("convert", own, tmp_path / "back.json", "--to", "esconv", "--labels", mapped).code == 0
    assert json.loads((tmp_path / "back.json").read_text(encoding="utf-8")) == json.loads(own.read_text("utf-8"))
    assert corpus("split", own, tmp_path / "parts", "--ratios", "1:0", "--labels", mapped).code == 0


@pytest.mark.parametrize(
    "command",
    ["predict", "baseline", "annotate", "judge", "evaluate", "train planner", "export sft", "corpus split"],
)
def test_every_command_that_reads_dialogues_takes_a_map(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["esckit", *command.split(), "--help"])
    with pytest.raises(SystemExit):
        main()
    assert "--labels" in capsys.readouterr().out


def test_several_labels_are_told(corpus: Corpus, tmp_path: Path) -> None:
    dialog = [utterance("seeker"), {**utterance("supporter"), "annotation": {"strategy": ["Question", "Others"]}}]
    own = write_items(tmp_path / "e.json", [item(dialog=dialog)])
    told = f"note: {own}: 1 replies carry more than one strategy; the first counts, all stay in extra\n"
    for arguments in (["stats", own, "--json"], ["check", own], ["convert", own, tmp_path / "t.jsonl"]):
        outcome = corpus(*arguments)
        assert (outcome.code, outcome.err) == (0, told)


def test_convert_merges_turns_and_stats_say_so(corpus: Corpus, esconv: Path, tmp_path: Path) -> None:
    options = ["--turn-rule", "merged", "--merged-label", "last"]
    assert corpus("convert", esconv, tmp_path / "m.jsonl", *options).code == 0
    outcome = corpus("stats", tmp_path / "m.jsonl")
    assert "m.jsonl: turn rule merged, last label: compare with figures under this rule alone" in outcome.out
    rows = {" ".join(line.split()) for line in outcome.out.splitlines()}
    assert "utterances 30 20 10" in rows
    assert any(row.startswith("Question 20 100.00% ") for row in rows)
    assert corpus("convert", esconv, tmp_path / "m.json", "--to", "esconv", *options).code == 0
    assert len(read_corpus(tmp_path / "m.json")[0].turns) == 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--turn-rule", "joined"], "--turn-rule 'joined' is unknown: use decoupled-esc or merged."),
        (
            ["--turn-rule", "merged", "--merged-label", "x"],
            "--merged-label 'x' is unknown: use first or last or longest.",
        ),
        (["--merged-label", "last"], "--merged-label goes with --turn-rule merged: leave it out."),
    ],
)
def test_turn_rules_that_do_not_exist_are_refused(
    options: list[str], sentence: str, corpus: Corpus, esconv: Path, tmp_path: Path
) -> None:
    assert corpus("convert", esconv, tmp_path / "x", *options) == (2, "", f"esckit: {sentence}\n")


def test_a_file_can_be_cut_in_order(corpus: Corpus, esconv: Path, tmp_path: Path) -> None:
    assert corpus("split", esconv, tmp_path / "a", "--ratios", "9:1", "--in-order").code == 0
    assert [tree.id for tree in read_corpus(tmp_path / "a/valid.json")] == ["esconv-9"]
    outcome = corpus("split", esconv, tmp_path / "b", "--decoupled-esc", "--in-order")
    assert outcome == (2, "", "esckit: --in-order goes with --ratios: leave it out.\n")


def test_places_are_no_ids_across_files(corpus: Corpus, tmp_path: Path) -> None:
    bare = {"situation": "A ferry.", "dialog": [utterance("seeker", "Hm."), utterance("supporter", "Ok.", "Others")]}
    files = [
        write_items(
            tmp_path / f"{n}.json",
            [{**bare, "situation": text, "dialog": [utterance("seeker", text), bare["dialog"][1]]}],
        )
        for n, text in enumerate(("My ferry sank.", "Nobody reads my letters."))
    ]
    assert corpus("check", *files).out == "2 dialogues in 2 files: nothing found\n"


@pytest.mark.corpus
def test_all_of_failed_esconv_comes_back_equal(corpus: Corpus, data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "failed_esconv/FailedESConv.json"
    assert corpus("convert", source, tmp_path / "t.jsonl").out.startswith("196 conversations")
    assert corpus("convert", tmp_path / "t.jsonl", tmp_path / "out.json", "--to", "failed_esconv").code == 0
    published = json.loads(source.read_text(encoding="utf-8"))
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == published
