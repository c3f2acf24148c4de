"""What annotators of psychological errors have in common, and from turns of a tree to cases."""

from collections.abc import Generator, Sequence
from typing import Final, Protocol

from esckit.conversation import Conversation, Turn, Verdict
from esckit.judging.evidence import Case

__all__ = ["RUBRIC", "Annotator", "case_of", "open_turns"]

RUBRIC: Final = "psychological-errors/1"
"""Name of the rubric in verdicts: one error type of DecoupledESC, appendix A.2, or none."""


class Annotator(Protocol):
    """Finds at most one psychological error in a reply."""

    judge: str
    """Its name in verdicts; changes with anything that its verdicts depend on."""

    def verdicts(self, groups: Sequence[Sequence[Case]]) -> Generator[list[Verdict | None], None, None]:
        """Judge groups of replies (a dialogue's each) in order; None where a reply could not be judged this time.

        Close it where not all of it is taken.

        Raises:
            EsckitError: the annotator cannot go on; what it has yielded stands.
        """


def case_of(conversation: Conversation, turn: Turn) -> Case:
    """A supporter turn with a text, after everything that stands before it on its path."""
    return Case(tuple(conversation.path(turn.parent)), turn.strategy, turn.text or "")


def open_turns(conversation: Conversation, judge: str) -> list[Turn]:
    """The supporter turns with a text that this judge has given no verdict under `RUBRIC`."""
    return [
        turn
        for turn in conversation.turns
        if turn.speaker == "supporter"
        and (turn.text or "").strip()
        and not any(verdict.judge == judge and verdict.rubric == RUBRIC for verdict in turn.verdicts)
    ]
