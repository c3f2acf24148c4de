"""A model behind a URL, against the test server: what is sent, how errors are sorted, where the key goes."""

import asyncio
import json
import logging
import socket
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="needs esckit[remote]")

from esckit.chat_models.asker import Asker
from esckit.chat_models.base_url import BaseUrl, read_url
from esckit.chat_models.json_replies import response_format
from esckit.chat_models.ledger import Ledger
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import CallFailure, ChatReply, ChatRequest, Usage
from esckit.chat_models.remote import RemoteChatModel, retry_after
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.errors import ChatError, EsckitError
from tests import field_server as field
from tests.chat_models.questions import QUICK, STEP, Judgement, questions, remote
from tests.field_server import FieldServer
from tests.server import KEY, MODEL, Behaviour, CallFault, ChatServer, call_fault

PLAIN = ChatRequest((Message("system", "Be kind."), Message("user", "Hello?")), Decoding(max_new_tokens=50))


@pytest.fixture(autouse=True)
def key_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


def call(model: RemoteChatModel, request: ChatRequest = PLAIN) -> ChatReply | CallFailure:
    async def once() -> ChatReply | CallFailure:
        try:
            return (await anext(model.answer([request])))[1]
        finally:
            await model.close()

    return asyncio.run(once())


def ask(url: str, path: Path, pace: Pace = QUICK, **settings: Any) -> None:
    with Ledger(path) as ledger:
        Asker(remote(url, **settings), ledger, STEP, pace).ask(questions(3))


def sentence(text: str) -> None:
    """One line that ends like a sentence."""
    assert "\n" not in text
    assert text.endswith((".", ")."))


# ------------------------------------------------------------------------------------------------------------ requests


def test_what_is_sent_and_what_is_read(server: ChatServer) -> None:
    reply = call(remote(server.url))
    assert reply == ChatReply("I hear you: Hello?", "stop", Usage(20, 10, 5))
    assert server.bodies == [
        {
            "model": "test-model",
            "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello?"}],
            "max_tokens": 50,
            "temperature": 0.7,
            "top_p": 0.95,
        }
    ]
    assert server.headers["authorization"] == f"Bearer {KEY}"


def test_greedy_decoding_and_a_schema(server: ChatServer) -> None:
    request = replace(PLAIN, decoding=Decoding(greedy=True), schema=Judgement)
    assert isinstance(call(remote(server.url), request), ChatReply)
    body = server.bodies[0]
    assert (body["temperature"], "top_p" in body) == (0.0, False)
    assert body["response_format"] == response_format(Judgement)


def test_a_model_is_asked_again_under_another_event_loop(server: ChatServer) -> None:
    model = remote(server.url)
    assert isinstance(call(model), ChatReply)
    assert isinstance(call(model), ChatReply)


def test_a_server_that_counts_no_tokens() -> None:
    with ChatServer(Behaviour(usage=False)) as server:
        assert call(remote(server.url)) == ChatReply("I hear you: Hello?", "stop", None)


def test_the_identity_is_url_and_name_and_no_key(server: ChatServer) -> None:
    model = remote(server.url + "/")
    assert model.identity == {"url": server.url, "model": "test-model"}
    assert KEY not in repr(vars(model))


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("status", "error", "kind", "then", "crowded"),
    [
        (429, {"code": "rate_limit_exceeded"}, "http_429", "retry", True),
        (503, {}, "http_503", "retry", True),
        (529, {}, "http_529", "retry", True),
        (500, {}, "http_500", "retry", False),
        (502, {}, "http_502", "retry", False),
        (408, {}, "http_408", "retry", False),
        (400, {"code": "context_length_exceeded"}, "too_long", "give_up", False),
        (400, {}, "http_400", "doubt", False),
        (413, {}, "http_413", "doubt", False),
        (422, {}, "http_422", "doubt", False),
        (401, {}, "http_401", "stop", False),
        (403, {}, "http_403", "deny", False),
        (404, {}, "http_404", "stop", False),
        (400, {"code": "model_not_found"}, "http_400", "stop", False),
        (402, {}, "http_402", "stop", False),
        (429, {"code": "insufficient_quota"}, "http_429", "stop", False),
        (429, {"type": "insufficient_quota"}, "http_429", "stop", False),
    ],
)
def test_http_errors_are_sorted(status: int, error: Mapping[str, str], kind: str, then: str, crowded: bool) -> None:
    with ChatServer(Behaviour(always=(status, {"message": "no.", **error}))) as server:
        failure = call(remote(server.url))
    assert isinstance(failure, CallFailure)
    assert (failure.kind, failure.then, failure.crowded, failure.lost) == (kind, then, crowded, False)
    assert failure.detail == f"HTTP {status}: no"
    assert (failure.stop is not None) == (then in ("stop", "deny"))


