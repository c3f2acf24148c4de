"""``esckit train matcher``, ``check matcher`` and ``check experiences`` as they are typed."""

import json
from pathlib import Path

import pytest

from esckit.conversation import write_conversations
from esckit.corpora import load_corpus
from esckit.roles import RoleBank, save_bank
from tests.cli.test_entry import call
from tests.roles.little import little_bank


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A corpus of dialogues with topics, and a bank."""
    starter = load_corpus("starter")
    topics = ("job crisis", "breakup with partner", "sleep problems")
    trees = [tree for part in starter.parts.values() for tree in part if tree.labels["problem_type"] in topics]
    write_conversations(tmp_path / "talks.jsonl", trees)
    write_conversations(tmp_path / "topicless.jsonl", [starter.train[0]])
    save_bank(little_bank(), tmp_path / "bank")
    return tmp_path


def test_train_and_check(given: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out, bank = given / "matcher", given / "bank"
    assert call(monkeypatch, "train", "matcher", given / "talks.jsonl", out, "--bank", bank, "--encoder", "none") == 0
    told = capsys.readouterr()
    assert "18 questions, gold role by topic" in told.err
    assert f"matcher: {out}; next: esckit check matcher {out}" in told.out
    assert call(monkeypatch, "check", "matcher", out, given / "talks.jsonl") == 0
    told = capsys.readouterr()
    assert all(way in told.out for way in ("matcher", "majority", "topic alone", "likeness to cards"))
    assert call(monkeypatch, "check", "matcher", out, given / "talks.jsonl", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["languages"]["en"]["topic alone"]["f1"] == 1
    (given / "pairs.jsonl").write_text('{"role": "captain", "experience": "captain-joy", "en": "glad"}\n', "utf-8")
    assert call(monkeypatch, "check", "experiences", out, "--pairs", given / "pairs.jsonl") == 0
    assert "hit@1" in capsys.readouterr().out
    assert (
        call(monkeypatch, "check", "experiences", out, "--pairs", given / "pairs.jsonl", "--tolerance", "0", "--json")
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["tolerance"], found["languages"]["en"]["chance"]["hit"]) == (0, 0.25)


def test_bad_input_is_one_sentence(
    given: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, bank = given / "matcher", given / "bank"
    assert call(monkeypatch, "train", "matcher", given / "talks.jsonl", out, "--bank", bank, "--encoder", "none") == 0
    capsys.readouterr()

    def refused(*arguments: str | Path) -> str:
        assert call(monkeypatch, *arguments) == 2
        return capsys.readouterr().err.splitlines()[-1]

    assert "has no role 'wukong'" in refused("check", "experiences", out)
    assert "no dialogue" in refused("check", "matcher", out, given / "topicless.jsonl")
    assert "holds something else" in refused("train", "matcher", given / "talks.jsonl", given, "--bank", bank)
    assert "does not exist" in refused("train", "matcher", given / "talks.jsonl", given / "x", "--bank", given / "none")
    assert "matcher.json" in refused("check", "matcher", bank, given / "talks.jsonl")
    save_bank(RoleBank(little_bank().roles[:2]), out / "bank")
    assert "was trained for another role bank" in refused("check", "matcher", out, given / "talks.jsonl")
