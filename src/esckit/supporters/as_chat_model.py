"""A supporter as a chat model: it plans a strategy for the dialogue that it is shown and words the reply."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import numpy as np

from esckit.conversation import Conversation, Speaker, Turn
from esckit.errors import ModelError
from esckit.models.backbone import seed_everything
from esckit.models.chat import CallFailure, ChatReply, ChatRequest
from esckit.models.local_chat import request_seed
from esckit.safety import stop_after
from esckit.supporters.planner import choose_strategy
from esckit.supporters.supporter import Supporter

__all__ = ["SupporterChatModel"]

_ROLES: Final[dict[str, Speaker]] = {"user": "seeker", "assistant": "supporter"}
_ANSWER: Final[tuple[Speaker, str]] = ("supporter", "")


class SupporterChatModel:
    """Answers with the reply's text, without its strategy; the history shows no strategies.

    Strategy and text are drawn as the request's decoding says, by its own seed. Where a user message speaks of danger
    and none after it says to go on, no model answers: the reply is the fixed text of `esckit.safety`.

    Args:
        supporter: it has a generator.
    """

    concurrency = 1
    batch_size = 1

    def __init__(self, supporter: Supporter) -> None:
        self.supporter = supporter

    @property
    def identity(self) -> Any:
        """The supporter's."""
        return self.supporter.identity

    async def answer(self, requests: Sequence[ChatRequest]) -> AsyncIterator[tuple[int, ChatReply | CallFailure]]:
        """See `ChatModel.answer`.

        Raises:
            ModelError: a request has a system message or a schema, which a supporter would pass over.
        """
        for place, request in enumerate(requests):
            yield place, self._reply(request)

    def _reply(self, request: ChatRequest) -> ChatReply:
        conversation = _dialogue(request)
        said = [turn.text or "" for turn in conversation.turns if turn.speaker == "seeker"]
        if stop := stop_after(said):
            return ChatReply(stop.text, "stop")
        turns = conversation.turns[-1:]
        random = np.random.default_rng(seed_everything(request_seed(request)))
        labels = self.supporter.taxonomy.labels
        can = self.supporter.generator.strategies if self.supporter.generator is not None else None
        allowed = np.array([0.0 if can is None or label in can else -np.inf for label in labels])
        scores = self.supporter.score(conversation, turns, {})[0]
        strategy = labels[choose_strategy(scores + allowed, request.decoding, random)]
        reply = self.supporter.reply(conversation, turns, [strategy], {}, request.decoding)[0]
        return ChatReply(reply.text, reply.finish)

    async def close(self) -> None:
        """Nothing belongs to the event loop."""


def _dialogue(request: ChatRequest) -> Conversation:
    """The messages as a plain dialogue, and an empty supporter turn to answer."""
    if request.schema is not None or any(message.role not in _ROLES for message in request.messages):
        raise ModelError(
            "a supporter takes neither a system message nor a schema: ask it with user and assistant messages alone."
        )
    said = [(_ROLES[message.role], message.content) for message in request.messages if not message.filler]
    turns = [
        Turn(str(place), str(place - 1) if place else None, speaker, text)
        for place, (speaker, text) in enumerate([*said, _ANSWER])
    ]
    return Conversation(id="chat", turns=turns)
