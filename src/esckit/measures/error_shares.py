"""How often replies have which psychological error, by who said them: DecoupledESC, figures 2 and 7."""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from esckit.conversation import PSYCHOLOGICAL_ERRORS, Conversation, Turn, Verdict
from esckit.errors import EsckitError
from esckit.measures.figure_tables import Table
from esckit.measures.intervals import FloatArray, IntArray, basic_interval, resample_totals

__all__ = ["error_shares", "shares_table"]

_RUBRIC: Final = "psychological-errors/"
_OUTCOMES: Final = ("none", *PSYCHOLOGICAL_ERRORS)
_COLUMNS: Final = (*_OUTCOMES, "not done")  # verdicts that are unparsed or refused: in no share


def error_shares(
    conversations: Iterable[Conversation], *, resamples: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Count the verdicts on psychological errors by source of the reply and judge, JSON-ready.

    Args:
        conversations: trees with verdicts (``esckit annotate``).
        resamples: of the bootstrap, over dialogues.
        seed: of the bootstrap.

    Returns:
        For each source and judge: ``n`` replies with a done verdict, of ``dialogues``; ``not_done`` verdicts, which are
        in no share; ``shares``: for each outcome ``count``, ``share`` of n in 0..1 and its 95% ``interval``. An outcome
        is ``none`` or an error type.

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
    return [
        {"source": source, "judge": judge, **_shares(np.array(list(rows.values())), resamples, seed)}
        for (source, judge), rows in counts.items()
    ]


def _verdicts(conversation: Conversation) -> Iterable[tuple[Turn, Verdict]]:
    return (
        (turn, verdict)
        for turn in conversation.turns
        for verdict in turn.verdicts
        if verdict.rubric.startswith(_RUBRIC)
    )


def _shares(by_dialogue: IntArray, resamples: int, seed: int) -> dict[str, Any]:
    """From counts (D, outcomes and not done)."""
    done = by_dialogue[:, :-1]
    n = int(done.sum())
    found: dict[str, Any] = {
        "n": n,
        "dialogues": int((done.sum(1) > 0).sum()),
        "not_done": int(by_dialogue[:, -1].sum()),
        "shares": {},
    }
    if n:
        replicates = _fractions(resample_totals(done, resamples, seed))  # (R, outcomes)
        for place, outcome in enumerate(_OUTCOMES):
            count = int(done[:, place].sum())
            interval = list(basic_interval(count / n, replicates[:, place], high=1))
            found["shares"][outcome] = {"count": count, "share": count / n, "interval": interval}
    return found


def _fractions(totals: FloatArray) -> FloatArray:
    sums = totals.sum(1, keepdims=True)
    fractions: FloatArray = np.divide(totals, sums, out=np.zeros_like(totals, dtype=np.float64), where=sums > 0)
    return fractions


def shares_table(groups: list[dict[str, Any]]) -> Table:
    """Show what `error_shares` returns, a column a source and judge."""
    judges = {group["judge"] for group in groups}
    return Table(
        title="Psychological errors: share of replies, per cent (brackets: 95% bootstrap over dialogues)",
        columns=["outcome", *(_name(group, len(judges) > 1) for group in groups)],
        names=1,
        rows=[
            ["replies", *(f"{group['n']:,} of {group['dialogues']:,} dialogues" for group in groups)],
            *([outcome.replace("_", " "), *(_cell(group, outcome) for group in groups)] for outcome in _OUTCOMES),
        ],
        notes=[
            *([f"judge: {next(iter(judges))}"] if len(judges) == 1 else []),
            *(
                f"{group['source']}: {group['not_done']:,} verdicts are unparsed or refused and in no share"
                for group in groups
                if group["not_done"]
            ),
        ],
    )


def _name(group: dict[str, Any], judges: bool) -> str:
    return f"{group['source']} ({group['judge']})" if judges else str(group["source"])


def _cell(group: dict[str, Any], outcome: str) -> str:
    found = group["shares"].get(outcome)
    if found is None:
        return "-"
    low, high = (100 * end for end in found["interval"])
    return f"{100 * found['share']:.1f} ({low:.1f}, {high:.1f})"
