"""From a run's folder to its page."""

import re
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from esckit import __version__
from esckit.files import atomic_write
from esckit.measures.judging_results import Judging
from esckit.report import charts, empath
from esckit.report.drawn_tree import MOST_TURNS, draw_tree
from esckit.report.extremes import CONTEXT, EXTREMES, extreme_turns
from esckit.report.figure_tables import PATTERN_NAMES
from esckit.report.reading import read_record
from esckit.report.report_tables import (
    QUALITIES,
    against_one,
    aligned,
    compared_pairs,
    first_of_splits,
    gold_texts,
    judged_qualities,
    notes,
    phrase_columns,
    published_figures,
)
from esckit.report.rounds import published_rounds
from esckit.report.run import ReportedRun, read_run
from esckit.report.samples import SAMPLES, sample_dialogues
from esckit.report.searches import ROLES, trained_on
from esckit.report.tree_lines import short_names
from esckit.report.ways_tables import figure_names, gain_of

if TYPE_CHECKING:
    from jinja2 import Environment

_NONE: Final = "–"
_MOST_OPENINGS: Final = 5
_MOST_PHRASES: Final = 10


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a run's folder: one file, no network, no script; the same folder gives the same bytes.

    Stages that are not done are named, and what they would have made is left out. Returns the file's path.

    Raises:
        EsckitError: a file of the run is missing or broken, or the folder cannot be written.
    """
    page = render(read_run(folder))
    with atomic_write(folder / "report.html") as file:
        file.write(page)
    return folder / "report.html"


def render(run: ReportedRun) -> str:
    """Return a run's page."""
    measured = [system for system in run.systems if system.figures]
    patterned = [system for system in measured if system.figures and system.figures.patterns]
    curves = [(name, points) for name, points in run.curves.items() if points]
    planned = [(s, s.figures.strategy.per_strategy) for s in measured if s.figures and s.figures.strategy]
    calibrated = [
        (s, s.figures.strategy.calibration)
        for s in measured
        if s.figures and s.figures.strategy and s.figures.strategy.calibration
    ]
    gold = gold_texts(run.systems)
    return (
        page_environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            measured=measured,
            notes=notes(run),
            compared=compared_pairs(run),
            against=against_one(run),
            judgings=run.judgings,
            most_openings=_MOST_OPENINGS,
            gold_texts=gold,
            phrases=[column for column in phrase_columns(run.systems, gold) if column.frequent],
            most_phrases=_MOST_PHRASES,
            patterns=patterned,
            gold_patterns=first_of_splits(patterned),
            pattern_names=PATTERN_NAMES,
            published=published_figures(()) if measured else [],
            published_of_stages=_of_stages(run) if measured else [],
            qualities=QUALITIES,
            judged=judged_qualities(run),
            distributions=charts.distribution_charts(planned),
            preferences=charts.preference_chart(planned) if planned else None,
            reliability=[charts.reliability_chart(system, found) for system, found in calibrated],
            curves=[charts.training_chart(*curve) for curve in curves if curve[0] not in run.alignments],
            **_searches(run),
            **_rounds(run),
            **_ways(run),
            **_empath(run),
            pairs={stage: found for stage, found in run.mined.items() if found.pairs},
            alignments=aligned(run),
            alignment_curves=[charts.alignment_chart(*curve) for curve in curves if curve[0] in run.alignments],
            samples=sample_dialogues(run.systems),
            most_samples=SAMPLES,
            extremes=extreme_turns(run.systems),
            most_extremes=EXTREMES,
            context=CONTEXT,
            recipe=_recipe_yaml(run.recipe_json),
            non_commercial=bool(re.search(r"\bNC\b|non-?commercial", run.corpus.licence, re.IGNORECASE)),
        )
    )


def _searches(run: ReportedRun) -> dict[str, Any]:
    """What the section on search stages shows."""
    trees = {stage: search.tree for stage, search in run.searches.items() if search.tree}
    by_stage = {system.stage: system for system in run.systems if system.figures}
    trained = {name: [by_stage[s] for s in trained_on(run.recipe, name) if s in by_stage] for name in run.searches}
    return {
        "searches": run.searches,
        "search_roles": ROLES,
        "trained": {name: systems for name, systems in trained.items() if systems},
        "search_curves": [
            chart
            for name, found in run.searches.items()
            if len(found.curve) > 1
            for chart in charts.search_charts(name, found)
        ],
        "drawn": {stage: draw_tree(tree) for stage, tree in trees.items()},
        "shorts": {stage: short_names(tree) for stage, tree in trees.items()},
        "most_turns": MOST_TURNS,
    }


