"""What judges and annotators found, as tables: scores, differences, pairs, known groups, people, errors."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from esckit.measures.judging_results import EqualLength, Judging, KnownGroups, LongerWins, PairTest, ScoreTest
from esckit.measures.psychological_errors import OUTCOMES, ErrorShares
from esckit.report.figure_tables import Table, interval, lay_out, p_value, percent

_SEEN = {True: "shown", False: "hidden"}
_NONE = "-"
_LONGER: Final = (
    "Longer wins: of the turns where one reply is preferred and one is longer, the share where it is the same one; "
    "the closer to 100, the more the judge may have looked at length alone."
)
_EXTRAPOLATED: Final = (
    "*: one system's replies are longer at every turn, so nothing near equal length bears the estimate out."
)


def scores_table(judging: Judging) -> Table:
    """A row for each system, quality and way of asking; then the known groups' rows."""
    known = judging.known_groups.scores if judging.known_groups else []
    scales = {rubric.name: f"{rubric.lowest} to {rubric.highest}" for rubric in judging.rubrics}
    return lay_out(
        f"Scores by {judging.judge} (of {judging.turns} turns; brackets: 95% bootstrap over dialogues)",
        [*(("", score) for score in judging.scores), *(("known: ", score) for score in known)],
        {
            "replies": lambda row: row[0] + row[1].system,
            "quality": lambda row: row[1].rubric,
            "scale": lambda row: scales[row[1].rubric],
            "reference": lambda row: _SEEN[row[1].reference],
            "score": lambda row: f"{_fixed(row[1].mean)} {interval(row[1].interval)}".strip(),
            "scored": lambda row: str(row[1].n),
            "unparsed": lambda row: str(row[1].states.unparsed),
            "refused": lambda row: str(row[1].states.refused),
            "failed": lambda row: str(row[1].states.failed),
            "length": lambda row: f"{row[1].length:.0f}",
        },
        names=4,
        notes=judging.warnings,
    )


def problems_table(judging: Judging) -> Table:
    """A row for each system and yes/no question; then the known groups' rows."""
    known = judging.known_groups.problems if judging.known_groups else []
    return lay_out(
        "Problems (share of replies in which the judge showed one by quoting it, per cent; brackets: 95% bootstrap)",
        [*(("", row) for row in judging.problems), *(("known: ", row) for row in known)],
        {
            "replies": lambda row: row[0] + row[1].system,
            "problem": lambda row: row[1].rubric.replace("_", " "),
            "reference": lambda row: _SEEN[row[1].reference],
            "share": lambda row: f"{percent(row[1].mean)} {interval(row[1].interval, 100, 1)}".strip(),
            "answered": lambda row: str(row[1].n),
            "unparsed": lambda row: str(row[1].states.unparsed),
            "refused": lambda row: str(row[1].states.refused),
            "failed": lambda row: str(row[1].states.failed),
        },
        names=3,
    )


def differences_table(tests: Sequence[ScoreTest]) -> Table:
    """A row for each pair of systems, quality and way of asking."""
    return lay_out(
        f"Differences (a - b; paired test over dialogues; Holm over the {len(tests)} tests)",
        tests,
        {
            "a": lambda test: test.a,
            "b": lambda test: test.b,
            "quality": lambda test: test.rubric,
            "reference": lambda test: _SEEN[test.reference],
            "turns": lambda test: str(test.turns),
            "difference": lambda test: f"{test.difference:+.2f} {interval(test.interval)}",
            "p": lambda test: p_value(test.p),
            "p Holm": lambda test: p_value(test.p_holm),
            "at equal length": lambda test: _equal_length(test.equal_length, signed=True),
            "longer wins": lambda test: _longer(test.longer_wins),
        },
        names=4,
        notes=_length_notes(tests),
    )


