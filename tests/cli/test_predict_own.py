"""``esckit predict`` with any model as it is: what works, and what is one sentence."""

from pathlib import Path

import pytest

from esckit.conversation import write_conversations
from esckit.measures import read_predictions
from tests.cli.test_entry import call
from tests.server import KEY, MODEL, Behaviour, ChatServer
from tests.supporters.test_own_model import TALKS
from tests.tiny import save_base


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_conversations(tmp_path / "talks.jsonl", TALKS)
    return tmp_path / "talks.jsonl"


def test_a_model_s_folder_is_predicted_with(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    system, out = tmp_path / "system.txt", tmp_path / "out.jsonl"
    system.write_text("Choose one of {strategies}.\n", encoding="utf-8")
    base = save_base(tmp_path / "base")
    how = ("--system", system, "--strategy-form", "{strategy}: {text}", "--max-new-tokens", "4")
    assert call(monkeypatch, "predict", base, corpus, out, *how) == 0
    assert f"6 turns predicted into {out}; next: esckit evaluate {out}" in capsys.readouterr().out
    rows = read_predictions(out)
    assert all(row.strategy_probabilities and row.predicted_strategy for row in rows)
    assert call(monkeypatch, "predict", base, corpus, tmp_path / "free.jsonl", "--strategy-form", "none") == 0
    assert {row.predicted_strategy for row in read_predictions(tmp_path / "free.jsonl")} == {None}
    assert not (tmp_path / "ledger.sqlite").exists()


def test_a_model_behind_a_url_is_asked_once(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    out = tmp_path / "out.jsonl"
    with ChatServer(Behaviour(reply_faults=0.0)) as server:
        command = ("predict", f"remote:{MODEL}", corpus, out, "--base-url", server.url, "--system", "none")
        assert call(monkeypatch, *command) == 0
        assert "it is sent what you write" in capsys.readouterr().out
        assert server.calls == 6
        assert all(body["messages"][0]["role"] == "user" for body in server.bodies)
        first = out.read_bytes()
        out.unlink()
        assert call(monkeypatch, *command) == 0
        assert (server.calls, out.read_bytes()) == (6, first)


def test_replies_that_did_not_come_are_recorded_and_counted(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    out = tmp_path / "out.jsonl"
    with ChatServer(Behaviour(always=(400, {"message": "no", "code": "content_filter", "type": "x"}))) as server:
        command = ("predict", f"remote:{MODEL}", corpus, out, "--base-url", server.url, "--strategy-form", "none")
        assert call(monkeypatch, *command) == 0
    assert "6 replies did not come (6 refused).\n" in capsys.readouterr().out
    rows = read_predictions(out)
    assert all(row.predicted_text is None and row.extra["state"] == "refused" and row.extra["why"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("base", "--planner", "nobody"), "nobody is nothing here: give the folder of an encoder planner"),
        (("base", "--system", "no.txt"), "no.txt"),
        (("base", "--system", "bad.txt"), "the system text has the slot {situation}, which nothing fills"),
        (("base", "--strategy-form", "[]"), "the form of a strategy '[]' must have {strategy} and then {text}"),
        (("base", "--base-url", "http://x/v1"), "base_url is for a model behind a URL: set model to remote:MODEL"),
        (("base", "--base", "base"), "is no adapter's folder, so it stands on no base"),
        (("talks.jsonl",), "talks.jsonl is a file and no supporter's folder"),
        (("garbage",), "garbage is nothing here"),
        (("remote:",), "remote: names no model"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    arguments: tuple[str, ...],
    words: str,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_base(tmp_path / "base")
    (tmp_path / "bad.txt").write_text("{situation}", encoding="utf-8")
    name, *options = arguments
    assert call(monkeypatch, "predict", name, corpus, "out.jsonl", *options) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("esckit: ")
    assert words in told
    assert not (tmp_path / "out.jsonl").exists()
