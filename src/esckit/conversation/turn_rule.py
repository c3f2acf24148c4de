"""The turn rule ``decoupled-esc``: how a path of turns becomes chat messages.

Seeker turns in a row are one user message, every supporter turn is one assistant message, a blank user message (one
space) stands between two supporter turns, and a user "Hi" before a supporter who opens. These fillers exist in messages
only, never in the tree.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from esckit.conversation.records import Turn
from esckit.conversation.tree import Conversation

OPENING_FILLER = "Hi"
BLANK_FILLER = " "


class Message(NamedTuple):
    """One chat message; ``role`` is user or assistant; a filler is a user message that nobody wrote."""

    role: str
    content: str
    filler: bool = False


def reply_text(strategy: str | None, text: str) -> str:
    """``[Strategy] text``, or the text alone where no strategy is shown."""
    return f"[{strategy}] {text.strip()}" if strategy else text.strip()


def to_messages(path: Iterable[Turn], shown: Mapping[str, str]) -> list[Message]:
    """Render a path by the turn rule ``decoupled-esc``; it ends with a user message, so that a reply can follow.

    ``shown`` are the strategies by turn id of the past supporter turns that show theirs.
    """
    messages: list[Message] = []
    pending: list[str] = []
    for turn in path:
        text = (turn.text or "").strip()
        if turn.speaker == "seeker":
            pending.append(text)
        else:
            messages.append(_user_message(pending, first=not messages))
            messages.append(Message("assistant", reply_text(shown.get(turn.id), text)))
            pending = []
    return [*messages, _user_message(pending, first=not messages)]


def dialogue_messages(conversation: Conversation) -> list[Message]:
    """Render the trunk with all its strategies, up to the supporter's last turn: the form in which DecoupledESC trains.

    Empty where no supporter speaks.
    """
    trunk = [turn for turn in conversation.trunk if not turn.planned]
    return to_messages(trunk, {turn.id: turn.strategy for turn in trunk if turn.strategy})[:-1]


def _user_message(pending: list[str], *, first: bool) -> Message:
    if pending:
        return Message("user", "\n".join(pending))
    return Message("user", OPENING_FILLER if first else BLANK_FILLER, filler=True)
