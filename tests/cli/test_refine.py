"""``esckit refine``: whoever is named drafts and refines; bad input gets one sentence."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.cli import main
from esckit.conversation import read_conversations, write_conversations
from tests.recipes.tiny import shorten
from tests.server import FAULTY, KEY, MODEL, ChatServer
from tests.tiny import write_supporter

SMALL: Final = ("--options", "small.yaml")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two short dialogues, a supporter and a file of options."""
    from esckit.corpora import load_corpus

    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write_conversations(tmp_path / "train.jsonl", [shorten(each, 10) for each in load_corpus("starter").train[:2]])
    (tmp_path / "small.yaml").write_text("{wording: {max_new_tokens: 6}, skip_last: 0, encoder: null}", "utf-8")
    return tmp_path


def refine(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["esckit", "refine", "train.jsonl", "out", *SMALL, *words])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def found(here: Path) -> dict[str, Any]:
    return dict(json.loads((here / "out/refinement.json").read_text(encoding="utf-8")))


def test_peoples_replies_are_chosen_over_a_supporters_drafts(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_supporter(here / "supporter")
    assert refine(monkeypatch, "--policy", "supporter", "--refined-by", "people") == 0
    record, trees = found(here), read_conversations(here / "out/trees.jsonl")
    preferences = [each for tree in trees for each in tree.preferences]
    assert record["pairs"] == len(preferences) > 0
    assert record["calls"] == {"draft": record["contexts"], "refine": 0, "accept": 0}
    assert {(each.reason, each.aspect) for each in preferences} == {("human", "response")}, "under the human strategy"
    assert all(tree.turn(each.chosen) in tree.trunk for tree in trees for each in tree.preferences)
    assert "next: esckit check preferences out/trees.jsonl" in capsys.readouterr().out
    before = (here / "out/trees.jsonl").read_bytes()
    assert refine(monkeypatch, "--policy", "supporter", "--refined-by", "people") == 0
    assert (here / "out/trees.jsonl").read_bytes() == before, "the same again"


def test_a_faulty_server_refines_and_every_draft_has_a_state(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_supporter(here / "supporter")
    with ChatServer(FAULTY) as server:
        asked = ("--refiner", f"remote:{MODEL}", "--accept", f"remote:{MODEL}", "--base-url", server.url)
        assert refine(monkeypatch, "--policy", "supporter", *asked) == 0
    record = found(here)
    lost = record["contexts"] - record["pairs"]
    greetings = ("first turn", "last turns", "not after the seeker", "danger")
    assert record["refiner"] == MODEL
    assert record["calls"]["refine"] == record["contexts"] - record["filters"]["empty draft"] > 0
    assert sum(count for name, count in record["filters"].items() if name not in greetings) == lost
    assert (
        sum(record["scores"].values()) + sum(record["filters"][state] for state in ("unparsed", "refused", "failed"))
        == record["calls"]["refine"]
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--policy", "nothing-here"), "nothing-here is nothing here"),
        (("--refined-by", "model"), "refined_by: model needs one: set refiner.model"),
        (("--refined-by", "people", "--refiner", "smollm2"), "refiner.model smollm2 is not asked"),
        (("--refiner", "train.jsonl"), "train.jsonl is no chat model"),
        (("--accept", "nobody"), "nobody"),
        (("--mode", "theirs"), "--mode 'theirs'"),
        (("--budget-calls", "1"), "a context takes 2 questions"),
    ],
)
def test_bad_input_gets_one_sentence(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    sentence: str,
) -> None:
    assert refine(monkeypatch, *words) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert "Traceback" not in told
    assert not (here / "out/trees.jsonl").exists()
