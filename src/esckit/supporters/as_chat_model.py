"""A supporter as a chat model that is asked for replies, or for strategies; with any prompt, see `open_model`."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from esckit.chat_models.local import request_seed
from esckit.chat_models.protocol import CallFailure, ChatReply, ChatRequest
from esckit.errors import CorpusError, ModelError
from esckit.safety import stop_after
from esckit.supporters.proposing import Answers, TurnRequest, expect_one
from esckit.supporters.said import place_of

__all__ = ["SupporterChatModel"]


class SupporterChatModel:
    """Answers a dialogue; the history shows no strategies.

    Strategy and text are drawn as the request's decoding says, by its own seed. Where a user message speaks of danger
    and none after it says to go on, no model answers: the reply is the fixed text of `esckit.safety`.

    Args:
        supporter: who answers.
        gives: ``reply``, the text without its strategy, or ``strategy``, the label of the strategy alone.
    """

    concurrency = 1
    batch_size = 1

    def __init__(self, supporter: Answers, gives: Literal["reply", "strategy"] = "reply") -> None:
        self.supporter = supporter
        self.gives = gives

    @property
    def identity(self) -> Any:
        """The supporter's; of its strategies alone, another one."""
        return self.supporter.identity if self.gives == "reply" else [self.supporter.identity, self.gives]

    async def answer(self, requests: Sequence[ChatRequest]) -> AsyncIterator[tuple[int, ChatReply | CallFailure]]:
        """See `ChatModel.answer`.

        Raises:
            ModelError: a request has a system message or a schema, which a supporter would pass over.
        """
        for place, request in enumerate(requests):
            yield place, self._reply(request)

    def _reply(self, request: ChatRequest) -> ChatReply | CallFailure:
        if request.schema is not None or any(message.role == "system" for message in request.messages):
            raise ModelError(
                "a supporter takes neither a system message nor a schema: ask it with user and assistant messages "
                "alone, or ask its language model (docs/asking.md)."
            )
        messages = [{"role": m.role, "content": m.content} for m in request.messages if not m.filler]
        if stop := stop_after([m.content for m in request.messages if m.role == "user" and not m.filler]):
            return ChatReply(stop.text, "stop")
        place, how = place_of(messages), request.decoding
        asked = TurnRequest(place.conversation, place.parent, request_seed(request), planning=how, wording=how)
        asked = replace(asked, wording=None) if self.gives == "strategy" else asked
        try:
            candidate = expect_one(self.supporter.propose([asked])[0], asked)
        except CorpusError as error:
            return CallFailure("too_long", str(error), "give_up")
        said = candidate.strategy if self.gives == "strategy" else candidate.text
        return ChatReply(said or "", "length" if candidate.finish == "length" else "stop")

    async def close(self) -> None:
        """Nothing belongs to the event loop."""
