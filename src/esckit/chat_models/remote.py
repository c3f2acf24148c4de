"""A chat model behind a URL: the OpenAI chat-completions protocol (vLLM, `transformers serve`, hosted services).

The key comes from the environment and goes into the request's header, nowhere else: what a server says is searched for
it before it is shown or recorded.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from esckit.chat_models.json_replies import response_format
from esckit.chat_models.protocol import CallFailure, ChatReply, ChatRequest, Usage
from esckit.errors import ChatError

OPENAI_URL: Final = "https://api.openai.com/v1"
KEY_VARIABLE: Final = "OPENAI_API_KEY"

_SPENT: Final = {"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"}
_UNKNOWN_MODEL: Final = {"model_not_found", "unknown_model"}
_FILTERED: Final = {"content_filter", "content_policy_violation"}
_TOO_LONG: Final = {"context_length_exceeded", "string_above_max_length"}
_MAXIMUM_LENGTH: Final = "maximum context length"  # what vLLM says of it, without a code
_PASSING: Final = {408, 409, 425, 429}  # besides all 5xx
_CROWDED: Final = {429, 503, 529}
_SHORTEST_KEY: Final = 6  # anything shorter stands for no key, and may be part of any word
_DETAIL: Final = 300  # characters of a server's message that are kept


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _PromptDetails(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None


class _Completion(BaseModel):
    """The part of a chat completion that is read."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class RemoteChatModel:
    """A model behind an OpenAI-compatible URL.

    Args:
        model: its name there.
        base_url: up to and including ``/v1``.
        key_variable: the environment variable that holds the key; any word will do for a server that asks for none.
        concurrency: the most calls at once.
        extra_body: fields that each request has besides ours.
        timeout: seconds a call may take in all.

    Raises:
        ChatError: there is no key, the URL is none or carries a secret itself, or the package openai is missing.
    """

    batch_size = 1

    def __init__(
        self,
        model: str,
        base_url: str = OPENAI_URL,
        *,
        key_variable: str = KEY_VARIABLE,
        concurrency: int = 64,
        extra_body: Mapping[str, Any] | None = None,
        timeout: float = 120.0,
    ) -> None:
        self.model = model
        self.base_url = _check_url(base_url)
        self.key_variable = key_variable
        self.concurrency = concurrency
        self.extra_body = dict(extra_body or {})
        self.timeout = timeout
        self._limit = "max_tokens"
        self._client: Any = None
        _check_installed()
        self._key()

    @property
    def identity(self) -> Any:
        """Base URL, name, and what is sent besides our own fields."""
        extra = {"extra_body": self.extra_body} if self.extra_body else {}
        return {"url": self.base_url, "model": self.model, **extra}

    def _key(self) -> str:
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise ChatError(
                f"{self.key_variable} is not set: export the key for {self.base_url} in it "
                "(any word where the server asks for none)."
            )
        return key

    async def answer(self, requests: Sequence[ChatRequest]) -> AsyncIterator[tuple[int, ChatReply | CallFailure]]:
        """See `ChatModel.answer`."""
        for place, request in enumerate(requests):
            yield place, await self._call(request)

    async def _call(self, request: ChatRequest) -> ChatReply | CallFailure:
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        try:
            async with asyncio.timeout(self.timeout):  # a server that drips bytes never meets the client's own limit
                raw = await self._open().chat.completions.with_raw_response.create(**self._body(request))
            return _reply(raw.http_response.content)
        except (TimeoutError, APITimeoutError):
            return CallFailure("timeout", f"no reply within {self.timeout:g} s", "retry", lost=True)
        except UnicodeEncodeError as error:
            return CallFailure("no_text", f"the messages are no Unicode text: {error.reason}", "give_up")
        except APIConnectionError as error:
            return self._unconnected(error.__cause__)
        except APIStatusError as error:
            body = error.body if isinstance(error.body, dict) else {"message": error.body}
            return self._refused(error.status_code, error.response.headers, body)
        except ValidationError as error:
            detail = self._clean(error.errors(include_url=False)[0]["msg"])
            return CallFailure("broken_body", f"the body is no chat completion: {detail}", "retry", lost=True)

    def _open(self) -> Any:
        if self._client is None:
            from openai import AsyncOpenAI

            # Retries are ours: those of the client would be neither recorded nor counted.
            self._client = AsyncOpenAI(
                api_key=self._key(), base_url=self.base_url, max_retries=0, timeout=self.timeout + 1
            )
        return self._client

    async def close(self) -> None:
        """Close the connections, which belong to the running event loop."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        how = request.decoding
        drawn = {"temperature": 0.0} if how.greedy else {"temperature": how.temperature, "top_p": how.top_p}
        return {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            self._limit: how.max_new_tokens,
            **drawn,
            **({"response_format": response_format(request.schema)} if request.schema else {}),
            **({"extra_body": self.extra_body} if self.extra_body else {}),
        }

    def _unconnected(self, cause: BaseException | None) -> CallFailure:
        """A connection that was not made is no item's fault; one that was cut may be."""
        from httpx2 import ConnectError, ConnectTimeout

        if isinstance(cause, ConnectError | ConnectTimeout):
            detail = self._clean(str(cause) or type(cause).__name__)
            nobody = f"nothing answers at {self.base_url} ({detail}): start the server or give another base URL."
            return CallFailure("unreachable", detail, "wait", stop=ChatError(nobody))
        return CallFailure("cut", self._clean(str(cause) or type(cause).__name__), "retry", lost=True)

    def _refused(self, status: int, headers: Mapping[str, str], body: Mapping[str, Any]) -> ChatReply | CallFailure:
        """Sort an HTTP error: the reply is a refusal, the call is worth another try, the item or the run is not."""
        detail = self._clean(f"HTTP {status}: {body.get('message') or body.get('detail') or 'no reason given'}")
        codes = {str(body.get("code")), str(body.get("type"))}
        if codes & _FILTERED:
            return ChatReply(detail, "refused")
        if sentence := self._run_stops(status, codes, detail):
            # A key that may not use the model is forbidden each prompt; a guard forbids one among many.
            then: Literal["deny", "stop"] = "deny" if status == 403 and not codes & _SPENT else "stop"
            return CallFailure(f"http_{status}", detail, then, stop=ChatError(sentence))
        if status == 400 and body.get("param") == "max_tokens" and self._limit == "max_tokens":
            self._limit = "max_completion_tokens"  # hosted reasoning models know the limit by this name alone
            return CallFailure("max_tokens_renamed", detail, "retry")
        if status in _PASSING or status >= 500:
            wait = retry_after(headers.get("retry-after"))
            return CallFailure(f"http_{status}", detail, "retry", crowded=status in _CROWDED, after=wait)
        if codes & _TOO_LONG or _MAXIMUM_LENGTH in detail:
            return CallFailure("too_long", detail, "give_up")
        return CallFailure(f"http_{status}", detail, "doubt")

    def _run_stops(self, status: int, codes: set[str], detail: str) -> str | None:
        """The one sentence, where no other call can fare better."""
        if status == 402 or codes & _SPENT:
            return f"the quota at {self.base_url} is spent ({detail}): top it up, then run the same again."
        if status in (401, 403):
            return (
                f"{self.base_url} refused the key in {self.key_variable} ({detail}): "
                f"export one that may use {self.model}."
            )
        if status == 404 or codes & _UNKNOWN_MODEL:
            return (
                f"{self.base_url} has no model {self.model!r} ({detail}): give a name that "
                f"{self.base_url}/models lists, or the base URL up to and including /v1."
            )
        return None

    def _clean(self, text: str) -> str:
        """One line of bounded length without the key, which some servers repeat."""
        key = os.environ.get(self.key_variable, "").strip()
        text = text.replace(key, "***") if len(key) >= _SHORTEST_KEY else text
        line = " ".join(text.split()).rstrip(".:")
        return line if len(line) <= _DETAIL else f"{line[:_DETAIL]}…"


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ChatError(f"{url!r} is no base URL: give one like {OPENAI_URL}.")
    if parts.username or parts.password or parts.query:
        raise ChatError(
            "the base URL has a user, a password or a query, and it is recorded: give the key by environment."
        )
    return url.rstrip("/")


def _check_installed() -> None:
    try:
        import openai  # noqa: F401
    except ImportError as error:
        raise ChatError("a model behind a URL needs the package openai: pip install 'esckit[remote]'.") from error


def _reply(body: bytes) -> ChatReply:
    """Read a completion. Raises ValidationError where it is none."""
    completion = _Completion.model_validate_json(body)
    choice, usage = completion.choices[0], completion.usage
    counted = None
    if usage is not None:
        cached = usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens
        counted = Usage(usage.prompt_tokens, usage.completion_tokens, cached or 0)
    text = choice.message.content or ""
    if choice.message.refusal or choice.finish_reason == "content_filter":
        return ChatReply(choice.message.refusal or text, "refused", counted)
    return ChatReply(text, "length" if choice.finish_reason == "length" else "stop", counted)


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds from now that a ``Retry-After`` header asks to wait, at least 0; it is seconds or an HTTP date.

    None where there is no header or it cannot be read (RFC 9110, section 10.2.3).
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return _until(value, time.time() if now is None else now)
    return max(0.0, seconds) if isfinite(seconds) else None


def _until(date: str, now: float) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return None
    if moment.tzinfo is None:  # "-0000": UTC of unknown place
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - now)
