"""Figures as tables: on a terminal, in LaTeX, in Markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from esckit.measures.patterns import PATTERNS
from esckit.measures.results import Comparison, Difference, Evaluation, Figures, PatternFigure, StrategyFigures

Row = TypeVar("Row")

_TEXT_COLUMNS: Final = {
    "BLEU-1": "bleu1_utterance",
    "F1": "f1_utterance",
    "R-L": "rouge_l_utterance",
    "Dist-2": "distinct2_corpus",
    "METEOR": "meteor_utterance",
    "BERTScore": "bertscore_f1_utterance",
    "relevance": "relevance_utterance",
}
_ALWAYS: Final = ("BLEU-1", "F1", "R-L", "Dist-2")
_STRATEGY_COLUMNS: Final = ("Q", "Q_w", "B", "floor", "B debiased")
PATTERN_NAMES: Final = dict(
    zip(PATTERNS, ("sympathy + advice", "repeated opening", "questions in a row", "one strategy"), strict=True)
)
METRIC_NAMES: Final = (
    {"q": "Q", "q_w": "Q_w", "b": "B"} | {key: name for name, key in _TEXT_COLUMNS.items()} | PATTERN_NAMES
)
"""Short names of what is tested; any other metric goes by its key."""
_LATEX: Final = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)


class Table(NamedTuple):
    """Cells as text, with what a reader must know beside them."""

    title: str
    columns: list[str]
    names: int  # how many first columns hold names and not numbers
    rows: list[list[str]]
    notes: list[str]


def lay_out(
    title: str,
    rows: Iterable[Row],
    columns: Mapping[str, Callable[[Row], str]],
    *,
    names: int,
    notes: Sequence[str] = (),
) -> Table:
    """Return a table of records: each column says what it shows of a row."""
    cells = [[show(row) for show in columns.values()] for row in rows]
    return Table(title, [*columns], names, cells, [*notes])


def evaluation_tables(comparison: Comparison, *, phrases: bool = False) -> list[Table]:
    """Return what ``esckit evaluate`` prints: figures, patterns where there are any, tests where several files are.

    ``phrases``: those of each file too.
    """
    patterned = {name: figures for name, figures in comparison.files.items() if figures.patterns}
    return [
        figures_table(comparison.files),
        *([patterns_table(patterned)] if patterned else []),
        *([phrases_table(comparison.files)] if phrases else []),
        *([comparisons_table(comparison)] if len(comparison.files) > 1 else []),
    ]


def figures_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """Return a row for each predictions file, and for each of its groups, of what ``evaluate`` returned."""
    rows: list[tuple[str, Figures]] = []
    for name, figures in evaluations.items():
        rows += [(name, figures), *((f"{name}: {group}", part) for group, part in (figures.groups or {}).items())]
    text_columns = [
        column
        for column, key in _TEXT_COLUMNS.items()
        if column in _ALWAYS or any(getattr(figures.text, key, None) is not None for _, figures in rows)
    ]
    return Table(
        title="Results (per cent; B: 0 is no preference bias; brackets: 95% bootstrap over dialogues)",
        columns=["predictions", "past", "turns", *_STRATEGY_COLUMNS, *text_columns],
        names=2,
        rows=[
            [
                name,
                str(figures.past_strategies or "not said"),
                str(figures.n),
                *_strategy(figures.strategy),
                *(percent(getattr(figures.text, _TEXT_COLUMNS[column], None)) for column in text_columns),
            ]
            for name, figures in rows
        ],
        notes=list(dict.fromkeys(text for figures in evaluations.values() for text in figures.warnings)),
    )


def patterns_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """Return a row for each predictions file that has patterns, and one for the human replies to its turns."""
    sides = [
        (name, side)
        for file, figures in evaluations.items()
        if figures.patterns
        for name, side in ((file, figures.patterns.predicted), (f"{file}: human replies", figures.patterns.gold))
    ]
    return Table(
        "Patterns over a dialogue (share of replies, per cent; run: the longest of a dialogue, in replies, mean; "
        "brackets: 95% bootstrap over dialogues)",
        ["predictions", *(column for name in PATTERN_NAMES.values() for column in (name, "run"))],
        1,
        [[name, *(cell for figure in side.values() for cell in _pattern(figure))] for name, side in sides],
        [],
    )


def phrases_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """Return a row for each frequent phrase of each predictions file, and for those that are overused and not among
    these."""
    rows = [
        [
            name,
            each.phrase,
            f"{each.count:,}",
            percent(each.share),
            percent(each.gold_share),
            f"{each.z:.1f}",
        ]
        for name, figures in evaluations.items()
        if figures.text
        for each in dict.fromkeys([*(figures.text.phrases or []), *(figures.text.overused_phrases or [])])
    ]
    return Table(
        "Phrases (the 20 most frequent, then overused ones; share of replies, and of human replies, per cent; z: log "
        "odds ratio against these, in standard errors)",
        ["predictions", "phrase", "replies", "share", "human", "z"],
        2,
        rows,
        [] if rows else ["No phrase of 3 to 5 tokens stands in three replies."],
    )


def _pattern(figure: PatternFigure | None) -> list[str]:
    if figure is None:
        return ["-", "-"]
    share = f"{percent(figure.share)} {interval(figure.share_interval, 100, 1)}"
    return [share, f"{figure.run:.1f} {interval(figure.run_interval, 1, 1)}"]


def comparisons_table(comparison: Comparison) -> Table:
    """Return a row for each test of what ``compare`` returned."""
    tests = comparison.comparisons
    number = f"{tests[0].permutations:,} permutations" if tests else "permutations"
    return lay_out(
        f"Differences (a - b; paired test, {number} of dialogues; Holm over the {len(tests)} tests)",
        tests,
        {
            "a": lambda test: test.a,
            "b": lambda test: test.b,
            "figure": lambda test: METRIC_NAMES.get(test.metric, test.metric),
            "turns": lambda test: str(test.turns),
            "difference": _difference,
            "p": lambda test: p_value(test.p),
            "p Holm": lambda test: p_value(test.p_holm),
        },
        names=3,
        notes=comparison.warnings,
    )


def draw(table: Table) -> str:
    """Return a table for the terminal, as wide as it is (160 columns where there is none), and each note."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=table.title)
    for place, column in enumerate(table.columns):
        drawn.add_column(column, justify="left" if place < table.names else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(Text, row))  # as text: a file's name may hold what rich takes for markup
    console = Console(width=None if Console().is_terminal else 160)
    with console.capture() as captured:
        console.print(drawn)
        for note in table.notes:
            console.print(f"note: {note}", highlight=False, markup=False)
    return captured.get().rstrip("\n")


