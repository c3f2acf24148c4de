"""What every chat model can do: take a batch of requests, give a reply or a failure for each as they come out.

A model makes one attempt at each request. Trying again, budgets, JSON replies and the record of it all are
`chat_models.asker`'s and `chat_models.ledger`'s, and the same for a model on this machine and one behind a URL.
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.errors import EsckitError

if TYPE_CHECKING:
    from pydantic import BaseModel


OF_JSON: Final = "json"
"""What a model's identity has under this name holds for requests with a schema alone."""


@dataclass(frozen=True)
class ChatRequest:
    """What a chat model is asked."""

    messages: tuple[Message, ...]  # at least one; roles are system, user and assistant
    # how the reply is drawn
    decoding: Decoding = Decoding()  # noqa: RUF009 - it is frozen
    # the reply has to be a JSON object that this pydantic model accepts; None is plain text
    schema: "type[BaseModel] | None" = None
    sample: int = 0  # which of several replies to the same question; requests that differ in it alone are asked apart

    def key(self, step: str, model: Any) -> str:
        """The item's name in a ledger: SHA-256 of all that its answer depends on, in hexadecimal.

        ``step`` is name and version of what asks: change it where replies are read in another way.
        """
        if self.schema is None and isinstance(model, dict):
            model = {name: part for name, part in model.items() if name != OF_JSON}
        asked = [step, model, self._chat, self.decoding.record(), self._schema, self.sample]
        return sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    @cached_property
    def prompt_bytes(self) -> int:
        """Bytes of the prompt in UTF-8, schema included: a tokenizer on bytes makes no more tokens of them."""
        return len(json.dumps([self._chat, self._schema], ensure_ascii=False).encode("utf-8", "surrogatepass"))

    @property
    def _chat(self) -> list[list[str]]:
        return [[message.role, message.content] for message in self.messages]

    @property
    def _schema(self) -> Any:
        from esckit.chat_models.json_replies import strict_schema

        return self.schema and strict_schema(self.schema)


class Usage(NamedTuple):
    """Tokens of one call, as the model counts them; ``cached`` are those of the prompt that it did not read again."""

    prompt: int
    completion: int
    cached: int = 0


@dataclass(frozen=True)
class ChatReply:
    """What a chat model said."""

    text: str  # as it came, a thought included; where a chat template had opened the thought, with its mark
    # ``stop`` at its end, ``length`` where it was cut, ``refused`` where the model or a filter declined; the text is
    # then what was given as the reason
    finish: Literal["stop", "length", "refused"]
    usage: Usage | None = None  # None where the model does not say
    left_out: tuple[str, ...] = ()  # settings of the request that the model was not told (`dialect`)


@dataclass(frozen=True)
class CallFailure:
    """A call without a reply."""

    kind: str  # its class, one word ("timeout")
    detail: str  # what was seen, without any key
    # ``again``: send it at once, as it was refused for what is said in another way now; that is no attempt. ``retry``
    # the call, and give up on the item after the last attempt; ``wait`` likewise, but after the last attempt
    # stop the run, because it is no item's fault; ``give_up`` on the item at once, whose own fault it is; ``doubt``:
    # give up on the item where others are answered, stop the run where none is; ``deny`` likewise, but the item is
    # refused, and one is enough to stop a run that has had no reply; ``stop`` the run
    then: Literal["again", "retry", "wait", "give_up", "doubt", "deny", "stop"]
    crowded: bool = False  # the model has too much to do: fewer calls at once
    after: float | None = None  # seconds that it asked to wait
    lost: bool = False  # whether the model may have worked on a reply that never arrived, which a budget has to count
    # what to tell the user in one sentence where the run stops; needed for ``wait``, ``deny`` and ``stop``; a ``retry``
    # that has one stops the run after an item's last attempt where nothing has been answered
    stop: EsckitError | None = None
    # calls that may fail so before the item is given up, one more where others are answered; None is the pace's
    attempts: int | None = None


class ChatModel(Protocol):
    """A model that can be asked: one on this machine (`local`), one behind a URL (`remote`), a supporter."""

    @property
    def identity(self) -> Any:
        """JSON-ready; changes with anything that replies depend on (a hash of weights; a URL and a name)."""

    @property
    def batch_size(self) -> int:
        """The most requests that one `answer` takes."""

    @property
    def concurrency(self) -> int:
        """The most `answer` calls at once."""

    def answer(self, requests: Sequence[ChatRequest]) -> AsyncIterator[tuple[int, ChatReply | CallFailure]]:
        """Try each request once; yield (its place in ``requests``, what came of it) as they come out."""

    async def close(self) -> None:
        """Let go of what belongs to the running event loop; `answer` may be called again under another one."""
