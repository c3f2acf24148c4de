"""``esckit check toxicity`` as a user meets it."""

import json
from pathlib import Path

import pytest

from esckit.conversation import write_conversations
from tests.cli.test_entry import call
from tests.mining.tree_search.classifier import write_classifier
from tests.mining.tree_search.searched import hand_made
from tests.tiny import save_base

Output = pytest.CaptureFixture[str]


def test_it_says_how_toxic_each_part_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    trees, model = tmp_path / "trees.jsonl", write_classifier(tmp_path / "model", ("clean", "toxic"))
    write_conversations(trees, [hand_made("a"), hand_made("b")])
    assert call(monkeypatch, "check", "toxicity", trees, "--model", model, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["labels"] == ["toxic"]
    assert [told["parts"][part]["turns"] for part in ("seed_seeker", "kept", "rejected")] == [6, 6, 6]
    assert call(monkeypatch, "check", "toxicity", trees, "--model", model, "--label", "clean") == 0
    shown = capsys.readouterr().out
    kept = next(line for line in shown.splitlines() if "kept (+)" in line)
    assert f"{1 - told['parts']['kept']['mean']:.4f}" in kept
    assert "labels: clean" in shown


def test_what_is_no_classifier_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    trees, model = tmp_path / "trees.jsonl", save_base(tmp_path / "lm")
    write_conversations(trees, [hand_made()])
    assert call(monkeypatch, "check", "toxicity", trees, "--model", model) == 2
    error = capsys.readouterr().err
    assert error.startswith("esckit: ")
    assert error.count("\n") == 1
    assert call(monkeypatch, "check", "toxicity", "--help") == 0
    assert "Example: esckit check toxicity" in capsys.readouterr().out
