"""What a server can do, found out by five cheap calls: its list of models, words, JSON, log-probabilities, two replies.

A setting that it refuses costs a call more, as it would in a run.
"""

import json
import time
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel

from esckit.chat_models.json_replies import ReplyError, parse_reply
from esckit.chat_models.protocol import CallFailure, ChatReply, ChatRequest
from esckit.chat_models.remote import RemoteChatModel
from esckit.conversation.thoughts import split_thought
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.errors import ChatError

__all__ = ["Probed", "probe"]

_LONGEST: Final = 400  # tokens of a reply: room for a short thought
_THOUGHTS: Final = ("reasoning_content", "reasoning", "thinking")
_SYSTEM: Final = Message("system", "Answer in one short sentence.")


class _Reply(BaseModel):
    explanation: str
    score: Literal[1, 2, 3, 4, 5]  # an enum of integers, as judges have


_WORDS: Final = ChatRequest((_SYSTEM, Message("user", "What is a lighthouse for?")), Decoding(max_new_tokens=_LONGEST))
_JSON: Final = ChatRequest(
    (_SYSTEM, Message("user", 'How warm is soup? Answer as JSON: {"explanation": "...", "score": 1 to 5}.')),
    Decoding(greedy=True, max_new_tokens=_LONGEST),
    _Reply,
)


class Probed(NamedTuple):
    """What was found.

    Attributes:
        facts: by what was looked at, a phrase, in the order of the questions.
        calls: how many chat completions were asked for.
        reply_tokens: of the reply in words, its thought included; None where the server does not count.
    """

    facts: dict[str, str]
    calls: int
    reply_tokens: int | None


async def probe(model: RemoteChatModel) -> Probed:
    """Ask a server what it can do.

    Raises:
        ChatError: it cannot be asked at all; one sentence says what to mend.
    """
    try:
        return await _Probe(model).run()
    finally:
        await model.close()


class _Probe:
    def __init__(self, model: RemoteChatModel) -> None:
        self.model = model
        self.calls = 0

    async def run(self) -> Probed:
        facts = {"models": _listed(await self.model.models(), self.model.model)}
        started = time.monotonic()
        words, body = await self._ask(_WORDS)
        seconds = time.monotonic() - started
        if isinstance(words, CallFailure):
            raise words.stop or ChatError(
                f"{self.model.base_url} does not answer ({words.detail}): mend the model's name or the settings "
                "(--leave-out, --extra-body), or try again later."
            )
        facts["chat"] = f"answers in {seconds:.1f} s: {_shown(words)}"
        facts["thoughts"] = _thoughts(words.text, body)
        facts |= self._settings(words)
        facts["JSON"] = self._json((await self._ask(_JSON))[0])
        facts["log-probabilities"] = await self._more({"logprobs": True, "top_logprobs": 2}, _has_logprobs)
        facts["two replies a call"] = await self._more({"n": 2}, lambda body: len(body["choices"]) == 2)
        usage = words.usage
        facts["tokens"] = f"{usage.prompt} in, {usage.completion} out of that call" if usage else "not counted"
        return Probed(facts, self.calls, usage.completion if usage else None)

    async def _ask(self, request: ChatRequest) -> tuple[ChatReply | CallFailure, bytes]:
        """Ask in the forms that the server takes."""
        while True:
            self.calls += 1
            answer, body = await self.model.exchange(self.model.say(request))
            if not isinstance(answer, CallFailure) or answer.then != "again":
                return answer, body

    async def _more(self, fields: dict[str, Any], there: Any) -> str:
        """Whether the server takes a field that esckit does not need."""
        self.calls += 1
        said = self.model.say(_WORDS)
        answer, body = await self.model.exchange(said._replace(body={**said.body, **fields}))
        if isinstance(answer, CallFailure):
            return f"no ({answer.detail})"
        try:
            return "yes" if there(json.loads(body)) else "no (passed over)"
        except (ValueError, LookupError, TypeError):
            return "no (passed over)"

    def _settings(self, words: ChatReply) -> dict[str, str]:
        body, without = self.model.say(_WORDS).body, set(words.left_out)
        limit = next((name for name in ("max_tokens", "max_completion_tokens") if name in body), None)
        facts = {"limit": f"as {limit}" if limit else "left out"}
        facts["system text"] = "begins the first user message" if "system" in without else "taken"
        return facts | {name: "left out" if name in without else "taken" for name in ("temperature", "top_p")}

    def _json(self, answer: ChatReply | CallFailure) -> str:
        body = self.model.say(_JSON).body
        how = body.get("response_format", {}).get("type", "by the prompt alone")
        if isinstance(answer, CallFailure):
            return f"no ({answer.detail})"
        try:
            parse_reply(answer.text, _Reply)
        except ReplyError as error:
            return f"{how}, and the reply does not fit: {error}"
        return f"{how}, and the reply fits"


def _listed(names: list[str] | None, model: str) -> str:
    if names is None:
        return "not listed"
    return f"{len(names)} listed, {model} {'among them' if model in names else 'not among them'}"


def _shown(reply: ChatReply) -> str:
    _, said = split_thought(reply.text)
    if not (said or "").strip():
        return (
            f"no words within {_LONGEST} tokens (raise --max-new-tokens in a run)"
            if reply.finish == "length"
            else "blank"
        )
    line = " ".join((said or "").split())
    return repr(line if len(line) <= 60 else f"{line[:60]}…")


def _thoughts(text: str, body: bytes) -> str:
    thought, _ = split_thought(text)
    if thought:
        return "in the reply, taken off"
    try:
        message = json.loads(body)["choices"][0]["message"]
    except (ValueError, LookupError, TypeError):
        return "none seen"
    apart = next((name for name in _THOUGHTS if message.get(name)), None)
    parts = isinstance(message.get("content"), list) and any("think" in str(part) for part in message["content"])
    return f"apart, as {apart}" if apart else "apart, as parts" if parts else "none seen"


def _has_logprobs(body: Any) -> bool:
    return bool(body["choices"][0]["logprobs"]["content"])
