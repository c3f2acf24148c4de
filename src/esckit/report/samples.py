"""Sample dialogues: what stands in the corpus beside what each supporter said."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from esckit.conversation import Conversation, Turn
from esckit.measures import Prediction
from esckit.report.run import System

__all__ = ["SAMPLES", "Sample", "SampleTurn", "ShownReply", "make_reply", "sample_dialogues"]

SAMPLES: Final = 3
"""Dialogues shown of each predicted split: the first ones in the corpus's order, so that nobody picked them."""


class ShownReply(NamedTuple):
    """What one supporter said at a turn."""

    system: System
    strategy: str | None  # a label, gold's where the supporter was given it; None where the prediction is unparsed
    raw_strategy: str | None  # as predicted
    probability: float | None  # of the strategy, 0..1
    same: bool  # the strategy is gold's
    text: str | None
    cut: bool  # at the length limit


class SampleTurn(NamedTuple):
    """A turn of the dialogue, and the replies given in its place."""

    number: int  # from 1
    turn: Turn
    replies: list[ShownReply]


class Sample(NamedTuple):
    """One dialogue."""

    conversation: Conversation
    split: str
    turns: list[SampleTurn]


def sample_dialogues(systems: Sequence[System]) -> list[Sample]:
    """Return the first dialogues of each predicted split, with every supporter that predicted it."""
    splits = {system.split: [other for other in systems if other.split == system.split] for system in systems}
    return [sample for split, members in splits.items() for sample in _of_split(split, members)]


def _of_split(split: str, systems: Sequence[System]) -> Iterator[Sample]:
    predicted = {conversation for conversation, _ in systems[0].rows}
    wanted = [conversation for conversation in systems[0].conversations if conversation.id in predicted]
    for conversation in wanted[:SAMPLES]:
        turns = [
            SampleTurn(
                number,
                turn,
                [make_reply(each, row) for each in systems if (row := each.rows.get((conversation.id, turn.id)))],
            )
            for number, turn in enumerate(conversation.trunk, 1)
        ]
        yield Sample(conversation, split, turns)


def make_reply(system: System, row: Prediction) -> ShownReply:
    """Say of a prediction what is shown."""
    match = system.taxonomy.match
    given = row.extra.get("strategy_given") == "gold"
    strategy = match(row.gold_strategy if given else row.predicted_strategy)
    probabilities = {match(label): value for label, value in (row.strategy_probabilities or {}).items()}
    return ShownReply(
        system=system,
        strategy=strategy,
        raw_strategy=row.predicted_strategy,
        probability=probabilities.get(strategy) if strategy else None,
        same=not given and strategy is not None and strategy == match(row.gold_strategy),
        text=row.predicted_text,
        cut=row.finish == "length",
    )
