"""Reading what a server answers with status 200: a completion, an error all the same, or neither."""

import json
import re
from collections.abc import Collection
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from esckit.chat_models.protocol import ChatReply, Usage
from esckit.chat_models.server_errors import ServerError, is_web_page, read_error, seen

__all__ = ["NoCompletion", "read_answer"]

_TEXT_PARTS: Final = {None, "text", "output_text"}
_FINE: Final = {"0", "200", "ok", "success", "healthy"}  # codes of what is no error
_CUT: Final = re.compile(r"length|max_?(output_?)?tokens", re.IGNORECASE)
_DECLINED: Final = re.compile(
    r"content_?filter|safety|sensitive|prohibited|blocklist|refus|guardrail|moderation|recitation|spii", re.IGNORECASE
)


class NoCompletion(ValueError):
    """An answer is neither a completion nor an error; the message shows its beginning.

    Args:
        body: as it came.
    """

    def __init__(self, body: bytes) -> None:
        text = body.decode("utf-8", "replace")
        self.web_page = is_web_page(text)
        super().__init__(f"a web page, {seen(text)!r}" if self.web_page else repr(seen(text)) if text else "nothing")


class _Message(BaseModel):
    content: str | list[dict[str, Any] | str] | dict[str, Any] | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message | None = None
    finish_reason: str | None = None


class _PromptDetails(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Completion(BaseModel):
    """The part of a chat completion that is read."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def read_answer(body: bytes) -> ChatReply | ServerError:
    """Read the body of an answer of status 200. What a model thought apart from its reply is passed over.

    Raises:
        NoCompletion: it is neither a completion nor an error.
    """
    try:
        answer = _whole(body) if body.lstrip()[:5] == b"data:" else json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NoCompletion(body) from error
    if (told := _error_in(answer)) is not None:
        return told
    try:
        completion = _Completion.model_validate(answer)
    except ValidationError as error:
        raise NoCompletion(body) from error
    choice, usage = completion.choices[0], completion.usage
    counted = None
    if usage is not None and (usage.prompt_tokens or usage.completion_tokens):
        cached = usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens
        counted = Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0, cached or 0)
    message, finish = choice.message or _Message(), choice.finish_reason or ""
    text, refusal = _text(message.content), message.refusal or _text(message.content, {"refusal"})
    if refusal or _DECLINED.search(finish):
        return ChatReply(refusal or text, "refused", counted)
    if choice.message is None:
        raise NoCompletion(body)
    return ChatReply(text, "length" if _CUT.search(finish) else "stop", counted)


def _whole(stream: bytes) -> Any:
    """The completion that a stream adds up to, from a server that streams unasked; an error in it as it is."""
    lines = [line[5:].strip() for line in stream.splitlines() if line.startswith(b"data:")]
    parts = [json.loads(line) for line in lines if line != b"[DONE]"]
    if any(_error_in(part) for part in parts):
        return next(part for part in parts if _error_in(part))
    choices = [choice for part in parts for choice in (part.get("choices") or [])[:1]]
    said = "".join((choice.get("delta") or {}).get("content") or "" for choice in choices)
    finish = next((choice["finish_reason"] for choice in reversed(choices) if choice.get("finish_reason")), None)
    usage = next((part["usage"] for part in reversed(parts) if part.get("usage")), None)
    return {"choices": [{"message": {"content": said}, "finish_reason": finish}], "usage": usage}


def _text(content: Any, kinds: Collection[str | None] = _TEXT_PARTS) -> str:
    """The text of a message: of one in parts those of these kinds; thoughts are parts of another one."""
    parts = content if isinstance(content, list) else [content or {}]
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    texts = [part.get("text") or part.get("refusal") for part in parts if part.get("type") in kinds]
    return "".join(text for text in texts if isinstance(text, str))


def _error_in(answer: Any) -> ServerError | None:
    """The error that a body holds in the place of a reply, or beside an empty one."""
    if isinstance(answer, list):
        return next(filter(None, map(_error_in, answer)), None)
    if not isinstance(answer, dict):
        return None
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if first is not None:
        return read_error(first) if isinstance(first, dict) and first.get("error") else None
    if answer.get("promptFeedback") or answer.get("prompt_feedback"):  # Gemini's, of a prompt that it blocked
        return ServerError("the prompt was blocked", ("contentfilter",))
    state = answer.get("base_resp")
    told = answer.get("error") or answer.get("errors") or (isinstance(state, dict) and state.get("status_code"))
    found = read_error(answer)
    coded = found.message and set(found.codes) - _FINE
    return found if told or coded or "error" in (answer.get("object"), answer.get("type")) else None
