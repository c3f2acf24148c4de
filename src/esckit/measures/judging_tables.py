"""A judging's figures as tables: scores, differences, pairs, known groups, agreement with people."""

from collections.abc import Mapping, Sequence
from typing import Any

from esckit.measures.figure_tables import Table

__all__ = ["differences_table", "groups_table", "pairs_table", "people_table", "scores_table", "wins_table"]

_SEEN = {True: "shown", False: "hidden"}
_NONE = "-"


def scores_table(judging: Mapping[str, Any]) -> Table:
    """A row for each system, quality and way of asking; then the known groups' rows."""
    rows = [*judging["scores"], *((judging["known_groups"] or {}).get("scores", ()))]
    known = len(rows) - len(judging["scores"])
    scales = {rubric["name"]: f"{rubric['lowest']} to {rubric['highest']}" for rubric in judging["rubrics"]}
    return Table(
        title=f"Scores by {judging['judge']} (of {judging['turns']} turns; brackets: 95% bootstrap over dialogues)",
        columns=[
            "replies",
            "quality",
            "scale",
            "reference",
            "score",
            "scored",
            "unparsed",
            "refused",
            "failed",
            "length",
        ],
        names=4,
        rows=[
            [
                ("known: " if place >= len(rows) - known else "") + row["system"],
                row["rubric"],
                scales[row["rubric"]],
                _SEEN[row["reference"]],
                f"{_fixed(row['mean'])} {_interval(row['interval'])}".strip(),
                str(row["n"]),
                *(str(row["states"][state]) for state in ("unparsed", "refused", "failed")),
                f"{row['length']:.0f}",
            ]
            for place, row in enumerate(rows)
        ],
        notes=judging["warnings"],
    )


def differences_table(judging: Mapping[str, Any]) -> Table:
    """A row for each pair of systems, quality and way of asking."""
    tests = judging["differences"]
    return Table(
        title=f"Differences (a - b; paired test over dialogues; Holm over the {len(tests)} tests)",
        columns=[
            "a",
            "b",
            "quality",
            "reference",
            "turns",
            "difference",
            "p",
            "p Holm",
            "at equal length",
            "longer wins",
        ],
        names=4,
        rows=[
            [
                test["a"],
                test["b"],
                test["rubric"],
                _SEEN[test["reference"]],
                str(test["turns"]),
                f"{test['difference']:+.2f} {_interval(test['interval'])}",
                _p(test["p"]),
                _p(test["p_holm"]),
                _equal_length(test["equal_length"], signed=True),
                _longer(test["longer_wins"]),
            ]
            for test in tests
        ],
        notes=_length_notes(tests),
    )


def pairs_table(judging: Mapping[str, Any]) -> Table:
    """A row for each pair of systems that was compared in both orders."""
    pairs = judging["pairs"]
    return Table(
        title="Pairs (a against b, asked in both orders; a preference that the order turns round is a tie; per cent)",
        columns=[
            *("a", "b", "turns", "wins", "ties", "losses", "win rate", "p Holm", "at equal length"),
            *("longer wins", "flips", "wavered", "first wins", "left out"),
        ],
        names=2,
        rows=[
            [
                pair["a"],
                pair["b"],
                *(str(pair[key]) for key in ("turns", "wins", "ties", "losses")),
                f"{_percent(pair['win_rate'])} {_interval(pair['interval'], 100)}".strip(),
                _p(pair["p_holm"]),
                _equal_length(pair["equal_length"], signed=False),
                _longer(pair["longer_wins"]),
                *(_percent(pair[key]) for key in ("flip_rate", "wavered", "first_share")),
                str(pair["left_out"]),
            ]
            for pair in pairs
        ],
        notes=_length_notes(pairs),
    )


def groups_table(judging: Mapping[str, Any]) -> Table:
    """A row for each order that known groups had to come out in; the note says whether all did."""
    groups = judging["known_groups"]
    return Table(
        title="Known groups (difference of mean scores; in order where its whole 95% interval lies above 0)",
        columns=["quality", "above", "below", "difference", "found"],
        names=3,
        rows=[
            [
                row["rubric"],
                row["above"],
                row["below"],
                _NONE if row["difference"] is None else f"{row['difference']:+.2f} {_interval(row['interval'])}",
                row["found"],
            ]
            for row in groups["orders"]
        ],
        notes=[f"The known groups {'came' if groups['in_order'] else 'did not come'} out in order."],
    )


def people_table(agreements: Sequence[tuple[str, bool, Mapping[str, Any]]]) -> Table:
    """A row for each quality, way of asking and rater: the judge against people (`people.against_people`)."""
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
    """A row for each quality and two systems: which one people prefer (`people.people_wins`)."""
    return Table(
        title="People's preferences (a against b by each person's own two ratings; equal ones are ties; per cent)",
        columns=["quality", "a", "b", "turns", "verdicts", "wins", "ties", "losses", "win rate", "p Holm", "Fleiss"],
        names=3,
        rows=[
            [
                row["quality"],
                row["a"],
                row["b"],
                *(str(row[key]) for key in ("turns", "verdicts")),
                *(_percent(row[key] / row["verdicts"]) for key in ("wins", "ties", "losses")),
                f"{_percent(row['win_rate'])} {_interval(row['interval'], 100)}",
                _p(row["p_holm"]),
                _coefficient(row["fleiss"]),
            ]
            for row in rows
        ],
        notes=[],
    )


def _length_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = [
        "Longer wins: of the turns where one reply is preferred and one is longer, the share where it is the same one; "
        "the closer to 100, the more the judge may have looked at length alone."
    ]
    if any((row["equal_length"] or {}).get("extrapolated") for row in rows):
        notes.append(
            "*: one system's replies are longer at every turn, so nothing near equal length bears the estimate out."
        )
    return notes


def _equal_length(found: Mapping[str, Any] | None, *, signed: bool) -> str:
    if found is None:
        return _NONE
    mark = "*" if found["extrapolated"] else ""
    shown = f"{found['value']:+.2f}" if signed else _percent(found["value"])
    return f"{shown}{mark} {_interval(found['interval'], 1 if signed else 100)}"


def _longer(found: Mapping[str, Any] | None) -> str:
    return _NONE if found is None or found["n"] == 0 else f"{_percent(found['share'])} (n {found['n']})"


def _coefficient(found: Mapping[str, Any] | None) -> str:
    return _NONE if found is None else f"{found['value']:.2f} {_interval(found['interval'])}"


def _fixed(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.0f}"


def _interval(bounds: Sequence[float] | None, scale: float = 1) -> str:
    if bounds is None:
        return ""
    digits = 0 if scale == 100 else 2
    return f"({scale * bounds[0]:.{digits}f}, {scale * bounds[1]:.{digits}f})"


def _p(p: float | None) -> str:
    return _NONE if p is None else f"{p:.4f}"