def pairs_table(pairs: Sequence[PairTest]) -> Table:
    """A row for each pair of systems that was compared in both orders."""
    return lay_out(
        "Pairs (a against b, asked in both orders; a preference that the order turns round is a tie; per cent)",
        pairs,
        {
            "a": lambda pair: pair.a,
            "b": lambda pair: pair.b,
            "turns": lambda pair: str(pair.turns),
            "wins": lambda pair: str(pair.wins),
            "ties": lambda pair: str(pair.ties),
            "losses": lambda pair: str(pair.losses),
            "win rate": lambda pair: f"{percent(pair.win_rate, 0)} {interval(pair.interval, 100, 0)}".strip(),
            "p Holm": lambda pair: p_value(pair.p_holm),
            "at equal length": lambda pair: _equal_length(pair.equal_length, signed=False),
            "longer wins": lambda pair: _longer(pair.longer_wins),
            "flips": lambda pair: percent(pair.flip_rate, 0),
            "wavered": lambda pair: percent(pair.wavered, 0),
            "first wins": lambda pair: percent(pair.first_share, 0),
            "left out": lambda pair: str(pair.left_out),
        },
        names=2,
        notes=_length_notes(pairs),
    )


def groups_table(groups: KnownGroups) -> Table:
    """A row for each order that known groups had to come out in; the note says whether all did."""
    return lay_out(
        "Known groups (difference of mean scores; in order where its whole 95% interval lies above 0)",
        groups.orders,
        {
            "quality": lambda row: row.rubric,
            "above": lambda row: row.above,
            "below": lambda row: row.below,
            "difference": lambda row: (
                _NONE if row.difference is None else f"{row.difference:+.2f} {interval(row.interval)}"
            ),
            "found": lambda row: row.found,
        },
        names=3,
        notes=[f"The known groups {'came' if groups.in_order else 'did not come'} out in order."],
    )


def people_table(agreements: Sequence[tuple[str, bool, Mapping[str, Any]]]) -> Table:
    """A row for each quality, way of asking and rater: the judge against people (`ratings.against_people`)."""
    rows = []
    for quality, reference, found in agreements:
        head = [quality, _SEEN[reference]]
        whole = [_coefficient(found["pearson"]), _coefficient(found["spearman"])]
        rows.append([*head, "mean of all", str(found["items"]), *whole, _NONE, _NONE])
        for cohen in found["cohen"]:
            kappas = [_coefficient(cohen[key]) for key in ("plain", "quadratic")]
            rows.append([*head, cohen["rater"], str(cohen["items"]), _NONE, _NONE, *kappas])
    return Table(
        title="The judge against people (brackets: 95% bootstrap over dialogues)",
        columns=["quality", "reference", "people", "items", "Pearson", "Spearman", "kappa", "quadratic kappa"],
        names=3,
        rows=rows,
        notes=[],
    )


def wins_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each quality and two systems: which one people prefer (`ratings.people_wins`)."""
    return lay_out(
        "People's preferences (a against b by each person's own two ratings; equal ones are ties; per cent)",
        rows,
        {
            "quality": lambda row: row["quality"],
            "a": lambda row: row["a"],
            "b": lambda row: row["b"],
            "turns": lambda row: str(row["turns"]),
            "verdicts": lambda row: str(row["verdicts"]),
            "wins": lambda row: percent(row["wins"] / row["verdicts"], 0),
            "ties": lambda row: percent(row["ties"] / row["verdicts"], 0),
            "losses": lambda row: percent(row["losses"] / row["verdicts"], 0),
            "win rate": lambda row: f"{percent(row['win_rate'], 0)} {interval(row['interval'], 100, 0)}",
            "p Holm": lambda row: p_value(row["p_holm"]),
            "Fleiss": lambda row: _coefficient(row["fleiss"]),
        },
        names=3,
    )


def _length_notes(rows: Sequence[ScoreTest] | Sequence[PairTest]) -> list[str]:
    extrapolated = any(row.equal_length and row.equal_length.extrapolated for row in rows)
    return [_LONGER, *([_EXTRAPOLATED] if extrapolated else [])]


def _equal_length(found: EqualLength | None, *, signed: bool) -> str:
    if found is None:
        return _NONE
    mark = "*" if found.extrapolated else ""
    shown = f"{found.value:+.2f}" if signed else percent(found.value, 0)
    return f"{shown}{mark} {interval(found.interval) if signed else interval(found.interval, 100, 0)}"


def _longer(found: LongerWins | None) -> str:
    return _NONE if found is None or found.n == 0 else f"{percent(found.share, 0)} (n {found.n})"


def _coefficient(found: Mapping[str, Any] | None) -> str:
    return _NONE if found is None else f"{found['value']:.2f} {interval(found['interval'])}"


def _fixed(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}"


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