def _rounds(run: ReportedRun) -> dict[str, Any]:
    """What the section on rounds of self-refinement shows."""
    taken = Counter[str]()
    for each in run.rounds:
        taken.update(each.record.filters)
    return {
        "rounds": run.rounds,
        "kept": run.kept,
        "busy_filters": [name for name, count in taken.items() if count],
        "idle_filters": [name for name, count in taken.items() if not count],
        "round_charts": charts.round_charts(run.rounds) if len(run.rounds) > 1 else [],
        "published_rounds": published_rounds(),
    }


def _ways(run: ReportedRun) -> dict[str, Any]:
    """What the section on ways of mining shows."""
    return {
        "ways": run.ways,
        "way_figures": {stage: figure_names(found) for stage, found in run.ways.items()},
        "gain_of": gain_of,
        "way_charts": {stage: charts.way_charts(stage, found) for stage, found in run.ways.items()},
    }


def _empath(run: ReportedRun) -> dict[str, Any]:
    """What Empath's table and the section on roles show; the table, of a run that has roles or its judge."""
    scores, spoken = empath.judged_scales(run), empath.spoken(run.systems)
    return {
        "empath_shown": bool(scores or spoken),
        "empath_scores": scores,
        "empath_figures": empath.FIGURES,
        "empath_scales": empath.SCALES,
        "empath_published": empath.published_empath(),
        "spoken": spoken,
        "gates": empath.gates(run),
    }


def _of_stages(run: ReportedRun) -> list[Any]:
    """Published figures that only a run with certain kinds of stages shows."""
    always = published_figures(())
    return [group for group in published_figures({stage.stage for stage in run.stages}) if group not in always]


def _recipe_yaml(recipe: dict[str, Any]) -> str:
    """The recipe as one would write it: a stage is one flow mapping that begins with its kind and name."""

    def dump(value: Any, *, flow: bool | None) -> str:
        return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=110))

    head = {key: value for key, value in recipe.items() if key != "stages"}
    stages = [{"stage": stage["stage"], "name": stage["name"], **stage} for stage in recipe["stages"]]
    return dump(head, flow=None) + "stages:\n" + "".join(f"- {dump(stage, flow=True)}" for stage in stages)


def page_environment() -> "Environment":
    """Autoescaping is on for every template: dialogues are text that anyone may have written."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("esckit.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = (_percent, _fixed, _signed, _p_value, _interval, _number, _duration)
    environment.filters.update({show.__name__.removeprefix("_"): show for show in shown})
    style = (resources.files("esckit.report") / "style.css").read_text(encoding="utf-8")
    environment.globals.update(style=Markup(style), esckit_version=__version__)
    return environment


def _percent(fraction: float | None, digits: int = 1) -> str:
    return _NONE if fraction is None else f"{100 * fraction:.{digits}f}"


def _fixed(value: float | None, digits: int = 2) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _interval(bounds: tuple[float, float] | None, scale: float = 1, digits: int = 2) -> str:
    shown = "" if bounds is None else f"{scale * bounds[0]:.{digits}f} to {scale * bounds[1]:.{digits}f}"
    return shown.replace("-", "−")


def _number(value: Any) -> str:
    """Thousands get a comma; what is no number stays as it is."""
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def write_judging_page(folder: Path) -> Path:
    """Write ``judging.html`` beside a judging's ``judging.json``: one file, no network, no script.

    Raises:
        EsckitError: the figures are missing or broken, or the folder cannot be written.
    """
    template = page_environment().get_template("judging_page.html.j2")
    judging = read_record(folder / "judging.json", Judging, "run esckit judge into its folder again")
    with atomic_write(folder / "judging.html") as file:
        file.write(template.render(judging=judging, judgings={"": judging}))
    return folder / "judging.html"
