"""Psychological errors as tables: how often they occur, and how well an annotator finds them."""

from collections.abc import Sequence
from typing import Any

from esckit.measures.error_shares import OUTCOMES, ErrorShares
from esckit.report.figure_tables import Table

__all__ = ["confusion_table", "shares_table", "types_table"]


def shares_table(groups: Sequence[ErrorShares]) -> Table:
    """Show what `error_shares` returns, a column a source and judge."""
    judges = {group.judge for group in groups}
    names = [f"{group.source} ({group.judge})" if len(judges) > 1 else group.source for group in groups]
    lost = [group for group in groups if group.not_done]
    return Table(
        title="Psychological errors: share of replies, per cent (brackets: 95% bootstrap over dialogues)",
        columns=["outcome", *names],
        names=1,
        rows=[
            ["replies", *(f"{group.n:,} of {group.dialogues:,} dialogues" for group in groups)],
            *([outcome.replace("_", " "), *(_share(group, outcome) for group in groups)] for outcome in OUTCOMES),
        ],
        notes=[
            *([f"judge: {next(iter(judges))}"] if len(judges) == 1 else []),
            *(f"{each.source}: {each.not_done:,} verdicts are unparsed or refused and in no share" for each in lost),
        ],
    )


def _share(group: ErrorShares, outcome: str) -> str:
    found = group.shares.get(outcome)
    if found is None:
        return "-"
    low, high = (100 * end for end in found.interval)
    return f"{100 * found.share:.1f} ({low:.1f}, {high:.1f})"


def types_table(figures: dict[str, Any], title: str) -> Table:
    """A row a type of what `error_agreement` returned, with kappa in the notes."""
    low, high = figures["kappa_interval"]
    low_any, high_any = figures["any_error_kappa_interval"]
    return Table(
        title=title,
        columns=["type", "labels", "found", "precision", "recall", "F1"],
        names=1,
        rows=[
            [
                name,
                str(row["labels"]),
                str(row["found"]),
                *(f"{100 * row[key]:.1f}" for key in ("precision", "recall", "f1")),
            ]
            for name, row in figures["types"].items()
        ],
        notes=[
            f"kappa {figures['kappa']:.3f} ({low:.3f}, {high:.3f}), 95% over {figures['dialogues']} dialogues",
            f"kappa of error or none {figures['any_error_kappa']:.3f} ({low_any:.3f}, {high_any:.3f})",
            f"accuracy {100 * figures['accuracy']:.1f}, always the most frequent label "
            f"{100 * figures['most_frequent_share']:.1f}, macro-F1 {100 * figures['macro_f1']:.1f}, n = {figures['n']}",
        ],
    )


def confusion_table(figures: dict[str, Any]) -> Table:
    """Labels in rows, what was found in columns."""
    rows = [[name, *map(str, row.values())] for name, row in figures["confusion"].items()]
    return Table("Confusion (rows: labels; columns: found)", ["", *OUTCOMES], 1, rows, [])
