"""An OpenAI-compatible chat server for tests and benchmarks, with faults on order.

    python tests/server.py [--delay SECONDS] [--faults]      # prints its base URL; ends when its standard input closes

Every reply and every fault is decided by hashing what is asked, so two servers with the same settings behave alike.
Faults of a reply (fenced, broken, wrong JSON, a refusal) belong to a question and are the same each time; faults of a
call (429, 500, a hang, a cut connection, a broken body) depend on how often the question was asked before.
"""

import argparse
import asyncio
import hashlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from types import TracebackType
from typing import Any, Final, Literal, Self

MODEL: Final = "test-model"
KEY: Final = "sk-test-2b6f0c6f1d"

CallFault = Literal["429_seconds", "429_date", "503", "500", "hang", "cut", "body"]
ReplyFault = Literal["fenced", "wrapped", "broken", "broken_twice", "wrong", "wrong_twice", "refusal", "filtered"]
CALL_FAULTS: Final[tuple[CallFault, ...]] = ("429_seconds", "429_date", "503", "500", "hang", "cut", "body")
REPLY_FAULTS: Final[tuple[ReplyFault, ...]] = (
    *("fenced", "wrapped", "broken", "broken_twice"),
    *("wrong", "wrong_twice", "refusal", "filtered"),
)
FAULTS_IN_A_ROW: Final = 3  # fewer than a client's attempts, so that each question is answered in the end


@dataclass(frozen=True)
class Behaviour:
    """What a server does.

    Attributes:
        delay: seconds before each reply.
        call_faults, reply_faults: the part of calls, and of questions, that have one.
        hang: seconds that a hanging call is held.
        retry_after: seconds that a 429 asks to wait.
        usage: whether replies count tokens.
        always: an HTTP status and error object with which every call is answered.
        answers: fixed replies by the text of the last message.
    """

    delay: float = 0.0
    call_faults: float = 0.0
    reply_faults: float = 0.0
    hang: float = 5.0
    retry_after: float = 0.02
    usage: bool = True
    always: tuple[int, Mapping[str, Any] | str] | None = None
    answers: Mapping[str, str] = field(default_factory=dict)


FAULTY: Final = Behaviour(delay=0.002, call_faults=0.12, reply_faults=0.08)
"""Faults on a fifth of all calls."""


