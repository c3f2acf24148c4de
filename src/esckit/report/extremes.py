"""The turns at which a supporter came closest to gold and fell furthest from it, picked by a rule and by nobody."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from esckit.conversation import Turn
from esckit.measures import Prediction
from esckit.measures.text import f_measure, overlap
from esckit.report.run import System
from esckit.report.samples import ShownReply, make_reply

__all__ = ["CONTEXT", "EXTREMES", "ExtremeTurn", "Extremes", "extreme_turns"]

EXTREMES: Final = 3
"""Turns shown of each kind."""

CONTEXT: Final = 2
"""Turns shown before each."""


class ExtremeTurn(NamedTuple):
    """A turn with what the rule says of the supporter's reply."""

    dialogue: str
    language: str
    number: int  # of the turn, from 1
    before: list[Turn]
    turn: Turn
    reply: ShownReply
    gold_probability: float  # given to gold's strategy, 0..1; without probabilities 1 where it was chosen, else 0
    f1: float  # of the texts' unigrams, 0..1

    @property
    def score(self) -> float:
        """The rule: the mean of both, 0..1."""
        return (self.gold_probability + self.f1) / 2


class Extremes(NamedTuple):
    """A supporter's turns, worst first and best first."""

    system: System
    worst: list[ExtremeTurn]
    best: list[ExtremeTurn]


def extreme_turns(systems: Sequence[System]) -> list[Extremes]:
    """Pick each supporter's worst and best turns; equal ones in the corpus's order, no turn twice."""
    measured = [system for system in systems if system.figures and system.figures.strategy and system.figures.text]
    return [_of_system(system) for system in measured]


def _of_system(system: System) -> Extremes:
    rows = system.predictions
    tokenize = system.tokenizer.tokenize
    texts = [(row.gold_text, row.predicted_text or "") for row in rows]
    shared = overlap(*([tokenize(text) for text in side] for side in zip(*texts, strict=True)))
    f1 = f_measure(shared.matches[:, 0], shared.predicted, shared.gold).each  # (N,)
    turns = [_extreme_turn(system, row, float(each)) for row, each in zip(rows, f1, strict=True)]
    number = min(EXTREMES, len(turns) // 2)
    worst = sorted(turns, key=lambda turn: turn.score)
    best = sorted(turns, key=lambda turn: -turn.score)
    return Extremes(system, worst[:number], best[:number])


def _extreme_turn(system: System, row: Prediction, f1: float) -> ExtremeTurn:
    conversation = system.dialogue(row)
    path = conversation.path(str(row.turn_id))
    reply = make_reply(system, row)
    gold = system.taxonomy.match(row.gold_strategy)
    given = [p for label, p in (row.strategy_probabilities or {}).items() if system.taxonomy.match(label) == gold]
    return ExtremeTurn(
        dialogue=conversation.id,
        language=conversation.language,
        number=len(path),
        before=path[-1 - CONTEXT : -1],
        turn=path[-1],
        reply=reply,
        gold_probability=sum(given) if row.strategy_probabilities else float(reply.same),
        f1=f1,
    )