def reason(error: Any) -> str:
    """What is kept of an error's body."""
    with ChatServer(Behaviour(always=(400, error))) as server:
        failure = call(remote(server.url))
    assert isinstance(failure, CallFailure)
    return failure.detail


def test_a_reason_is_found_where_servers_put_it() -> None:
    assert reason({"message": "too\n long."}) == "HTTP 400: too long"
    assert reason({"detail": "pinned"}) == "HTTP 400: pinned"
    assert reason("plain text") == "HTTP 400: plain text"
    assert reason({}) == "HTTP 400: no reason given"
    assert len(reason({"message": "x" * 5000})) == 301


@pytest.mark.parametrize(
    ("fault", "kind", "lost"),
    [("hang", "timeout", True), ("cut", "cut", True), ("body", "broken_body", True), ("500", "http_500", False)],
)
def test_calls_that_break_on_the_way_are_tried_again(fault: CallFault, kind: str, lost: bool) -> None:
    behaviour = Behaviour(call_faults=1.0)
    question = next(
        request
        for request in questions(200)
        if call_fault(behaviour, json.dumps([{"role": "user", "content": request.messages[0].content}]), 0) == fault
    )
    with ChatServer(behaviour) as server:
        failure = call(remote(server.url, timeout=0.2), question)
    assert isinstance(failure, CallFailure)
    assert (failure.kind, failure.then, failure.lost) == (kind, "retry", lost)


def test_a_server_that_drips_meets_the_time_limit_too() -> None:
    """A read timeout alone would start anew with each byte."""

    async def main() -> ChatReply | CallFailure:
        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n")
            for _ in range(100):
                writer.write(b" ")
                await asyncio.sleep(0.02)

        async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
            model = remote(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", timeout=0.2)
            _, result = await anext(model.answer([PLAIN]))
            await model.close()
            return result

    failure = asyncio.run(asyncio.wait_for(main(), 10))
    assert isinstance(failure, CallFailure)
    assert failure.kind == "timeout"


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation"])
def test_a_filtered_prompt_is_a_refusal(code: str) -> None:
    with ChatServer(Behaviour(always=(400, {"message": "filtered", "code": code}))) as server:
        assert call(remote(server.url)) == ChatReply("HTTP 400: filtered", "refused")


def test_models_that_rename_the_length_limit_are_asked_by_its_new_name() -> None:
    refused = (400, {"message": "use max_completion_tokens", "param": "max_tokens", "code": "unsupported_parameter"})
    with ChatServer(Behaviour(always=refused)) as server:
        model = remote(server.url)
        failure = call(model)
        assert isinstance(failure, CallFailure)
        assert failure.then == "again"
        server.behaviour = Behaviour()
        assert isinstance(call(model), ChatReply)
    assert [sorted(body)[0] for body in server.bodies] == ["max_tokens", "max_completion_tokens"]


@pytest.mark.parametrize("status", [400, 404, 422, 500, 501])
def test_a_setting_is_refused_with_this_status(status: int) -> None:
    with ChatServer(Behaviour(always=(status, {"message": "top_p is not supported"}))) as server:
        failure = call(remote(server.url))
    assert isinstance(failure, CallFailure)
    assert (failure.kind, failure.then) == ("sent_again", "again")


def test_a_setting_that_the_user_wants_stops_the_run_where_it_is_refused(tmp_path: Path) -> None:
    refused = (400, {"message": "Unrecognized request argument supplied: repetition_penalty"})
    request = ChatRequest((Message("user", "Hello?"),), Decoding(repetition_penalty=1.2))
    with ChatServer(Behaviour(always=refused)) as server, Ledger(tmp_path / "ledger") as ledger:
        with pytest.raises(
            ChatError, match=r"refuses repetition_penalty .*add repetition_penalty to leave_out"
        ) as error:
            Asker(remote(server.url), ledger, "test/1").ask([request])
        sentence(str(error.value))
        server.behaviour = Behaviour()
        model = RemoteChatModel(MODEL, server.url, leave_out=["repetition_penalty"])
        (outcome,) = Asker(model, ledger, "test/1").ask([request])
    assert outcome.left_out == "repetition_penalty"
    assert server.bodies[0]["repetition_penalty"] == 1.2
    assert "repetition_penalty" not in server.bodies[-1]


@pytest.mark.parametrize(("status", "then"), [(401, "stop"), (403, "deny"), (429, "retry"), (503, "retry")])
def test_with_another_status_it_is_something_else(status: int, then: str) -> None:
    with ChatServer(Behaviour(always=(status, {"message": "top_p is not supported"}))) as server:
        failure = call(remote(server.url))
    assert isinstance(failure, CallFailure)
    assert failure.then == then


def test_a_text_that_is_no_unicode_fails_alone(server: ChatServer) -> None:
    failure = call(remote(server.url), ChatRequest((Message("user", "\ud83d"),)))
    assert isinstance(failure, CallFailure)
    assert (failure.kind, failure.then) == ("no_text", "give_up")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        (formatdate(1_800_000_030, usegmt=True), 30.0),
        ("Fri, 15 Jan 2027 08:00:30 -0000", 30.0),
        (formatdate(1_700_000_000, usegmt=True), 0.0),
        (None, None),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("Fri, 99 Foo 2027 08:00:30 GMT", None),
    ],
)
def test_retry_after_in_both_forms(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, now=1_800_000_000.0) == seconds


