"""What a person who writes Python gives as "what was said": words, a list of them, chat messages, or a tree."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from esckit.conversation import Conversation, Speaker, Turn
from esckit.errors import TalkError
from esckit.measures.scripts import MOST, share_of

__all__ = ["Place", "Said", "place_of"]

Said = str | Sequence[str | Mapping[str, Any]] | Conversation
"""One message of the seeker; messages in turn, the last one the seeker's; dicts of ``role`` and ``content``; a tree."""

_SPEAKERS: Final[Mapping[str, Speaker]] = {
    "user": "seeker",
    "seeker": "seeker",
    "assistant": "supporter",
    "supporter": "supporter",
}


class Place(NamedTuple):
    """Where a reply is wanted: a tree, and the turn that is answered (None opens the dialogue)."""

    conversation: Conversation
    parent: str | None


def place_of(said: Said, taxonomy: str | None = None) -> Place:
    """Read what was said as a tree, Chinese where most of its letters are.

    Args:
        said: of a tree, the end of the trunk is answered.
        taxonomy: of the strategies that the tree may hold.

    Raises:
        TalkError: a message has another role, or no words.
    """
    if isinstance(said, Conversation):
        return Place(said, said.trunk[-1].id if said.trunk else None)
    messages = [said] if isinstance(said, str) else list(said)
    turns: list[Turn] = []
    for number, message in enumerate(messages):
        from_end = len(messages) - 1 - number
        speaker, text = _message(message, "supporter" if from_end % 2 else "seeker")
        turns.append(Turn(str(number + 1), str(number) if number else None, speaker, text))
    chinese = share_of("Chinese", [turn.text or "" for turn in turns]) > MOST
    tree = Conversation("said", turns, "zh" if chinese else "en", taxonomy)
    return Place(tree, turns[-1].id if turns else None)


def _message(message: str | Mapping[str, Any], speaker: Speaker) -> tuple[Speaker, str]:
    if not isinstance(message, str):
        role, text = str(message.get("role", message.get("speaker"))), message.get("content", message.get("text"))
        if role not in _SPEAKERS:
            raise TalkError(f"a message has the role {role[:40]!r}: give it user and assistant messages alone.")
        speaker, message = _SPEAKERS[role], str(text or "")
    if not message.strip():
        raise TalkError("a message has no words: give what was said.")
    return speaker, message
