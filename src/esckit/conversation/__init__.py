"""The conversation tree: the one structure that corpora read into, miners grow, training and reports read.

A dialogue is a path of turns; every method of the field adds siblings to turns. A plain dialogue is a tree that never
branches. ``records`` holds what a tree is made of, ``tree`` how it is walked, grown and checked, ``disk`` the JSON
Lines, ``turn_rule`` how a path becomes chat messages.
"""

from esckit.conversation.disk import (
    conversation_to_json,
    iterate_conversations,
    parse_conversation,
    read_conversations,
    validate_conversation,
    write_conversations,
)
from esckit.conversation.records import (
    CSO_REASONS,
    DECOUPLED_ESC_REASONS,
    PSYCHOLOGICAL_ERRORS,
    REASONS,
    SELF_REFINEMENT_REASONS,
    Aspect,
    Preference,
    Speaker,
    Turn,
    Verdict,
)
from esckit.conversation.tree import (
    FORMAT,
    Conversation,
    GrowingTree,
    Problem,
    check_conversation,
    conversation_problems,
    mined_id,
)

__all__ = [
    "CSO_REASONS",
    "DECOUPLED_ESC_REASONS",
    "FORMAT",
    "PSYCHOLOGICAL_ERRORS",
    "REASONS",
    "SELF_REFINEMENT_REASONS",
    "Aspect",
    "Conversation",
    "GrowingTree",
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
