"""What comes back with status 200, in the forms that servers give it."""

import json
from typing import Any

import pytest

from esckit.chat_models.completions import NoCompletion, read_answer
from esckit.chat_models.protocol import ChatReply, Usage
from esckit.chat_models.server_errors import ServerError
from tests.field_server import completion


def read(value: Any) -> ChatReply | ServerError:
    return read_answer(value if isinstance(value, bytes) else json.dumps(value).encode())


def of(content: Any, finish: str | None = "stop", **message: Any) -> ChatReply:
    reply = read(completion(content, finish, **message).value)
    assert isinstance(reply, ChatReply)
    return reply


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Hello.", "Hello."),
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": "Hello."}], "Hello."),
        ([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo."}], "Hello."),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Hi."}], "Hi."),
        ([{"type": "reasoning", "text": "Hm."}, {"type": "output_text", "text": "Hi."}], "Hi."),
        ([{"type": "reasoning", "text": "Hm."}], ""),
        (["Hel", "lo."], "Hello."),
        ({"type": "text", "text": "Hello."}, "Hello."),
        ([{"type": "text", "text": None}], ""),
    ],
)
def test_content_in_every_form(content: Any, text: str) -> None:
    assert of(content).text == text


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking", "thoughts"])
def test_a_thought_apart_is_passed_over(name: str) -> None:
    assert of("Hello.", **{name: "They sound alone."}).text == "Hello."
    assert of(None, "length", **{name: "They sound alone."}) == ChatReply("", "length", Usage(10, 5))


@pytest.mark.parametrize(
    ("finish", "read_as"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("end_turn", "stop"),
        (None, "stop"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("content_filter", "refused"),
        ("content_filter: PROHIBITED_CONTENT", "refused"),
        ("sensitive", "refused"),
        ("SAFETY", "refused"),
        ("refusal", "refused"),
    ],
)
def test_how_it_ended(finish: str | None, read_as: str) -> None:
    assert of("Hello.", finish).finish == read_as


def test_a_refusal_is_kept_as_the_reason() -> None:
    assert of([{"type": "refusal", "refusal": "I cannot."}]) == ChatReply("I cannot.", "refused", Usage(10, 5))
    assert read({"choices": [{"index": 0, "finish_reason": "content_filter"}]}) == ChatReply("", "refused")
    blocked = read({"choices": [], "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}})
    assert isinstance(blocked, ServerError)
    assert blocked.filtered(500)
    assert of(None, refusal="I cannot.") == ChatReply("I cannot.", "refused", Usage(10, 5))


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, Usage(3, 4)),
        ({"prompt_tokens": 3, "completion_tokens": None}, Usage(3, 0)),
        ({"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}, Usage(3, 4, 2)),
        ({"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": None}, Usage(3, 4)),
        ({}, None),
        (None, None),
    ],
)
def test_tokens(usage: Any, counted: Usage | None) -> None:
    reply = read({**completion("Hello.").value, "usage": usage})
    assert isinstance(reply, ChatReply)
    assert reply.usage == counted


def test_blank_lines_that_keep_a_connection_open_are_passed_over() -> None:
    assert read(b"\n\n  \n" + json.dumps(completion("Hello.").value).encode()) == of("Hello.")


def test_a_stream_that_nobody_asked_for_adds_up() -> None:
    parts: list[Any] = [{"choices": [{"delta": {"role": "assistant"}}]}]
    parts += [{"choices": [{"delta": {"content": text}, "finish_reason": None}]} for text in ("Hel", "lo.")]
    parts += [{"choices": [{"delta": {"reasoning_content": "Hm."}, "finish_reason": "length"}]}, {"choices": []}]
    parts[-1]["usage"] = {"prompt_tokens": 3, "completion_tokens": 4}
    lines = [f"data: {json.dumps(part)}" for part in parts] + ["data: [DONE]", ""]
    assert read("\n\n".join(lines).encode()) == ChatReply("Hello.", "length", Usage(3, 4))
    assert isinstance(read(b'data: {"error": {"message": "no", "code": 429}}\n\n'), ServerError)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "no", "code": 429}},
        {"error": "no"},
        [{"error": {"message": "no"}}],
        {"errors": [{"message": "no"}]},
        {"object": "error", "message": "no", "code": 50001},
        {"type": "error", "error": {"type": "overloaded_error", "message": "no"}},
        {"code": 500, "msg": "no", "success": False},
        {"code": 1305, "msg": "no"},
        {"status": 429, "detail": "no"},
        {"statusCode": 503, "message": "no"},
        {"choices": None, "base_resp": {"status_code": 1002, "status_msg": "no"}},
        {"choices": [], "error": {"message": "no"}},
        {"choices": [{"error": {"message": "no", "code": 502}, "finish_reason": "error", "message": {"content": ""}}]},
    ],
)
def test_an_error_all_the_same(body: Any) -> None:
    found = read(body)
    assert isinstance(found, ServerError)
    assert found.message == "no"


def test_an_error_that_is_none_beside_a_reply() -> None:
    value = completion("Hello.").value
    assert read({**value, "error": None, "base_resp": {"status_code": 0, "status_msg": ""}}) == of("Hello.")
    assert read({**value, "code": 200, "message": "ok"}) == of("Hello.")


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", "nothing"),
        (b"Hello", "'Hello'"),
        (b"<!doctype html><title>Log in</title>", "a web page, 'Log in'"),
        (b'{"detail": "this is no completion"}', '\'{"detail": "this is no completion"}\''),
        (b'{"choices": []}', "'{\"choices\": []}'"),
        (b'{"choices": [{"text": "an old completion"}]}', '\'{"choices": [{"text": "an old completion"}]}\''),
        (b"data: not JSON\n\n", "'data: not JSON'"),
        (b"[1, 2]", "'[1, 2]'"),
        (b'{"status": "ok", "message": "hi"}', '\'{"status": "ok", "message": "hi"}\''),
        (b'{"message": {"content": "Hi."}}', '\'{"message": {"content": "Hi."}}\''),
        (b"null", "'null'"),
        (b"\xff\xfe", "'\ufffd\ufffd'"),
    ],
)
def test_neither_shows_its_beginning(body: bytes, shown: str) -> None:
    with pytest.raises(NoCompletion) as error:
        read(body)
    assert str(error.value) == shown
