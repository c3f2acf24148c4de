"""``esckit baseline`` as a user meets it: a backbone here, a model behind a URL, what is told, what is refused."""

import json
import signal
import time
from pathlib import Path

import pytest

from esckit.conversation import write_conversations
from esckit.measures import read_predictions
from esckit.strategy import ESCONV
from esckit.supporters.baselines import METHODS, Asked, BaselineOptions, request_for
from esckit.supporters.prompted import corpus_requests
from tests.children import Ended, finish, start
from tests.cli.test_entry import call
from tests.server import FAULTY, KEY, MODEL, Behaviour, ChatServer
from tests.tiny import save_base, starter_dialogues

DIALOGUES = starter_dialogues(2, 4)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_conversations(tmp_path / "dialogues.jsonl", DIALOGUES)
    return tmp_path / "dialogues.jsonl"


def _answers(seed: int = 0) -> dict[str, str]:
    """A reply with a strategy to every question of the baseline base."""
    (question,) = METHODS["base"].questions
    requests = [
        request_for(Asked(wanted, ESCONV, seed), question, {})
        for wanted in corpus_requests(DIALOGUES, BaselineOptions(method="base"), seed)
    ]
    return {request.messages[-1].content: "[Question] And then?" for request in requests}


def test_a_backbone_here_is_asked_once(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, base = tmp_path / "base.jsonl", save_base(tmp_path / "base")
    command = ("baseline", "base", corpus, out, "--model", base, "--max-new-tokens", "6")
    assert call(monkeypatch, *command) == 0
    told, turns = capsys.readouterr().out, len(_answers())
    assert f"{turns} questions to ask (0 on record)" in told
    assert f"next: esckit evaluate {out}" in told
    assert len(read_predictions(out)) == turns
    first = out.read_bytes()
    out.unlink()
    assert call(monkeypatch, *command) == 0
    told = capsys.readouterr().out
    assert f"0 questions to ask ({turns} on record)" in told
    assert "0 calls" in told
    assert out.read_bytes() == first


def test_a_model_behind_a_url_within_a_budget(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    out, turns = tmp_path / "base.jsonl", len(_answers())
    with ChatServer(Behaviour(answers=_answers())) as server:
        command = ("baseline", "base", corpus, out, "--model", f"remote:{MODEL}", "--base-url", server.url)
        assert call(monkeypatch, *command, "--budget-calls", str(turns - 1)) == 2
        assert "budget" in capsys.readouterr().err
        assert not out.exists()
        assert call(monkeypatch, *command) == 0
        assert server.calls == turns
    assert {(r.predicted_strategy, r.predicted_text) for r in read_predictions(out)} == {("Question", "And then?")}
    assert call(monkeypatch, "evaluate", out, "--json") == 0
    printed = capsys.readouterr().out
    assert json.loads(printed[printed.rindex("\n{") :])["strategy"]["parse_rate"] == 1


def test_what_failed_is_asked_again(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, base = tmp_path / "base.jsonl", save_base(tmp_path / "base")
    too_long = ("--max-new-tokens", "100000")
    command = ("baseline", "base", corpus, out, "--model", base, *too_long)
    assert call(monkeypatch, *command) == 0
    told, turns = capsys.readouterr().out, len(_answers())
    assert f"({turns} failed)" in told
    assert {row.predicted_text for row in read_predictions(out)} == {None}
    assert call(monkeypatch, *command) == 0
    assert f"{turns} questions that failed before are asked again" in capsys.readouterr().out


def test_a_killed_baseline_ends_as_if_it_had_not_been(corpus: Path, tmp_path: Path) -> None:
    """Three SIGKILLs, each in another stage of the method, before a server with faults on a fifth of its calls."""
    pytest.importorskip("openai", reason="needs esckit[remote]")
    dialogues = starter_dialogues(4, 12)
    write_conversations(corpus, dialogues)
    at_once, turns = 4, sum(turn.strategy is not None for talk in dialogues for turn in talk.trunk)
    behaviour = Behaviour(0.02, FAULTY.call_faults, 0.15, hang=0.2)

    def ask(server: ChatServer, place: Path, kill_after: int | None = None) -> Ended:
        place.mkdir(exist_ok=True)
        command: list[str | Path] = [
            "baseline",
            "self-refine",
            corpus,
            place / "out.jsonl",
            "--concurrency",
            str(at_once),
        ]
        command += ["--model", f"remote:{MODEL}", "--base-url", server.url]
        child, before = start(command, place, environment={"OPENAI_API_KEY": KEY}), server.calls
        while kill_after and server.calls < before + kill_after and child.is_alive():
            time.sleep(0.002)
        if kill_after:
            child.kill()
        return finish(child, place)

    with ChatServer(behaviour) as server:
        whole, calls = ask(server, tmp_path / "whole"), server.calls
    assert whole.code == 0, whole.errors
    with ChatServer(behaviour, server.port) as server:
        for stop in (turns // 2, turns, turns):
            assert ask(server, tmp_path / "killed", stop).code == -signal.SIGKILL
            assert not (tmp_path / "killed/out.jsonl").exists()
        last = ask(server, tmp_path / "killed")
        assert last.code == 0, last.errors
        assert server.calls <= calls + 3 * at_once
    assert (tmp_path / "killed/out.jsonl").read_bytes() == (tmp_path / "whole/out.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nonsense", "--model", "b"], "there is no baseline 'nonsense': use one of base, "),
        (["base", "--model", "remote:"], "remote: names no model"),
        (["base", "--model", "nowhere/at/all"], "nowhere/at/all is no chat model: give the folder or the Hub id"),
        (
            ["base", "--model", "b", "--base-url", "http://x/v1"],
            "base_url is for a model behind a URL",
        ),
        (["base", "--examples", "e.jsonl", "--model", "b"], "--examples is for the baseline example"),
    ],
)
def test_bad_arguments_are_one_sentence(
    arguments: list[str],
    sentence: str,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    method, *options = arguments
    assert call(monkeypatch, "baseline", method, corpus, tmp_path / "out.jsonl", *options) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"esckit: {sentence}")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [corpus]
