"""Chat messages, the form in which DecoupledESC trains: written by `conversation.turn_rule`, never read back."""

from typing import Any

from esckit.conversation import Conversation
from esckit.conversation.turn_rule import Message, to_messages
from esckit.errors import CorpusError

__all__ = ["conversation_to_messages"]


def conversation_to_messages(conversation: Conversation, system: str) -> dict[str, Any]:
    """Return ``{"id", "messages": [{"role", "content"}]}``: a system message, then user and assistant in turns.

    The last message is the supporter's last one; what the seeker says after it is left out.

    Args:
        conversation: the tree, of which the trunk is written.
        system: the system message's text.

    Raises:
        CorpusError: no supporter speaks.
    """
    trunk = [turn for turn in conversation.trunk if not turn.planned]
    messages = to_messages(trunk, {turn.id: turn.strategy for turn in trunk if turn.strategy})[:-1]
    if not messages:
        raise CorpusError(f"conversation {conversation.id!r} has no supporter turn to write: take it out.")
    spoken = [Message("system", system), *messages]
    return {
        "id": conversation.extra.get("id", conversation.id),
        "messages": [{"role": message.role, "content": message.content} for message in spoken],
    }
