"""Which way of mining pays, as tables: what each cost and what its pairs are, and what was learned from them."""

from collections.abc import Iterator
from statistics import fmean
from typing import Final, NamedTuple

from esckit.measures.intervals import Interval
from esckit.measures.ways import Way, Ways
from esckit.report.figure_tables import METRIC_NAMES, PATTERN_NAMES, Table, interval, lay_out, p_value, percent

__all__ = ["Gain", "costs_table", "figure_names", "gain_of", "gains", "gains_table"]

_SHOWN: Final = ("q", "q_w", "b", "bleu1_utterance", "bleu2_utterance", "rouge_l_utterance", "distinct2_corpus")
_NAMES: Final = METRIC_NAMES | {"bleu2_utterance": "BLEU-2", "distinct2_corpus": "Dist-2"}
_WINS: Final = "judged win rate"


class Gain(NamedTuple):
    """A figure of a way, as it is shown; ``scale`` is 100 where it is a share."""

    name: str
    scale: int
    values: list[float]
    mean: float
    difference: float
    interval: Interval | None
    p: float | None
    p_holm: float | None

    @property
    def digits(self) -> int:
        """After the point."""
        return 1 if self.scale == 100 else 2


def gains(way: Way) -> Iterator[Gain]:
    """What was learned, figure by figure, in the order of `figure_names`."""
    figures = {figure.metric: figure for figure in way.figures}
    for metric in (*_SHOWN, *PATTERN_NAMES):
        if (found := figures.get(metric)) is not None:
            how = (found.values, found.mean, found.difference, found.interval, found.p, found.p_holm)
            yield Gain(_NAMES.get(metric, metric), 1 if metric == "b" else 100, *how)
    if (wins := way.win_rate) is not None:
        bounds = Interval(wins.interval.low - 0.5, wins.interval.high - 0.5)
        yield Gain(_WINS, 100, wins.values, wins.rate, wins.rate - 0.5, bounds, wins.p, wins.p_holm)


def gain_of(way: Way, name: str) -> Gain | None:
    """A way's figure by the name that is shown."""
    return next((gain for gain in gains(way) if gain.name == name), None)


def figure_names(ways: Ways) -> list[str]:
    """Names of the figures that any way has."""
    return list(dict.fromkeys(gain.name for way in ways.ways for gain in gains(way)))


def costs_table(ways: Ways) -> Table:
    """A row a way: pairs, cost, what a second judge said of them, and how lengths tell their sides apart."""
    return lay_out(
        "Ways of mining (means over repetitions; kept: the chosen side is the better one again, neither counts half)",
        ways.ways,
        {
            "way": lambda way: way.way,
            "by": lambda way: way.method,
            "trained": lambda way: f"{way.trained} of {way.repetitions}",
            "pairs": lambda way: f"{fmean(way.pairs):.0f}",
            "calls": lambda way: f"{fmean(way.calls):.0f}",
            "tokens": lambda way: f"{fmean(way.tokens):,.0f}",
            "kept": lambda way: f"{percent(way.kept.rate)} {interval(way.kept.interval, 100, 0)}" if way.kept else "-",
            "longer chosen": lambda way: percent(way.longer_chosen, 0),
            "length ratio": lambda way: "-" if way.length_ratio is None else f"{way.length_ratio:.2f}",
        },
        names=2,
        notes=[*([f"looked at again by {ways.judge}"] if ways.judge else []), *ways.warnings],
    )


def gains_table(ways: Ways) -> Table:
    """A row a way and figure: what was learned, against what all started from."""
    rows = [(way.way, gain) for way in ways.ways for gain in gains(way)]
    return lay_out(
        f"What was learned, against {ways.against} ({ways.turns} turns of {ways.dialogues} dialogues; "
        f"{ways.permutations:,} permutations; Holm over the ways)",
        rows,
        {
            "way": lambda row: row[0],
            "figure": lambda row: row[1].name,
            "mean": lambda row: _told(row[1].mean, row[1]),
            "repetitions": lambda row: f"{_told(min(row[1].values), row[1])} to {_told(max(row[1].values), row[1])}",
            "difference": lambda row: _difference(row[1]),
            "p": lambda row: p_value(row[1].p),
            "p Holm": lambda row: p_value(row[1].p_holm),
        },
        names=2,
    )


def _told(value: float, gain: Gain) -> str:
    return f"{gain.scale * value:.{gain.digits}f}"


def _difference(gain: Gain) -> str:
    bounds = interval(gain.interval, gain.scale, gain.digits)
    return f"{gain.scale * gain.difference:+.{gain.digits}f} {bounds}".strip()
