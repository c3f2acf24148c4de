"""``esckit derive`` on real questions and dialogues, ``esckit check perplexity``; one sentence for bad input."""

import json
import os
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.cli import main
from esckit.conversation import check_conversation, read_conversations, write_conversations
from esckit.corpora import load_corpus
from tests.derivation_server import DerivationServer
from tests.mining.derivation.talks import question
from tests.server import FAULTY, KEY, MODEL

DATA: Final = Path(os.environ.get("ESCKIT_DATA", "data"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with some questions and dialogues."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    asked = [question(f"What about number {n}?\nIt is far from me.", name=f"q-{n}") for n in range(12)]
    write_conversations(tmp_path / "questions.jsonl", asked)
    write_conversations(tmp_path / "talks.jsonl", load_corpus("starter").train[:3])
    return tmp_path


def esckit(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["esckit", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def record(here: Path) -> dict[str, Any]:
    return dict(json.loads((here / "out/derivation.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("file", "format", "extra", "fewest"),
    [
        ("psyqa/PsyQA_example.json", "psyqa", (), 50),
        ("cpsycoun/cpsycoune.jsonl", "cpsycoun", ("--options", "f.yaml"), 25),
    ],
)
def test_real_sources_by_rules(
    file: str, format: str, extra: tuple[str, ...], fewest: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (DATA / file).exists():
        pytest.skip(f"needs {file}")
    (here / "f.yaml").write_text("filters: {fewest: 5}", encoding="utf-8")
    assert esckit(monkeypatch, "derive", str(DATA / file), "out", "--format", format, *extra) == 0
    found = read_conversations(here / "out/trees.jsonl")
    assert len(found) >= fewest
    told = record(here)
    assert told["versions"] == len(found) + sum(sum(told["faults"][name].values()) for name in ("experiences", "style"))
    assert told["sources"] - told["versions"] == sum(told["faults"]["dialogue"].values())
    for tree in found:
        check_conversation(tree)
        assert tree.language == "zh"
        assert 5 <= sum(turn.speaker == "supporter" for turn in tree.turns) <= 10
        assert [turn.speaker for turn in tree.turns] == ["seeker", "supporter"] * (len(tree.turns) // 2)
    assert len({tree.labels["role"] for tree in found}) > 1, "topics match several roles"


def test_a_faulty_server_derives_and_every_version_has_an_end(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    with DerivationServer(FAULTY) as server:
        words = ("--model", f"remote:{MODEL}", "--base-url", server.url, "--roles", "2")
        assert esckit(monkeypatch, "derive", "questions.jsonl", "out", *words) == 0
        calls = server.calls
        assert esckit(monkeypatch, "derive", "questions.jsonl", "out", *words) == 0
        assert server.calls == calls, "all is on record"
    told = record(here)
    assert told["derived_by"] == MODEL
    ended = {name: sum(faults.values()) for name, faults in told["faults"].items()}
    assert told["versions"] == 2 * (told["sources"] - ended["dialogue"])
    assert told["calls"]["experiences"] == told["versions"]
    assert told["calls"]["style"] == told["versions"] - ended["experiences"]
    left = told["versions"] - ended["experiences"] - ended["style"] - ended.get("end", 0)
    assert len(read_conversations(here / "out/trees.jsonl")) == left > 0
    assert f"{left} dialogues from 12 sources by {MODEL}" in capsys.readouterr().out


def test_roles_and_steps_by_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--roles", "wukong,penelope", "--steps", "experiences, style", "--dialogues", "2")
    assert esckit(monkeypatch, "derive", "talks.jsonl", "out", *words) == 0
    found = read_conversations(here / "out/trees.jsonl")
    assert [tree.labels["role"] for tree in found] == ["penelope", "wukong"] * 2 or {
        tree.labels["role"] for tree in found
    } == {"penelope", "wukong"}
    assert found[0].provenance["derivation"]["steps"] == ["experiences", "style"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--roles", "nobody"), "has no role 'nobody'"),
        (("--roles", "40"), "40 roles are asked for"),
        (("--language", "fr"), "no source is left to derive from"),
        (("--bank", "nowhere"), "nowhere"),
        (("--model", "nothing-here"), "nothing-here is no chat model"),
        (("--base-url", "http://localhost/v1"), "base_url is for a model behind a URL"),
        (("--steps", "style,dialogue"), "in this order"),
    ],
)
def test_bad_input_gets_one_sentence(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    sentence: str,
) -> None:
    assert esckit(monkeypatch, "derive", "questions.jsonl", "out", *words) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert "Traceback" not in told
    assert not (here / "out").exists()


def test_perplexity_of_dialogues_by_a_named_model(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.tiny import save_base

    save_base(here / "base")
    capsys.readouterr()
    assert esckit(monkeypatch, "check", "perplexity", "talks.jsonl", "--model", "base") == 0
    both = json.loads(capsys.readouterr().out)
    assert (both["model"], both["texts"], len(both["each"])) == ("base", 3, 3)
    assert min(both["each"].values()) <= both["perplexity"] <= max(both["each"].values())
    assert esckit(monkeypatch, "check", "perplexity", "talks.jsonl", "--model", "base", "--speaker", "seeker") == 0
    assert json.loads(capsys.readouterr().out)["tokens"] < both["tokens"]
    assert esckit(monkeypatch, "check", "perplexity", "talks.jsonl", "--model", "base", "--speaker", "me") == 2
    assert "--speaker 'me' is unknown" in capsys.readouterr().err
