"""How often replies have which psychological error, by who said them: DecoupledESC, figures 2 and 7."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from esckit.conversation import PSYCHOLOGICAL_ERRORS, Conversation, Turn, Verdict
from esckit.errors import EsckitError
from esckit.measures.intervals import DRAWS, Draws, FloatArray, IntArray, Interval, basic_interval, resample_totals
from esckit.measures.results import Result

__all__ = ["OUTCOMES", "ErrorShares", "OutcomeShare", "error_shares"]

_RUBRIC: Final = "psychological-errors/"
OUTCOMES: Final = ("none", *PSYCHOLOGICAL_ERRORS)
_COLUMNS: Final = (*OUTCOMES, "not done")  # verdicts that are unparsed or refused: in no share


@dataclass(frozen=True, kw_only=True)
class OutcomeShare(Result):
    """How many replies have an outcome, an error type or ``none``: their share of n, 0..1, with its 95% interval."""

    count: int
    share: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class ErrorShares(Result):
    """What one judge found in one source's replies."""

    source: str
    judge: str
    n: int  # replies with a done verdict
    dialogues: int  # of these
    not_done: int  # verdicts in no share
    shares: dict[str, OutcomeShare]  # every outcome; nothing where n is 0


def error_shares(conversations: Iterable[Conversation], draws: Draws = DRAWS) -> list[ErrorShares]:
    """Count the verdicts on psychological errors by source of the reply and judge.

    Args:
        conversations: trees with verdicts (``esckit annotate``).
        draws: of the bootstrap, over dialogues.

    Raises:
        EsckitError: there is no verdict on psychological errors.
    """
    counts: dict[tuple[str, str], dict[str, list[int]]] = {}
    for conversation in conversations:
        for turn, verdict in _verdicts(conversation):
            own = counts.setdefault((turn.source, verdict.judge), {})
            row = own.setdefault(conversation.id, [0] * len(_COLUMNS))
            row[_COLUMNS.index((verdict.error or "none") if verdict.state == "done" else "not done")] += 1
    if not counts:
        raise EsckitError("there is no verdict on psychological errors in these trees: annotate them first.")
    return [_shares(source, judge, np.array(list(rows.values())), draws) for (source, judge), rows in counts.items()]


def _verdicts(conversation: Conversation) -> Iterable[tuple[Turn, Verdict]]:
    return (
        (turn, verdict)
        for turn in conversation.turns
        for verdict in turn.verdicts
        if verdict.rubric.startswith(_RUBRIC)
    )


def _shares(source: str, judge: str, by_dialogue: IntArray, draws: Draws) -> ErrorShares:
    """From counts (D, outcomes and not done)."""
    done = by_dialogue[:, :-1]
    counts = done.sum(0)
    n = int(counts.sum())
    shares = {}
    if n:
        replicates = _fractions(resample_totals(done, draws.resamples, draws.seed))  # (R, outcomes)
        for outcome, count, drawn in zip(OUTCOMES, counts, replicates.T, strict=True):
            share = int(count) / n
            interval = basic_interval(share, drawn, high=1)
            shares[outcome] = OutcomeShare(count=int(count), share=share, interval=interval)
    return ErrorShares(
        source=source,
        judge=judge,
        n=n,
        dialogues=int((done.sum(1) > 0).sum()),
        not_done=int(by_dialogue[:, -1].sum()),
        shares=shares,
    )


def _fractions(totals: FloatArray) -> FloatArray:
    sums = totals.sum(1, keepdims=True)
    fractions: FloatArray = np.divide(totals, sums, out=np.zeros_like(totals, dtype=np.float64), where=sums > 0)
    return fractions
