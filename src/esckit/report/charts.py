"""Charts as inline SVG: text stays text, colours are the page's CSS variables, the same data gives the same bytes.

Every chart is drawn about as wide as a telephone's screen, so that its text is readable there; wider pages put charts
side by side.
"""

import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from esckit.measures.results import PerStrategy, Reliability
from esckit.measures.ways import Ways
from esckit.report.rounds import Round
from esckit.report.run import SERIES, System
from esckit.report.run_records import Point
from esckit.report.searches import Search
from esckit.report.ways_tables import gain_of

if TYPE_CHECKING:
    from markupsafe import Markup

_MARKERS: Final = "osD^vP*X"
_GAINS: Final = ("Q", "BLEU-1")
"""Figures of ways of mining that are drawn against calls."""
_WIDTH: Final = 4.3  # inches of 72 SVG units
# Matplotlib knows no CSS variables: these stand for them while it draws.
_COLOURS: Final = {name: f"#{number:06x}" for number, name in enumerate(("ink", "muted", "rule", "gold"), 0xFA0001)}
_COLOURS.update({f"series-{i}": f"#{0xFA0101 + i:06x}" for i in range(SERIES)})
_SETTINGS: Final = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: layout is the same everywhere; the page swaps the font
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": _COLOURS["rule"],
    "axes.labelcolor": _COLOURS["muted"],
    "axes.titlecolor": _COLOURS["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": _COLOURS["ink"],
    "xtick.color": _COLOURS["rule"],
    "ytick.color": _COLOURS["rule"],
    "xtick.labelcolor": _COLOURS["muted"],
    "ytick.labelcolor": _COLOURS["ink"],
    "grid.color": _COLOURS["rule"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.borderaxespad": 0.0,
    "legend.borderpad": 0.0,
    "legend.handlelength": 1.1,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.4,
    "lines.linewidth": 1.6,
}


def distribution_charts(systems: Sequence[tuple[System, Sequence[PerStrategy]]]) -> "list[Markup]":
    """Draw each strategy's share of the gold turns and of the supporter's choices, on one scale for all supporters."""
    shares = [
        (_shares([row.gold for row in figures]), _shares([row.predicted for row in figures])) for _, figures in systems
    ]
    most = max((share for pair in shares for side in pair for share in side), default=0)
    return [_distribution_chart(*known, *pair, most) for known, pair in zip(systems, shares, strict=True)]


def _distribution_chart(
    system: System, figures: Sequence[PerStrategy], gold: list[float], predicted: list[float], most: float
) -> "Markup":
    def draw(axes: Any) -> None:
        _strategy_axis(axes, [row.strategy for row in figures])
        looks = (("gold", gold, -0.2, "gold"), ("predicted", predicted, 0.2, system.colour))
        for label, values, offset, colour in looks:
            rows = [number + offset for number in range(len(values))]
            axes.barh(rows, values, height=0.36, color=_COLOURS[colour], label=label)
            for row, value in zip(rows, values, strict=True):
                place: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
                axes.annotate(f"{value:.0f}", (value, row), **place, fontsize=8.5, color=_COLOURS["muted"])
        axes.set_xlim(0, 1.1 * max(10, most))
        axes.set_xlabel(f"share of {sum(row.gold for row in figures):,} turns, per cent")
        _legend(axes)

    told = (f"{r.strategy} {g:.0f} gold, {p:.0f} predicted" for r, g, p in zip(figures, gold, predicted, strict=True))
    alt = f"Bar chart of strategy shares in per cent, gold and predicted by {system.name}: {'; '.join(told)}."
    return _svg(
        f"distribution-{system.stage}", f"Strategies: {_short(system.name, 19)}", alt, draw, 0.55 * len(figures) + 1.1
    )


def preference_chart(systems: Sequence[tuple[System, Sequence[PerStrategy]]]) -> "Markup":
    """Draw each strategy's preference p, a marker a supporter, with a line at 1: no preference."""
    labels = [row.strategy for row in systems[0][1]]

    def draw(axes: Any) -> None:
        _strategy_axis(axes, labels)
        axes.axvline(1, color=_COLOURS["muted"], linewidth=1, linestyle=(0, (3, 2)))
        for place, (system, figures) in enumerate(systems):
            offset = 0.5 * ((place + 0.5) / len(systems) - 0.5)
            points = {number + offset: row.p for number, row in enumerate(figures) if row.p is not None}
            look = {"color": _COLOURS[system.colour], "marker": _MARKERS[system.number % len(_MARKERS)]}
            axes.plot(
                [*points.values()],
                [*points],
                linestyle="",
                markersize=6.5,
                label=_short(system.name),
                clip_on=False,
                **look,
            )
        axes.set_xlim(0, 1.05 * max(2, *(row.p or 0 for _, figures in systems for row in figures)))
        axes.set_xlabel("preference p (1: no preference)")
        _legend(axes)

    told = "; ".join(
        f"{system.name}: " + ", ".join(f"{row.strategy} {row.p:.2f}" for row in figures if row.p is not None)
        for system, figures in systems
    )
    alt = f"Dot chart of the preference p of each strategy; 1 is no preference. {told}."
    return _svg("preference", "Preference p by strategy", alt, draw, 0.55 * len(labels) + 1.1 + 0.1 * len(systems))


def reliability_chart(system: System, calibration: Reliability) -> "Markup":
    """Draw how often the most probable strategy is gold by how probable it is, with the line on which both agree."""
    points = [(100 * point.confidence, 100 * point.accuracy, point.n) for point in calibration.bins]

    def draw(axes: Any) -> None:
        axes.axline((0, 0), (100, 100), color=_COLOURS["muted"], linestyle=(0, (3, 2)), label="as right as sure")
        sure, right, turns = zip(*points, strict=True)
        area = [12 + 240 * number / calibration.n for number in turns]
        look: dict[str, Any] = {"color": _COLOURS[system.colour], "clip_on": False}
        axes.plot(sure, right, linewidth=1, **look)
        axes.scatter(sure, right, s=area, **look)
        axes.plot([], [], linestyle="", marker="o", markersize=5, label="a bin of turns", **look)
        axes.grid()
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel("mean probability of the most probable, per cent")
        axes.set_ylabel("share of turns where it is gold, per cent")
        _legend(axes)

    told = (f"{sure:.0f} sure, {right:.0f} right, {number} turns" for sure, right, number in points)
    alt = f"Reliability diagram of {system.name}, in per cent, a point a bin of probabilities: {'; '.join(told)}."
    return _svg(f"reliability-{system.stage}", f"Calibration: {_short(system.name, 19)}", alt, draw, 3.7)


def training_chart(stage: str, points: Sequence[Point]) -> "Markup":
    """Draw a training stage's loss, and its validation loss where there is one."""
    looks = {"training": ("loss", "gold", ""), "validation": ("valid_loss", "ink", "o")}
    return _curves(stage, points, looks, "loss, nats a token")


def alignment_chart(stage: str, points: Sequence[Point]) -> "Markup":
    """Draw a preference stage's loss and reward margin: both are in nats, and ln 2 and 0 where nothing has moved."""
    return _curves(stage, points, {"loss": ("loss", "gold", ""), "margin": ("margin", "ink", "")}, "nats a pair")


def search_charts(stage: str, search: Search) -> "list[Markup]":
    """Draw how ends and pairs, and the calls for them, grew over the iterations of a search stage."""
    first = _search_chart(stage, search, {"pairs": ("pairs", "ink", ""), "ends": ("ends", "gold", "")})
    return [first, _search_chart(stage, search, {"calls": ("calls", "ink", "")})]


def _search_chart(stage: str, search: Search, looks: dict[str, tuple[str, str, str]]) -> "Markup":
    curves = {label: [(p.iteration, getattr(p, name)) for p in search.curve] for label, (name, _, _) in looks.items()}
    what = " and ".join(looks)
    told = ", ".join(f"{label} reach {curve[-1][1]:,}" for label, curve in curves.items())
    alt = f"Line chart of search stage {stage}, all its seeds together, over iterations: {told}."
    draw = _lines(curves, looks, "iteration of each seed", what)
    return _svg(f"search-{stage}-{what}", f"{_short(stage, 19)}: {what}", alt, draw, 2.7)


def round_charts(rounds: Sequence[Round]) -> "list[Markup]":
    """Draw over the rounds the words of both sides of pairs and, where it was measured, how near they are to what."""
    looks = {"refined": ("chosen", "series-0", "o"), "draft": ("rejected", "gold", "s")}
    near = {**looks, "one with the other": ("likeness", "ink", "D")}
    drawn = [
        _round_chart(rounds, "words", looks, "words a reply"),
        _round_chart(rounds, "relevance", near, "cosine with the seeker's words"),
    ]
    return [chart for chart in drawn if chart]


def _round_chart(
    rounds: Sequence[Round], what: str, looks: dict[str, tuple[str, str, str]], unit: str
) -> "Markup | None":
    found = [(each.record.round, record) for each in rounds if (record := getattr(each.record, what))]
    if len(found) < 2:
        return None
    curves = {
        label: [(number, getattr(record, name)) for number, record in found] for label, (name, _, _) in looks.items()
    }
    told = ", ".join(f"{label} from {curve[0][1]:.2f} to {curve[-1][1]:.2f}" for label, curve in curves.items())
    alt = f"Line chart of the pairs over rounds {found[0][0]} to {found[-1][0]}, {unit}: {told}."
    return _svg(f"rounds-{what}", what.capitalize(), alt, _lines(curves, looks, "round", unit), 2.7)


def way_charts(stage: str, ways: Ways) -> "list[Markup]":
    """Draw what each way of mining gained, by a choice of strategies and by words, over what it cost."""
    names = [name for name in _GAINS if any(gain_of(way, name) for way in ways.ways)]
    return [_way_chart(stage, ways, name) for name in names]


def _way_chart(stage: str, ways: Ways, name: str) -> "Markup":
    found = [(place, way, gain) for place, way in enumerate(ways.ways) if (gain := gain_of(way, name)) is not None]

    def draw(axes: Any) -> None:
        axes.axhline(0, color=_COLOURS["muted"], linewidth=1, linestyle=(0, (3, 2)))
        for place, way, gain in found:
            value = gain.scale * gain.difference
            ends = [gain.scale * end for end in gain.interval or (gain.difference, gain.difference)]
            look = {"color": _COLOURS[f"series-{place % SERIES}"], "fmt": _MARKERS[place % len(_MARKERS)]}
            bars = [[value - ends[0]], [ends[1] - value]]
            axes.errorbar([fmean(way.calls)], [value], yerr=bars, label=_short(way.way), capsize=2, **look)
        axes.grid(axis="y")
        axes.set_xlim(left=-1)
        axes.set_xlabel("calls")
        axes.set_ylabel(f"{name} over the start, points")
        _legend(axes)

    told = (f"{way.way} {g.scale * g.difference:+.1f} with {fmean(way.calls):.0f} calls" for _, way, g in found)
    alt = f"Dot chart of the gain in {name} over {ways.against} against calls: {'; '.join(told)}."
    return _svg(f"ways-{stage}-{name}", f"Gain in {name} against calls", alt, draw, 3.0 + 0.2 * len(found))


def _curves(stage: str, points: Sequence[Point], looks: dict[str, tuple[str, str, str]], unit: str) -> "Markup":
    """Draw what there is of curves over epochs; ``looks`` gives each its field of a point, a colour and a marker."""
    found = {label: [(p.epoch, getattr(p, name)) for p in points] for label, (name, _, _) in looks.items()}
    whole = {label: [(epoch, y) for epoch, y in curve if y is not None] for label, curve in found.items()}
    curves = {label: curve for label, curve in whole.items() if curve}

    told = (f"{label} from {curve[0][1]:.2f} to {curve[-1][1]:.2f}" for label, curve in curves.items())
    alt = f"Line chart of stage {stage} over epochs, in {unit}: {', '.join(told)}."
    return _svg(f"training-{stage}", _short(stage), alt, _lines(curves, looks, "epoch", unit), 2.7)


def _lines(
    curves: Mapping[str, Sequence[tuple[float, Any]]], looks: dict[str, tuple[str, str, str]], across: str, unit: str
) -> Callable[[Any], None]:
    """What draws curves from 0 on, each with its look: field, colour, marker."""

    def draw(axes: Any) -> None:
        for label, curve in curves.items():
            _, colour, marker = looks[label]
            axes.plot(*zip(*curve, strict=True), color=_COLOURS[colour], marker=marker, markersize=3.5, label=label)
        axes.grid(axis="y")
        axes.set_xlabel(across)
        axes.set_ylabel(unit)
        axes.set_xlim(left=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _legend(axes)

    return draw


# ------------------------------------------------------------------------------------------------------------- drawing


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) or 1
    return [100 * count / total for count in counts]


def _strategy_axis(axes: Any, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), [textwrap.fill(label, 16) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, pad=7)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _legend(axes: Any) -> None:
    """Between title and axes: a row, or a column where the labels are long."""
    labels = axes.get_legend_handles_labels()[1]
    rows = len(labels) if sum(len(label) + 4 for label in labels) > 36 else 1
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=len(labels) if rows == 1 else 1).set_in_layout(False)
    axes.set_title(axes.get_title(loc="left"), pad=10 + 14.5 * rows)


def _short(name: str, most: int = 26) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _svg(name: str, title: str, alt: str, draw: Callable[[Any], None], height: float) -> "Markup":
    """Draw on fresh axes and return the chart; ``alt`` says in words what it shows."""
    import matplotlib
    from markupsafe import Markup, escape
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        draw(axes)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = _for_page(buffer.getvalue())
    head = f'<svg class="chart" role="img" aria-label="{escape(alt)}"'
    return Markup(svg.replace("<svg", head, 1).replace(">", f"><title>{escape(title)}</title>", 1))


def _for_page(svg: str) -> str:
    """Leave what a page needs: no prolog, metadata, style sheet or fixed size; only those ids that are referred to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg[^>]*(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1>", svg, count=1)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else "", svg)
    svg = re.sub(r">\s+<", "><", svg)
    for variable, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.strip()
