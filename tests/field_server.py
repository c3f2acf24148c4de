"""Chat servers as they are met in the field: what each refuses, and in whose words.

A server is a function from a request's body, and how often its question was asked before, to what it answers: a status
and a JSON value, or a text. ``WELL`` stands for a good answer. Texts are short, and those that a client has to read are
the servers' own.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from tests.server import Behaviour, ChatServer

FILTERED_WORD: Final = "harbour"
SAID: Final = "What happened then?"
THOUGHT: Final = (
    'They sound alone.\n[Reflection of feelings] might fit. Draft: {"score": 1, "explanation": "too early"}. No.\n'
)


class Answer(NamedTuple):
    """What goes over the wire, after some seconds."""

    status: int
    value: Any
    delay: float = 0.0


WELL: Final = Answer(0, None)
Server = Callable[[Mapping[str, Any], int], Answer]


class FieldServer(ChatServer):
    """Answers as a server of the field does; takes any key and any model."""

    def __init__(self, server: Server) -> None:
        super().__init__(Behaviour())
        self.server = server
        self.well = 0

    async def _chat(self, writer: asyncio.StreamWriter, authorization: str, body: dict[str, Any]) -> bool:
        question = json.dumps(body["messages"])
        before, self.asked[question] = self.asked[question], self.asked[question] + 1
        self.bodies.append(body)
        answer = self.server(body, before)
        await asyncio.sleep(answer.delay)
        if answer.status == 0:
            self.well += 1
            answer = completion(good(body))
        kind = "application/json" if not isinstance(answer.value, str) else "text/html"
        text = answer.value if isinstance(answer.value, str) else json.dumps(answer.value, ensure_ascii=False)
        lines = f"HTTP/1.1 {answer.status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(text.encode())}\r\n\r\n"
        writer.write(lines.encode() + text.encode())
        await writer.drain()
        return True


def completion(content: Any, finish: str | None = "stop", **message: Any) -> Answer:
    """A completion with this content, and more fields of its message."""
    said = {"role": "assistant", "content": content, **message}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    choices = [{"index": 0, "message": said, "finish_reason": finish}]
    return Answer(200, {"id": "1", "object": "chat.completion", "created": 0, "choices": choices, "usage": usage})


def good(body: Mapping[str, Any]) -> str:
    """What a model answers that understands what it is asked."""
    texts = [message["content"] for message in body["messages"]]
    kind = body.get("response_format", {}).get("type")
    schema = body["response_format"]["json_schema"]["schema"] if kind == "json_schema" else _schema_in(texts)
    if schema is not None:
        fields = {name: field.get("enum") for name, field in schema["properties"].items()}
        return json.dumps({name: allowed[3] if allowed else "It says so." for name, allowed in fields.items()})
    if "Answer with one of these names" in texts[0]:
        return "Question"
    return SAID if "Answer with these words alone" in texts[0] else f"[Question] {SAID}"


def _schema_in(texts: list[str]) -> dict[str, Any] | None:
    for text in texts:
        for found in re.finditer(r"^\{", text, re.MULTILINE):
            with suppress(ValueError):
                value, _ = json.JSONDecoder().raw_decode(text, found.start())
                if "properties" in value:
                    return dict(value)
    return None


def refused(error: Any, status: int = 400, delay: float = 0.0) -> Answer:
    """An error under ``error``."""
    return Answer(status, {"error": error}, delay)


# -------------------------------------------------------------------------------------------- settings that are refused

_INVALID: Final = "invalid_request_error"


def _limit(body: Mapping[str, Any], *, words_alone: bool = False) -> Any | None:
    if "max_tokens" not in body:
        return None
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    if words_alone:
        return {"message": message, "code": "invalid_request_body"}
    return {"message": message, "type": _INVALID, "param": "max_tokens", "code": "unsupported_parameter"}


def limit(body: Mapping[str, Any], before: int) -> Answer:
    error = _limit(body)
    return refused(error, delay=0.05) if error else WELL._replace(delay=0.05)


def limit_no_param(body: Mapping[str, Any], before: int) -> Answer:
    error = _limit(body, words_alone=True)
    return refused(error, delay=0.05) if error else WELL._replace(delay=0.05)


class LimitLate:
    """Refuses the first request at once and the others late, so that good replies come before their refusals."""

    def __init__(self, late: float = 0.5) -> None:
        self.late, self.refusals = late, 0

    def __call__(self, body: Mapping[str, Any], before: int) -> Answer:
        error = _limit(body)
        self.refusals += error is not None
        return refused(error, delay=self.late if self.refusals > 1 else 0.0) if error else WELL


def fixed_temperature(body: Mapping[str, Any], before: int) -> Answer:
    if error := _limit(body):
        return refused(error)
    if body.get("temperature", 1) != 1:
        message = f"Unsupported value: 'temperature' does not support {body['temperature']} with this model. "
        message += "Only the default (1) value is supported."
        return refused({"message": message, "type": _INVALID, "param": "temperature", "code": "unsupported_value"})
    return WELL


def fixed_all(body: Mapping[str, Any], before: int) -> Answer:
    if (answer := fixed_temperature(body, before)).status:
        return answer
    if "top_p" in body:
        message = "Unsupported parameter: 'top_p' is not supported with this model."
        return refused({"message": message, "type": _INVALID, "param": "top_p", "code": "unsupported_parameter"})
    return WELL


def fixed_temperature_words(body: Mapping[str, Any], before: int) -> Answer:
    if body.get("temperature", 1) != 1:
        return refused({"message": "invalid temperature: only 1 is allowed for this model", "type": _INVALID})
    return WELL


def no_json_schema(body: Mapping[str, Any], before: int) -> Answer:
    if body.get("response_format", {}).get("type") == "json_schema":
        message = "This response_format type is unavailable now"
        return refused({"message": message, "type": _INVALID, "param": None, "code": _INVALID})
    return WELL


def no_json_at_all(body: Mapping[str, Any], before: int) -> Answer:
    if "response_format" in body:
        detail = [
            {"type": "extra_forbidden", "loc": ["body", "response_format"], "msg": "Extra inputs are not permitted"}
        ]
        return Answer(422, {"detail": detail})
    return WELL


def either_or(body: Mapping[str, Any], before: int) -> Answer:
    if {"temperature", "top_p"} <= body.keys():
        message = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
        return refused({"message": message, "type": _INVALID, "code": None, "param": None})
    return WELL


def string_enums(body: Mapping[str, Any], before: int) -> Answer:
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {"properties": {}})
    if any("enum" in field and field.get("type") == "integer" for field in schema["properties"].values()):
        message = "Invalid value at 'generation_config.response_schema.properties[1].value.enum[0]' (TYPE_STRING), 0"
        return Answer(400, [{"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}])
    return WELL


def no_system(body: Mapping[str, Any], before: int) -> Answer:
    if any(message["role"] == "system" for message in body["messages"]):
        return Answer(400, {"object": "error", "message": "System role not supported", "type": "BadRequestError"})
    return WELL


# -------------------------------------------------------------------------------------------------------------- filters


def filter_of(error: Any, status: int = 400) -> Server:
    """Refuses what holds a word, with this error."""

    def server(body: Mapping[str, Any], before: int) -> Answer:
        return refused(error, status) if FILTERED_WORD in json.dumps(body["messages"]) else WELL

    return server


FILTERS: Final[Mapping[str, Any]] = {
    "inspection": {
        "message": "Input data may contain inappropriate content.",
        **dict.fromkeys(("type", "code"), "data_inspection_failed"),
        "param": None,
    },
    "risk": {"message": "Content Exists Risk", "type": _INVALID, "param": None, "code": _INVALID},
    "number": {"code": "1301", "message": "输入或输出的内容可能不安全或者敏感，请修改后再试。"},
    "code": {
        "message": "The prompt was filtered by the content policy.",
        **{"type": None, "param": "prompt", "code": "content_filter", "status": 400},
    },
}


# ------------------------------------------------------------------------------------------------------------- thoughts


def thought_closed_only(body: Mapping[str, Any], before: int) -> Answer:
    return completion(f"{THOUGHT}</think>\n\n{good(body)}")


def thought_cut(body: Mapping[str, Any], before: int) -> Answer:
    return completion("<think>\nThey sound alone.\n[Reflection of feelings] could fit, or else", "length")


def thought_apart_cut(body: Mapping[str, Any], before: int) -> Answer:
    return completion(None, "length", reasoning_content="They sound alone. [Reflection of feelings] might fit")


def thought_apart(body: Mapping[str, Any], before: int) -> Answer:
    return completion(good(body), reasoning=THOUGHT)


def thought_in_parts(body: Mapping[str, Any], before: int) -> Answer:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}
    return completion([thinking, {"type": "text", "text": good(body)}])


# ------------------------------------------------------------------------------------------------- errors of status 200


def error_in_200(code: Any) -> Server:
    """Status 200 with an error of this code."""

    def server(body: Mapping[str, Any], before: int) -> Answer:
        error = {"message": "Provider returned error", "code": code, "metadata": {"raw": "rate-limited upstream"}}
        return Answer(200, {"error": error, "user_id": "u"})

    return server


def error_in_200_passing(body: Mapping[str, Any], before: int) -> Answer:
    return error_in_200(429)(body, before) if before < 2 else WELL


def web_page(body: Mapping[str, Any], before: int) -> Answer:
    return Answer(
        200, "<!DOCTYPE html>\n<html><head><title>Welcome to the console</title></head><body>Hi</body></html>"
    )


def other_json(body: Mapping[str, Any], before: int) -> Answer:
    return Answer(200, {"result": "Hello!", "took": 3})
