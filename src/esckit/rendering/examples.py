"""What is trained on and asked, as token ids, and which turns of a tree that is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from esckit.conversation import Conversation, Turn

PastStrategies = Literal["gold", "predicted", "hidden"]


@dataclass(frozen=True, slots=True)
class Example:
    """One training or scoring target of a turn: ``context`` and ``given`` are read, ``scored`` is predicted.

    dropped: how many of the oldest exchanges the context lost to `max_context`.
    weights: of the scored tokens in the loss of SFT; none is 1 each.
    pairs: what experts each token is read under (`Gates`); none is 0 each.
    """

    turn_id: str
    context: tuple[int, ...]
    given: tuple[int, ...]
    scored: tuple[int, ...]
    dropped: int = 0
    weights: tuple[float, ...] = ()
    pairs: tuple[int, ...] = ()


class PairExample(NamedTuple):
    """The two sides of a preference, on the same context."""

    chosen: Example
    rejected: Example


def supporter_turns(conversation: Conversation) -> list[Turn]:
    """The trunk's supporter turns with a strategy and a text: what is trained on and predicted."""
    return [turn for turn in conversation.trunk if turn.speaker == "supporter" and turn.strategy and not turn.planned]


def kept_turns(conversation: Conversation) -> list[Turn]:
    """The labelled supporter turns that a tree search kept, on any of its paths, in the tree's order."""
    return [turn for turn in conversation.turns if turn.scores.get("kept") and turn.strategy and not turn.planned]


def past_strategies(
    conversation: Conversation, mode: PastStrategies, predicted: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Which strategy the history shows at which turn id: the gold ones, the model's own (``predicted``), or none."""
    if mode == "hidden":
        return {}
    if mode == "predicted":
        return dict(predicted or {})
    return {turn.id: turn.strategy for turn in conversation.turns if turn.strategy and not turn.planned}