def to_latex(table: Table) -> str:
    """Return a tabular for the package booktabs under a comment with its title, with the notes in small print."""
    lines = [f"% {table.title}"]
    lines += [f"\\begin{{tabular}}{{{'l' * table.names}{'r' * (len(table.columns) - table.names)}}}", r"\toprule"]
    lines += [_latex_row(table.columns), r"\midrule", *map(_latex_row, table.rows), r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(rf"\par{{\footnotesize {note.translate(_LATEX)}\par}}" for note in table.notes)])


def to_markdown(table: Table) -> str:
    """Return a Markdown table under its title, with the notes as a list."""
    aligned = ["---"] * table.names + ["---:"] * (len(table.columns) - table.names)
    lines = [f"**{table.title}**", "", *map(_markdown_row, (table.columns, aligned, *table.rows))]
    return "\n".join([*lines, *([""] if table.notes else []), *(f"- {note}" for note in table.notes)])


def _strategy(figures: StrategyFigures | None) -> list[str]:
    if figures is None:
        return ["-"] * len(_STRATEGY_COLUMNS)
    q = f"{percent(figures.q)} {interval(figures.q_interval, 100, 1)}"
    q_w = f"{percent(figures.q_w)} {interval(figures.q_w_interval, 100, 1)}"
    if figures.b_interval is None:
        return [q, q_w, "-", "-", "-"]
    b = f"{figures.b:.2f} {interval(figures.b_interval)}"
    return [q, q_w, b, f"{figures.b_floor:.2f}", f"{figures.b_debiased:.2f}"]


def _difference(test: Difference) -> str:
    scale, digits = (1, 2) if test.metric == "b" else (100, 1)
    return f"{test.difference * scale:+.{digits}f} {interval(test.interval, scale, digits)}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share, 0..1, per cent."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def interval(bounds: Sequence[float] | None, scale: float = 1, digits: int = 2) -> str:
    """Both ends in brackets; nothing where there are none."""
    return "" if bounds is None else f"({scale * bounds[0]:.{digits}f}, {scale * bounds[1]:.{digits}f})"


def p_value(p: float | None) -> str:
    """Four digits."""
    return "-" if p is None else f"{p:.4f}"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(_LATEX) for cell in cells) + r" \\"


def _markdown_row(cells: Sequence[str]) -> str:
    escaped = (cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