@pytest.mark.parametrize("as_date", [False, True])
def test_what_a_server_asks_to_wait_is_read_from_its_answer(as_date: bool) -> None:
    behaviour = Behaviour(call_faults=1.0, retry_after=100)
    fault = "429_date" if as_date else "429_seconds"
    question = next(
        request
        for request in questions(200)
        if call_fault(behaviour, json.dumps([{"role": "user", "content": request.messages[0].content}]), 0) == fault
    )
    with ChatServer(behaviour) as server:
        failure = call(remote(server.url), question)
    assert isinstance(failure, CallFailure)
    assert failure.after == pytest.approx(100, abs=5)


# ------------------------------------------------------------------------------------------------- one sentence each


def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "  "):
        monkeypatch.setenv("OTHER_KEY", value)
        with pytest.raises(ChatError) as error:
            RemoteChatModel("m", "http://127.0.0.1:1/v1", key_variable="OTHER_KEY")
        assert str(error.value) == (
            "OTHER_KEY is not set: export the key for http://127.0.0.1:1/v1 in it (any word where the server asks for "
            "none)."
        )


def test_a_refused_key(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-123456")
    with pytest.raises(ChatError, match=r"refused the key in OPENAI_API_KEY .*export one that may use") as error:
        ask(server.url, tmp_path / "ledger")
    sentence(str(error.value))


def test_nothing_behind_the_url(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    with pytest.raises(
        ChatError, match=f"nothing answers at {url} .*start the server or give another base URL"
    ) as error:
        ask(url, tmp_path / "ledger", Pace())  # at once, by the usual pace too
    sentence(str(error.value))


def test_an_unknown_model(server: ChatServer, tmp_path: Path) -> None:
    with pytest.raises(ChatError, match=r"has no model 'other' .*/v1/models lists") as error:
        ask(server.url, tmp_path / "ledger", model="other")
    sentence(str(error.value))


def test_a_url_without_its_v1(server: ChatServer, tmp_path: Path) -> None:
    with pytest.raises(ChatError, match="base URL up to and including /v1"):
        ask(server.url.removesuffix("/v1"), tmp_path / "ledger")


def test_a_spent_quota(tmp_path: Path) -> None:
    with (
        ChatServer(Behaviour(always=(429, {"message": "You exceeded.", "code": "insufficient_quota"}))) as server,
        pytest.raises(ChatError, match=r"the quota at .* is spent .*top it up, then run the same again") as error,
    ):
        ask(server.url, tmp_path / "ledger")
    sentence(str(error.value))


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "", "http://"])
def test_no_url(url: str) -> None:
    with pytest.raises(ChatError, match="is no base URL"):
        RemoteChatModel("m", url)


@pytest.mark.parametrize("url", ["https://me:secret@host/v1", "https://host/v1?key=secret"])
def test_a_url_with_a_secret_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ChatError) as error:
        RemoteChatModel("m", url)
    assert "secret" not in str(error.value)


