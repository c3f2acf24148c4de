"""A supporter as a chat model: it plans a strategy for the dialogue that it is shown and words the reply."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from esckit.chat_models.local import request_seed
from esckit.chat_models.protocol import CallFailure, ChatReply, ChatRequest
from esckit.conversation import Conversation, Speaker, Turn
from esckit.errors import ModelError
from esckit.supporters.proposing import Answers, TurnRequest, expect_one

__all__ = ["SupporterChatModel"]

_ROLES: Final[dict[str, Speaker]] = {"user": "seeker", "assistant": "supporter"}


class SupporterChatModel:
    """Answers with the reply's text, without its strategy; the history shows no strategies.

    Strategy and text are drawn as the request's decoding says, by its own seed.

    Args:
        supporter: it has a generator.
    """

    concurrency = 1
    batch_size = 1

    def __init__(self, supporter: Answers) -> None:
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
        parent = conversation.turns[-1].id if conversation.turns else None
        how = request.decoding
        asked = TurnRequest(conversation, parent, request_seed(request), planning=how, wording=how)
        candidate = expect_one(self.supporter.propose([asked])[0], asked)
        return ChatReply(candidate.text or "", "length" if candidate.finish == "length" else "stop")

    async def close(self) -> None:
        """Nothing belongs to the event loop."""


def _dialogue(request: ChatRequest) -> Conversation:
    """The messages as a plain dialogue."""
    if request.schema is not None or any(message.role not in _ROLES for message in request.messages):
        raise ModelError(
            "a supporter takes neither a system message nor a schema: ask it with user and assistant messages alone."
        )
    said = [(_ROLES[message.role], message.content) for message in request.messages if not message.filler]
    turns = [
        Turn(str(place), str(place - 1) if place else None, speaker, text) for place, (speaker, text) in enumerate(said)
    ]
    return Conversation(id="chat", turns=turns)
