"""``esckit check server`` against servers of every kind, and where there is none."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="needs esckit[remote]")

from esckit.corpora.starter import read_starter
from tests import field_server as field
from tests.cli.test_entry import call
from tests.field_server import Answer, FieldServer, Server, refused
from tests.server import KEY, MODEL, ChatServer

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def key_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def facts(server: Server, monkeypatch: pytest.MonkeyPatch, capsys: Output, *more: str) -> dict[str, Any]:
    with FieldServer(server) as running:
        command = ["check", "server", "--model", f"remote:{MODEL}", "--base-url", running.url, "--json", *more]
        assert call(monkeypatch, *command) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["calls"] == running.calls
    return dict(found)


def test_a_server_that_takes_everything(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    found = facts(lambda body, before: field.WELL, monkeypatch, capsys)
    seconds = found["facts"].pop("chat")
    assert seconds.startswith("answers in ")
    assert seconds.endswith("s: '[Question] What happened then?'")
    assert found["facts"] == {
        "models": "1 listed, test-model among them",
        "thoughts": "none seen",
        "limit": "as max_tokens",
        "system text": "taken",
        "temperature": "taken",
        "top_p": "taken",
        "JSON": "json_schema, and the reply fits",
        "log-probabilities": "no (passed over)",
        "two replies a call": "no (passed over)",
        "tokens": "10 in, 5 out of that call",
    }
    assert (found["calls"], found["reply_tokens"]) == (4, 5)


def test_what_a_run_would_cost(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    costs = facts(lambda body, before: field.WELL, monkeypatch, capsys)["costs"]
    turns = sum(turn.speaker == "supporter" for talk in read_starter().test for turn in talk.trunk)
    assert costs["annotate"]["items"] == turns
    assert costs["baseline base-decoupled"]["items"] == 2 * costs["baseline base"]["items"]
    assert costs["judge (one file, 100 turns at most)"]["items"] == 100 * 4 * 2
    assert all(cost["prompt_tokens"] > 100 * cost["items"] for cost in costs.values())
    assert costs["annotate"]["completion_tokens"] == 300 * turns


@pytest.mark.parametrize(
    ("server", "wanted", "calls"),
    [
        (field.fixed_all, {"limit": "as max_completion_tokens", "temperature": "left out", "top_p": "left out"}, 7),
        (field.no_json_schema, {"JSON": "json_object, and the reply fits"}, 5),
        (field.no_json_at_all, {"JSON": "by the prompt alone, and the reply fits"}, 6),
        (field.string_enums, {"JSON": "json_object, and the reply fits"}, 5),
        (field.no_system, {"system text": "begins the first user message"}, 5),
        (
            field.thought_closed_only,
            {"thoughts": "in the reply, taken off", "JSON": "json_schema, and the reply fits"},
            4,
        ),
        (field.thought_apart, {"thoughts": "apart, as reasoning"}, 4),
        (field.thought_in_parts, {"thoughts": "apart, as parts"}, 4),
        (field.thought_cut, {"JSON": "json_schema, and the reply does not fit: its thought never ended"}, 4),
    ],
)
def test_what_a_server_does_otherwise(
    server: Server, wanted: dict[str, str], calls: int, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    found = facts(server, monkeypatch, capsys)
    assert {name: found["facts"][name] for name in wanted} == wanted
    assert found["calls"] == calls


def test_log_probabilities_and_two_replies(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    def server(body: Any, before: int) -> Answer:
        value = field.completion("Yes.").value
        if "logprobs" in body:
            value["choices"][0]["logprobs"] = {"content": [{"token": "Yes", "logprob": -0.1}]}
        if "n" in body:
            return refused({"message": "only one choice", "param": "n"})
        return Answer(200, value)

    found = facts(server, monkeypatch, capsys)["facts"]
    assert found["log-probabilities"] == "yes"
    assert found["two replies a call"] == "no (HTTP 400: only one choice)"


def test_it_is_shown_in_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    with ChatServer() as running:
        assert call(monkeypatch, "check", "server", "--model", f"remote:{MODEL}", "--base-url", running.url) == 0
    shown = capsys.readouterr().out
    assert f"{MODEL} at {running.url}, 4 calls:" in shown
    assert "A run on the 8 dialogues of the starter corpus would ask" in shown
    assert "A reply here took 10 tokens" in shown
    assert KEY not in shown


@pytest.mark.parametrize(
    ("server", "sentence"),
    [
        (
            field.web_page,
            "a web page, 'Welcome to the console', which is no chat completion: the base URL should end in /v1",
        ),
        (field.other_json, '{"result": "Hello!", "took": 3}'),
        (lambda body, before: refused({"message": "Bad key."}, 401), "refused the key in OPENAI_API_KEY"),
        (
            lambda body, before: refused({"message": "None.", "code": "model_not_found"}, 404),
            "has no model 'test-model'",
        ),
        (lambda body, before: refused({"message": "Nothing fits."}), "HTTP 400: Nothing fits): mend the model's name"),
        (lambda body, before: refused({"message": "Later."}, 503), "HTTP 503: Later): mend the model's name"),
        (field.error_in_200(402), "the quota at"),
    ],
)
def test_garbage_is_a_sentence(server: Server, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    with FieldServer(server) as running:
        assert call(monkeypatch, "check", "server", "--model", f"remote:{MODEL}", "--base-url", running.url) == 2
    told = capsys.readouterr().err
    assert told.startswith("esckit: ")
    assert told.count("\n") == 1
    assert sentence in told


def test_nobody_there(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    assert call(monkeypatch, "check", "server", "--model", f"remote:{MODEL}", "--base-url", url) == 2
    assert f"nothing answers at {url}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--model", "smol"], "smol is behind no URL: name a server's model, --model remote:MODEL."),
        (["--model", "remote:m", "--base-url", "localhost:8000"], "is no base URL"),
        (["--model", "remote:m", "--leave-out", "warmth"], "leave_out has warmth: choose among json_schema"),
        (["--model", "remote:m", "--extra-body", "{"], "is no JSON object"),
    ],
)
def test_options_that_cannot_be(
    more: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    assert call(monkeypatch, "check", "server", *more) == 2
    assert sentence in capsys.readouterr().err