# ------------------------------------------------------------------------------------------------------------- the key


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_the_key_is_written_nowhere(
    status: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Though the server repeats it in its message."""
    caplog.set_level(logging.DEBUG)
    shown = ""
    with ChatServer(Behaviour(always=(status, {"message": f"not with {KEY}!"}))) as server:
        try:
            ask(server.url, tmp_path / "ledger", replace(QUICK, attempts=2))
        except EsckitError:
            shown = traceback.format_exc()
    printed = capsys.readouterr()
    assert "with ***" in shown or status != 401
    assert KEY not in shown + printed.out + printed.err + caplog.text
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"with ***" in written
    assert KEY.encode() not in written


# ------------------------------------------------------------------------------------------------- URL, proxy, settings


@pytest.mark.parametrize("version", ["2024-06-01", "2025-01-01-preview", "preview", "v1"])
def test_azures_version_goes_with_every_call_and_is_recorded(version: str) -> None:
    with FieldServer(lambda body, before: field.WELL) as server:
        url = f"{server.url}/deployments/d?api-version={version}"
        server.path = "/v1/deployments/d/chat/completions"
        model = remote(url, model="d")
        for _ in range(2):
            assert isinstance(call(model), ChatReply)
    assert server.targets == [f"/v1/deployments/d/chat/completions?api-version={version}"] * 2
    assert server.headers["api-key"] == KEY
    assert model.identity == {"url": url, "model": "d"}


@pytest.mark.parametrize(
    "url",
    [
        "https://host/v1?api-version=2024-06-01&key=secret",
        "https://host/v1?api-version=2024-06-01&api-version=secret",
        "https://host/v1?api-version=sk-secret-secret-secret-secret-secret-secret",
        "https://host/v1?api-version=",
        "https://host/v1?sig=secret",
        "https://host/v1?secret",
        "https://host/v1#secret",
        "https://secret@host/v1?api-version=2024-06-01",
    ],
)
def test_any_other_query_is_refused(url: str) -> None:
    with pytest.raises(ChatError, match=r"\?api-version=\.\.\. alone may stand there\)\.$") as error:
        RemoteChatModel("m", url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "azure"),
    [
        ("https://name.openai.azure.com/openai/deployments/d?api-version=2024-06-01", True),
        ("https://name.services.ai.azure.com/models?api-version=2024-06-01", True),
        ("https://name.openai.azure.com.example.org/v1?api-version=2024-06-01", False),
        ("http://127.0.0.1:1/v1?api-version=2024-06-01", False),
    ],
)
def test_azures_own_hosts_get_the_key_by_its_own_name_alone(
    url: str, azure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key as a bearer is no valid one there."""
    assert read_url(url).is_azure == azure
    monkeypatch.setattr(BaseUrl, "is_azure", azure)
    with ChatServer() as server:
        server.path = "/v1/chat/completions"
        call(remote(f"{server.url}?api-version=2024-06-01"))
    assert server.headers["api-key"] == KEY
    assert ("authorization" not in server.headers) == azure


@pytest.mark.parametrize("url", ["http://host:port/v1", "http://[::1/v1"])
def test_a_url_that_cannot_be_read(url: str) -> None:
    with pytest.raises(ChatError, match="is no base URL"):
        RemoteChatModel("m", url)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_on_the_way_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv(name, f"http://me:secret@127.0.0.1:{port}")
    with pytest.raises(ChatError) as error:
        ask("http://models.example/v1", tmp_path / "ledger", Pace())
    sentence(str(error.value))
    assert f"through the proxy 127.0.0.1:{port} of {name}" in str(error.value)
    assert "add models.example to NO_PROXY" in str(error.value)
    assert "secret" not in str(error.value)
    monkeypatch.setenv("NO_PROXY", "models.example")
    with pytest.raises(ChatError) as error:
        ask("http://models.example:1/v1", tmp_path / "ledger", Pace())
    assert "proxy" not in str(error.value)


@pytest.mark.parametrize("proxy", ["nothing://x", "socks9://127.0.0.1:1", "http://[x"])
def test_a_proxy_that_is_none(proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(ChatError, match="proxy") as error:
        ask("http://models.example/v1", tmp_path / "ledger", Pace())
    sentence(str(error.value))


def test_settings_that_are_left_out_by_hand() -> None:
    with FieldServer(lambda body, before: field.WELL) as server:
        model = RemoteChatModel("m", server.url, leave_out=["top_p", "max_tokens"])
        assert call(model) == ChatReply("[Question] What happened then?", "stop", Usage(10, 5), ("max_tokens", "top_p"))
    assert server.bodies[0].keys() == {"model", "messages", "temperature"}
    assert model.identity == {"url": server.url, "model": "m", "leave_out": ["max_tokens", "top_p"]}


def test_json_that_the_server_checked_itself_is_a_broken_reply() -> None:
    """Groq answers so; the model is then shown what was wrong, as with any other server."""
    error = {
        "message": "Failed to generate JSON.",
        "code": "json_validate_failed",
        "failed_generation": '{"score": "x"',
    }
    with ChatServer(Behaviour(always=(400, error))) as server:
        assert call(remote(server.url), replace(PLAIN, schema=Judgement)) == ChatReply('{"score": "x"', "stop")


def test_a_page_that_is_not_there_is_told_by_its_title(tmp_path: Path) -> None:
    page = "<html><head><title>404 Not Found</title></head><body>nginx</body></html>"
    with (
        FieldServer(lambda body, before: field.Answer(404, page)) as server,
        pytest.raises(ChatError, match=r"HTTP 404: 404 Not Found\).* up to and including /v1\.$"),
    ):
        ask(server.url, tmp_path / "ledger")


@pytest.mark.parametrize(("limit", "seconds"), [(50, 120), (1200, 120), (8000, 800)])
def test_a_long_thought_is_given_its_time(limit: int, seconds: float) -> None:
    model = RemoteChatModel("m", "http://127.0.0.1:1/v1")
    said = model.say(replace(PLAIN, decoding=Decoding(max_new_tokens=limit)))
    assert model._seconds(said.body) == seconds
