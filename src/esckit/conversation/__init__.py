"""The conversation tree: the one structure that corpora read into, miners grow, training and reports read.

A dialogue is a path of turns; every method of the field adds siblings to turns. A plain dialogue is a tree that never
branches. ``tree`` holds the records and their rules, ``disk`` the JSON Lines.
"""

from esckit.conversation.disk import (
    conversation_to_json,
    iterate_conversations,
    parse_conversation,
    read_conversations,
    validate_conversation,
    write_conversations,
)
from esckit.conversation.tree import (
    FORMAT,
    PSYCHOLOGICAL_ERRORS,
    Aspect,
    Conversation,
    Preference,
    Problem,
    Speaker,
    Turn,
    Verdict,
    check_conversation,
    conversation_problems,
    mined_id,
)

__all__ = [
    "FORMAT",
    "PSYCHOLOGICAL_ERRORS",
    "Aspect",
    "Conversation",
    "Preference",
    "Problem",
    "Speaker",
    "Turn",
    "Verdict",
    "check_conversation",
    "conversation_problems",
    "conversation_to_json",
    "iterate_conversations",
    "mined_id",
    "parse_conversation",
    "read_conversations",
    "validate_conversation",
    "write_conversations",
]