def draw(*parts: object) -> float:
    """A number in [0, 1) by hash."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def call_fault(behaviour: Behaviour, question: str, before: int) -> CallFault | None:
    """What goes wrong with a call for a question that was asked ``before`` times."""
    if before >= FAULTS_IN_A_ROW or draw("call", question, before) >= behaviour.call_faults:
        return None
    return CALL_FAULTS[int(draw("which call", question, before) * len(CALL_FAULTS))]


def reply_fault(behaviour: Behaviour, question: str) -> ReplyFault | None:
    """What is wrong with the reply to a question."""
    if draw("reply", question) >= behaviour.reply_faults:
        return None
    return REPLY_FAULTS[int(draw("which reply", question) * len(REPLY_FAULTS))]


def good_answer(question: str) -> str:
    """The JSON object of a reply without faults."""
    return json.dumps({"score": 1 + int(draw("score", question) * 5), "reason": f"because of {question[:20]!r}"})


def fitting_answer(question: str, schema: Mapping[str, Any]) -> str:
    """The JSON object of a reply without faults, by the schema that is asked for."""
    fields: Mapping[str, Any] = schema["properties"]
    if "reason" in fields:
        return good_answer(question)
    return json.dumps({name: _value(question, name, field) for name, field in fields.items()})


def _value(question: str, name: str, field: Mapping[str, Any]) -> Any:
    allowed = field.get("enum")
    return allowed[int(draw(name, question) * len(allowed))] if allowed else f"because of {question[-20:]!r}"


class ChatServer:
    """A server on a thread of its own; use it in a ``with`` block.

    Attributes:
        calls: complete requests that it has read.
        asked: how often each question was asked, by its messages.
        faults: what it did, by fault.
        most_at_once: the largest number of requests being answered at one time.
        bodies: of the requests, as they came.
        headers: of the last request.
        targets: path and query of each request that is no listing.
        path: of chat completions.
    """

    def __init__(self, behaviour: Behaviour | None = None, port: int = 0) -> None:
        self.behaviour = behaviour or Behaviour()
        self.port = port
        self.calls = 0
        self.asked: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.most_at_once = 0
        self.bodies: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.targets: list[str] = []
        self.path = "/v1/chat/completions"
        self._at_once = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        """The base URL, up to and including /v1."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._exchange(reader, writer):
                pass
        self._connections.discard(task)
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read one request and answer it; return whether the connection goes on."""
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(self.headers.get("content-length", 0)))
        method, path, _ = first.split()
        if (method, path) == ("GET", "/v1/models"):
            return await _respond(writer, 200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        self.targets.append(path)
        if (method, path.partition("?")[0]) != ("POST", self.path):
            return await _respond(writer, 404, _error(f"no such page: {path}", "not_found"))
        self.calls += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._chat(writer, self.headers.get("authorization", ""), json.loads(body))
        finally:
            self._at_once -= 1

    async def _chat(self, writer: asyncio.StreamWriter, authorization: str, body: dict[str, Any]) -> bool:
        question = json.dumps(body["messages"])
        before = self.asked[question]
        self.asked[question] += 1
        self.bodies.append(body)
        await asyncio.sleep(self.behaviour.delay)
        if self.behaviour.always is not None:
            return await _respond(writer, self.behaviour.always[0], {"error": self.behaviour.always[1]})
        if authorization != f"Bearer {KEY}":
            # As hosted services do, it repeats what it was given.
            return await _respond(writer, 401, _error(f"incorrect key: {authorization}", "invalid_api_key"))
        if body["model"] != MODEL:
            return await _respond(writer, 404, _error(f"no model {body['model']}", "model_not_found"))
        if fault := call_fault(self.behaviour, question, before):
            self.faults[fault] += 1
            return await self._fail(writer, fault)
        return await _respond(writer, 200, self._completion(body))

    async def _fail(self, writer: asyncio.StreamWriter, fault: CallFault) -> bool:
        match fault:
            case "429_seconds":
                asked = {"Retry-After": str(self.behaviour.retry_after)}
                return await _respond(writer, 429, _error("slow down", "rate_limit_exceeded"), asked)
            case "429_date":
                asked = {"Retry-After": formatdate(time.time() + self.behaviour.retry_after, usegmt=True)}
                return await _respond(writer, 429, _error("slow down", "rate_limit_exceeded"), asked)
            case "503" | "500":
                return await _respond(writer, int(fault), _error("something broke", "server_error"))
            case "hang":
                await asyncio.sleep(self.behaviour.hang)
                return False
            case "cut":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{")
                await writer.drain()
                return False
            case "body":
                return await _respond(writer, 200, {"detail": "this is no completion"})

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        text, refusal, finish = self._reply(body)
        usage = {"prompt_tokens": 20, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 5}}
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [
                {
                    "index": 0,
                    "finish_reason": finish,
                    "message": {"role": "assistant", "content": text, "refusal": refusal},
                }
            ],
            **({"usage": {**usage, "total_tokens": 30}} if self.behaviour.usage else {}),
        }

    def _reply(self, body: dict[str, Any]) -> tuple[str | None, str | None, str]:
        """Text, refusal and finish reason; a question and its repair turn share their fault."""
        question = next(message["content"] for message in body["messages"] if message["role"] == "user")
        if (last := body["messages"][-1]["content"]) in self.behaviour.answers:
            return self.behaviour.answers[last], None, "stop"
        fault = reply_fault(self.behaviour, question)
        repairing = len([message for message in body["messages"] if message["role"] == "user"]) > 1
        if fault is not None:
            self.faults[fault] += 1
        good = f"I hear you: {question}"
        if "response_format" in body:
            good = fitting_answer(question, body["response_format"]["json_schema"]["schema"])
        match fault:
            case "fenced":
                return f"```json\n{good}\n```", None, "stop"
            case "wrapped":
                return f"Here you are. {good} I hope that helps.", None, "stop"
            case "refusal":
                return None, "I cannot judge this.", "stop"
            case "filtered":
                return "", None, "content_filter"
            case "broken" | "broken_twice" if not repairing or fault == "broken_twice":
                return '{"score": 3, "reason": "and then', None, "stop"
            case "wrong" | "wrong_twice" if not repairing or fault == "wrong_twice":
                return '{"score": "three", "reason": 5}', None, "stop"
            case _:
                return good, None, "stop"


def _error(message: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code, "param": None}}


async def _respond(
    writer: asyncio.StreamWriter, status: int, value: Any, headers: Mapping[str, str] | None = None
) -> bool:
    body = json.dumps(value).encode()
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()
    return True


def main(arguments: Sequence[str] | None = None, kind: type[ChatServer] = ChatServer) -> None:
    """Serve until standard input closes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--faults", action="store_true")
    options = parser.parse_args(arguments)
    faults = (FAULTY.call_faults, FAULTY.reply_faults) if options.faults else (0.0, 0.0)
    with kind(Behaviour(options.delay, *faults)) as server:
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
