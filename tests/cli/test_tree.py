"""``esckit tree`` as a user meets it."""

from dataclasses import replace
from pathlib import Path

import pytest

from esckit.conversation import write_conversations
from tests.cli.test_entry import call
from tests.mining.grown import grown
from tests.mining.tree_search.searched import hand_made, searched

Output = pytest.CaptureFixture[str]


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    write_conversations(tmp_path / "trees.jsonl", [hand_made(), hand_made("other"), searched(120)])
    return tmp_path / "trees.jsonl"


def test_it_prints_a_turn_a_line(trees: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    assert call(monkeypatch, "tree", trees) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "by-hand: 13 turns, 4 pairs"
    assert lines[2].split(maxsplit=2) == ["2", "Ref", "+0.60, 7 visits, P 0.12 seed ✓ kept  That must hurt a lot."]
    assert lines[3].startswith("  +   2 A&R")  # a way beside it
    assert "✗ rejected  You are strong, truly." in lines[3]
    assert lines[-1] == "1 planned turns were not tried (--all names them)"
    assert "\x1b" not in out
    assert err == "note: by-hand is the first one; the file holds 2 more conversations, such as other, random\n"


def test_options_show_more_and_less(trees: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    assert call(monkeypatch, "tree", trees, "other", "--all", "--depth", "3") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "1 not tried: Que" in out
    assert "It does." in out
    assert "Good luck!" not in out
    assert out.splitlines()[-1] == "7 turns are deeper than 3"


def test_an_unknown_id_gets_near_names(trees: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    assert call(monkeypatch, "tree", trees, "by-hands") == 2
    err = capsys.readouterr().err
    assert err == f"esckit: {trees} has no conversation 'by-hands': give one of its 3, such as by-hand.\n"
    (trees.parent / "empty.jsonl").write_text("", encoding="utf-8")
    assert call(monkeypatch, "tree", trees.parent / "empty.jsonl") == 2
    assert "holds no conversation" in capsys.readouterr().err


def test_mined_trees_have_no_visits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    write_conversations(tmp_path / "trees.jsonl", [grown("planner")])
    assert call(monkeypatch, "tree", tmp_path / "trees.jsonl") == 0
    out = capsys.readouterr().out
    assert "visit" not in out
    assert out.count("✗ rejected  (planned)") == 3
    assert out.count("✓ chosen") == 2


def test_hostile_text_stays_on_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    bad = "\x1b[31mred\x07\r\n[bold]x[/bold] \ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    tree = hand_made()
    turns = [replace(turn, text=bad + "長" * 500) if turn.id == "0" else turn for turn in tree.turns]
    write_conversations(tmp_path / "trees.jsonl", [replace(tree, turns=turns)])
    assert call(monkeypatch, "tree", tmp_path / "trees.jsonl") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    first = out.splitlines()[1]
    assert "[31mred [bold]x[/bold]" in first
    assert first.endswith("…")
    assert 70 < len(first) < 120  # cut by what a character takes on the screen: two columns


@pytest.mark.parametrize("deep", [False, True])
def test_a_tree_longer_than_the_stack_is_printed(
    deep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    tree = searched(5000, deep=deep)
    write_conversations(tmp_path / "trees.jsonl", [tree])
    assert call(monkeypatch, "tree", tmp_path / "trees.jsonl") == 0
    lines = capsys.readouterr().out.splitlines()
    untried = sum(turn.planned for turn in tree.turns)
    assert len(lines) == 1 + len(tree.turns) - untried + 1
    assert max(len(line) for line in lines) <= 160


def test_help_has_an_example(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    assert call(monkeypatch, "tree", "--help") == 0
    assert "Example: esckit tree" in capsys.readouterr().out
