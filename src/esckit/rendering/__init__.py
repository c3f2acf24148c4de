"""Where trees become tokens; nothing else in esckit knows chat templates."""

from esckit.conversation.turn_rule import Message, to_messages
from esckit.rendering.examples import (
    Example,
    PairExample,
    PastStrategies,
    kept_turns,
    past_strategies,
    supporter_turns,
)
from esckit.rendering.layouts import Layout, OwnLayout, Part
from esckit.rendering.renderer import Renderer
from esckit.rendering.templates import ChatTemplate

__all__ = [
    "ChatTemplate",
    "Example",
    "Layout",
    "Message",
    "OwnLayout",
    "PairExample",
    "Part",
    "PastStrategies",
    "Renderer",
    "kept_turns",
    "past_strategies",
    "supporter_turns",
    "to_messages",
]
