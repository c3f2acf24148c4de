"""A chat model behind a URL: the OpenAI chat-completions protocol (vLLM, `transformers serve`, hosted services).

The key comes from the environment and goes into the request's header, nowhere else: what a server says is searched for
it before it is shown or recorded.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, Final, Literal

from esckit.chat_models.base_url import OPENAI_URL, read_url
from esckit.chat_models.completions import NoCompletion, read_answer
from esckit.chat_models.dialect import Dialect, Said
from esckit.chat_models.protocol import CallFailure, ChatReply, ChatRequest
from esckit.chat_models.server_errors import ServerError, read_error
from esckit.errors import ChatError
from esckit.progress import tell

KEY_VARIABLE: Final = "OPENAI_API_KEY"

_PASSING: Final = {408, 409, 425, 429}  # besides all 5xx
_CROWDED: Final = {429, 503, 529}
_LEARN: Final = {400, 404, 422, 500, 501}  # with these a server, or a gateway before it, refuses a field
_NO_PAGE: Final = {404, 405}
_TRIES: Final = 2  # for an answer that is no completion: it is likely to stay so
_SHORTEST_KEY: Final = 6  # anything shorter stands for no key, and may be part of any word
_SECONDS: Final = 120.0  # that a call may take,
_PER_TOKEN: Final = 0.1  # or a slow server's time for each token of the limit, where that is more
_CONNECTIONS: Final = 8  # of one client, whose time a call grows with their number
_DETAIL: Final = 300  # characters of a server's message that are kept


class RemoteChatModel:
    """A model behind an OpenAI-compatible URL.

    A setting that the server refuses is said in another way, or left out, from then on (`dialect`); it is told once on
    standard error, and replies say what they were asked without.

    Args:
        model: its name there.
        base_url: up to and including ``/v1``.
        key_variable: the environment variable that holds the key; any word will do for a server that asks for none.
        concurrency: the most calls at once.
        extra_body: fields that each request has besides ours.
        leave_out: settings that are not sent at all (`dialect.LEAVABLE`).
        timeout: seconds a call may take in all; None is two minutes, or as many as a long thought needs.

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
        leave_out: Iterable[str] = (),
        timeout: float | None = None,
    ) -> None:
        self.model = model
        self.url = read_url(base_url)
        self.base_url = self.url.given
        self.key_variable = key_variable
        self.concurrency = concurrency
        self.extra_body = dict(extra_body or {})
        self.leave_out = sorted(set(leave_out))
        self.timeout = timeout
        self._dialect = Dialect(self.extra_body, self.leave_out)
        self._clients: list[Any] = []
        self._busy: list[int] = []  # calls under way by each
        _check_installed()
        self._key()

    @property
    def identity(self) -> Any:
        """Base URL, name, and how requests differ from our usual ones; not what was learnt on the way."""
        extra = {"extra_body": self.extra_body} if self.extra_body else {}
        without = {"leave_out": self.leave_out} if self.leave_out else {}
        return {"url": self.base_url, "model": self.model, **extra, **without}

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
            yield place, (await self.exchange(self.say(request)))[0]

    def say(self, request: ChatRequest) -> Said:
        """A request as it would go out now."""
        return self._dialect.say(self.model, request)

    async def exchange(self, said: Said) -> tuple[ChatReply | CallFailure, bytes]:
        """Send a request once; return what came of it, and the body of an answer of status 200, else nothing."""
        received: list[bytes] = []
        return await self._call(said, received), b"".join(received)

    async def models(self) -> list[str] | None:
        """The names that the server lists; None where it lists none.

        Raises:
            ChatError: nothing answers at the URL.
        """
        from openai import APIConnectionError, OpenAIError

        try:
            async with asyncio.timeout(self._seconds({})):
                with self._client() as client:
                    raw = await client.models.with_raw_response.list()
            return [str(model["id"]) for model in json.loads(raw.http_response.content)["data"]]
        except APIConnectionError as error:
            if stop := self._unconnected(error.__cause__).stop:
                raise stop from error
            return None
        except (OpenAIError, TimeoutError, ValueError, TypeError, KeyError):
            return None

    async def _call(self, said: Said, received: list[bytes]) -> ChatReply | CallFailure:
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        try:
            received.append(await self._post(said.body))
            answer = read_answer(received[0])
        except (TimeoutError, APITimeoutError):
            return CallFailure("timeout", f"no reply within {self._seconds(said.body):g} s", "retry", lost=True)
        except UnicodeEncodeError as error:
            return CallFailure("no_text", f"the messages are no Unicode text: {error.reason}", "give_up")
        except APIConnectionError as error:
            return self._unconnected(error.__cause__)
        except APIStatusError as error:
            told = read_error(error.response.content.decode("utf-8", "replace"))
            return self._refused(said, error.status_code, told, error.response.headers)
        except NoCompletion as error:
            return self._no_completion(error)
        if isinstance(answer, ServerError):
            return self._refused(said, answer.status, answer, {})
        return replace(answer, left_out=said.left_out)

    async def _post(self, body: Mapping[str, Any]) -> bytes:
        from httpx2 import Response
        from openai import Omit

        # Azure's own hosts take a bearer for a token of another kind, and refuse it.
        without = {"headers": {"Authorization": Omit()}} if self.url.api_version and self.url.is_azure else {}
        seconds = self._seconds(body)
        whole = {**{name: value for name, value in body.items() if name != "extra_body"}, **body.get("extra_body", {})}
        options: Any = {**without, "timeout": seconds + 1}
        async with asyncio.timeout(seconds):  # a server that drips bytes never meets the client's own limit
            with self._client() as client:
                # As it is: walking through what is sent and received would be most of the client's time.
                raw = await client.post("/chat/completions", cast_to=Response, body=whole, options=options)
        return bytes(raw.content)

    def _seconds(self, body: Mapping[str, Any]) -> float:
        """How long a call may take."""
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or 0
        return max(_SECONDS, _PER_TOKEN * limit) if self.timeout is None else self.timeout

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """A client with few calls under way: for each call it looks at every connection that it has."""
        place = next((place for place, busy in enumerate(self._busy) if busy < _CONNECTIONS), len(self._busy))
        if place == len(self._busy):
            self._clients.append(self._open())
            self._busy.append(0)
        self._busy[place] += 1
        try:
            yield self._clients[place]
        finally:
            self._busy[place] -= 1

    def _open(self) -> Any:
        from openai import AsyncOpenAI

        how: dict[str, Any] = {"api_key": self._key(), "base_url": self.url.root}
        if self.url.api_version:
            how["default_query"] = {"api-version": self.url.api_version}
            how["default_headers"] = {"api-key": how["api_key"]}
        try:
            # Retries are ours: those of the client would be neither recorded nor counted.
            return AsyncOpenAI(**how, max_retries=0)
        except (ValueError, ImportError) as error:
            message = f"the proxy of the environment cannot be used ({self._clean(str(error))}){self.url.proxy}."
            raise ChatError(message) from error

    async def close(self) -> None:
        """Close the connections, which belong to the running event loop."""
        clients, self._clients, self._busy = self._clients, [], []
        for client in clients:
            await client.close()

    def _unconnected(self, cause: BaseException | None) -> CallFailure:
        """A connection that was not made is no item's fault; one that was cut may be."""
        from httpx2 import ConnectError, ConnectTimeout, ProxyError, UnsupportedProtocol

        detail = self._clean(str(cause) or type(cause).__name__)
        if isinstance(cause, ConnectError | ConnectTimeout | ProxyError | UnsupportedProtocol):
            nobody = (
                f"nothing answers at {self.base_url} ({detail}){self.url.proxy}: start the server or give another "
                "base URL."
            )
            return CallFailure("unreachable", detail, "wait", stop=ChatError(nobody))
        return CallFailure("cut", detail, "retry", lost=True)

    def _no_completion(self, found: NoCompletion) -> CallFailure:
        """An answer that nobody can read is asked for once more; a server that gives no others stops the run."""
        seen, where = self._clean(str(found)), f"as {self.url.root}/v1 does"
        if self.url.root.endswith("/v1"):
            where = "on the host, port and path of the API"
        advice = f"the base URL should end in /v1, {where}"
        sentence = f"{self.base_url} answers with {seen}{self.url.proxy}, which is no chat completion: {advice}."
        kind, lost = ("web_page", False) if found.web_page else ("broken_body", True)
        told = f"the body is no chat completion: {seen}"
        return CallFailure(kind, told, "retry", lost=lost, attempts=_TRIES, stop=ChatError(sentence))

    def _refused(
        self, said: Said, status: int, error: ServerError, headers: Mapping[str, str]
    ) -> ChatReply | CallFailure:
        """Sort an error: the reply is a refusal, the call is worth another try, the item or the run is not."""
        detail = self._clean(f"HTTP {status}: {error.message or 'no reason given'}")
        if error.filtered(status):
            return ChatReply(detail, "refused", left_out=said.left_out)
        if error.generated is not None:  # the server has checked the JSON itself, and shows what it found
            return ChatReply(error.generated, "stop", left_out=said.left_out)
        learns = status in _LEARN and not error.too_long and not error.unknown_model
        if learns and (field := self._dialect.insisted(said, error)):
            stop = ChatError(
                f"{self.model} refuses {field} ({detail}): remove it from the decoding, or add {field} to leave_out "
                "(--leave-out), which is recorded."
            )
            return CallFailure(f"http_{status}", detail, "stop", stop=stop)
        if learns and (now := self._dialect.learn(said, error)) is not None:
            if now:
                tell(f"{self.model} refused a setting ({detail}): {now} from now on")
            return CallFailure("sent_again", detail, "again")
        if sentence := self._run_stops(status, error, detail):
            # A key that may not use the model is forbidden each prompt; a guard forbids one among many.
            then: Literal["deny", "stop"] = "deny" if status == 403 and not error.spent else "stop"
            return CallFailure(f"http_{status}", detail, then, stop=ChatError(sentence))
        if error.too_long:
            return CallFailure("too_long", detail, "give_up")
        if status in _PASSING or status >= 500:
            wait = retry_after(headers.get("retry-after"))
            return CallFailure(f"http_{status}", detail, "retry", crowded=status in _CROWDED, after=wait)
        return CallFailure(f"http_{status}", detail, "doubt")

    def _run_stops(self, status: int, error: ServerError, detail: str) -> str | None:
        """The one sentence, where no other call can fare better."""
        if status == 402 or error.spent:
            return f"the quota at {self.base_url} is spent ({detail}): top it up, then run the same again."
        if status in (401, 403, 407):
            return (
                f"{self.base_url} refused the key in {self.key_variable} ({detail}){self.url.proxy}: "
                f"export one that may use {self.model}."
            )
        if status in _NO_PAGE or error.unknown_model:
            return (
                f"{self.base_url} has no model {self.model!r} ({detail}){self.url.proxy}: give a name that "
                f"{self.url.root}/models lists, or the base URL up to and including /v1."
            )
        return None

    def _clean(self, text: str) -> str:
        """One line of bounded length without the key, which some servers repeat."""
        key = os.environ.get(self.key_variable, "").strip()
        text = text.replace(key, "***") if len(key) >= _SHORTEST_KEY else text
        line = " ".join(text.split()).rstrip(".:")
        return line if len(line) <= _DETAIL else f"{line[:_DETAIL]}…"


def _check_installed() -> None:
    try:
        import openai  # noqa: F401
    except ImportError as error:
        raise ChatError("a model behind a URL needs the package openai: pip install 'esckit[remote]'.") from error


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
