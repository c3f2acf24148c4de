"""Systems that were trained several times, each against one that all of them started from.

A figure is the mean over the repetitions, and a test pairs it with the other's by dialogue: in a permutation, all
repetitions of a dialogue are swapped together, and in a resample a dialogue is drawn with all of them. How far training
again moves a figure is the spread over the repetitions, and is in no interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Final

import numpy as np

from esckit.errors import PredictionsError
from esckit.measures.comparison import TESTED_TEXT, System, Tested, shared_turns, tested_figures
from esckit.measures.evaluation import DEFAULT_METRICS, Settings, measure
from esckit.measures.intervals import Draws, FloatArray, Interval, dialogue_places
from esckit.measures.permutation import Estimate, Figure, difference_interval, holm, mean_of, permutation_p
from esckit.measures.predictions import Prediction
from esckit.measures.results import Result
from esckit.strategy import ESCONV, Taxonomy

__all__ = ["Advantage", "RepeatedFigure", "compare_repeated", "correct_by_figure", "mean_advantage"]

_TEXTS: Final = ("bleu1", "bleu2", *(name for name in TESTED_TEXT if name != "bleu1"))
_UNTESTED: Final = ("distinct2_corpus",)
"""Figures of a whole file that are no function of sums over dialogues: shown, and not tested."""


@dataclass(frozen=True, kw_only=True)
class RepeatedFigure(Result):
    """One figure of a system that was trained several times; None where it is not tested."""

    metric: str
    values: list[float]  # by repetition
    mean: float
    against: float  # the other system's
    difference: float  # mean - against
    interval: Interval | None
    p: float | None  # that they are the same
    p_holm: float | None  # over the systems, this figure alone


@dataclass(frozen=True, kw_only=True)
class Advantage(Result):
    """How much better a system's replies are found than another's: mean over turns of -1, 0 and 1, or between."""

    turns: int
    dialogues: int
    values: list[float]  # by repetition, as rates: 1 always better, .5 as good
    rate: float  # (1 + mean) / 2: wins and half of ties
    interval: Interval
    p: float  # that it is one half
    p_holm: float


def compare_repeated(
    ways: Mapping[str, Sequence[Sequence[Prediction]]],
    against: Sequence[Prediction],
    taxonomy: Taxonomy = ESCONV,
    draws: Draws | None = None,
) -> dict[str, list[RepeatedFigure]]:
    """Measure and test systems against one.

    Args:
        ways: by name, a system's predictions in each repetition, at least one.
        against: the other's, of the same turns.
        taxonomy: whose labels.
        draws: of intervals and tests.

    Returns:
        By name, its figures: those that both have. Holm's correction is over the systems, for each figure alone.

    Raises:
        PredictionsError: two files share no turn, disagree about gold, or repetitions have other turns.
    """
    draws = draws or Draws()
    settings = Settings(taxonomy, draws.seed, draws.resamples, "wrong", None, DEFAULT_METRICS, None)
    other = System("against", against, measure(against, settings))
    found = {name: _figures(name, own, other, settings, draws) for name, own in ways.items()}
    return correct_by_figure(found)


def correct_by_figure(found: Mapping[str, Sequence[RepeatedFigure]]) -> dict[str, list[RepeatedFigure]]:
    """Return figures with Holm's correction over the systems, for each figure alone."""
    by_metric: dict[str, list[float]] = {}
    for figure in (each for own in found.values() for each in own):
        by_metric.setdefault(figure.metric, []).extend([] if figure.p is None else [figure.p])
    corrected = {metric: iter(holm(p)) for metric, p in by_metric.items()}
    return {
        name: [each if each.p is None else replace(each, p_holm=next(corrected[each.metric])) for each in own]
        for name, own in found.items()
    }


def _figures(
    name: str, repetitions: Sequence[Sequence[Prediction]], other: System, settings: Settings, draws: Draws
) -> list[RepeatedFigure]:
    systems = [System(name, rows, measure(rows, settings)) for rows in repetitions]
    pairs = [shared_turns(system, other) for system in systems]
    if len({len(own) for own in pairs}) > 1:
        raise PredictionsError(f"the repetitions of {name} predict different turns: compare predictions of the same.")
    tested = [tested_figures(s, other, own, settings, _TEXTS) for s, own in zip(systems, pairs, strict=True)]
    shared = [metric for metric in tested[0] if all(metric in each for each in tested)]
    figures = [_tested(metric, [each[metric] for each in tested], draws) for metric in shared]
    return figures + [found for metric in _UNTESTED if (found := _untested(metric, systems, other))]


def _tested(metric: str, tested: Sequence[Tested], draws: Draws) -> RepeatedFigure:
    first, second = (np.concatenate(side, axis=1) for side in zip(*((t.first, t.second) for t in tested), strict=True))
    figure = _mean_over([each.figure for each in tested])
    values = [float(each.figure(each.first.sum(0, keepdims=True)).value[0]) for each in tested]
    against = float(tested[0].figure(tested[0].second.sum(0, keepdims=True)).value[0])
    return RepeatedFigure(
        metric=metric,
        values=values,
        mean=float(np.mean(values)),
        against=against,
        difference=float(np.mean(values)) - against,
        interval=difference_interval(first, second, figure, draws),
        p=permutation_p(first, second, figure, draws),
        p_holm=None,
    )


def _mean_over(figures: Sequence[Figure]) -> Figure:
    """The mean of figures of equally many totals, which stand side by side."""

    def mean(totals: FloatArray) -> Estimate:
        each = [figure(own) for figure, own in zip(figures, np.split(totals, len(figures), axis=1), strict=True)]
        value = np.mean([estimate.value for estimate in each], axis=0)
        return Estimate(value, np.concatenate([estimate.derivative for estimate in each], axis=1) / len(figures))

    return mean


def _untested(metric: str, systems: Sequence[System], other: System) -> RepeatedFigure | None:
    found = [getattr(system.measured.figures.text, metric, None) for system in (other, *systems)]
    against, *values = [float(value) for value in found if value is not None] or [0.0]
    if len(values) < len(systems):
        return None
    mean = fmean(values)
    return RepeatedFigure(
        metric=metric,
        values=values,
        mean=mean,
        against=against,
        difference=mean - against,
        interval=None,
        p=None,
        p_holm=None,
    )


def mean_advantage(
    repetitions: Sequence[Mapping[tuple[str, str], float]], draws: Draws | None = None
) -> Advantage | None:
    """Gather how much better a system's replies are found, by turn (conversation and turn id).

    A turn's advantage is the mean over the repetitions that have it. None where there is no turn.
    """
    turns = sorted({turn for own in repetitions for turn in own})
    if not turns:
        return None
    draws = draws or Draws()
    each = np.array([np.mean([own[turn] for own in repetitions if turn in own]) for turn in turns])
    number, places = dialogue_places([dialogue for dialogue, _ in turns])
    sums = np.zeros((number, 1))
    np.add.at(sums[:, 0], places, each)
    figure, nothing = mean_of(len(turns)), np.zeros_like(sums)
    low, high = difference_interval(sums, nothing, figure, draws)
    p = permutation_p(sums, nothing, figure, draws)
    return Advantage(
        turns=len(turns),
        dialogues=number,
        values=[(1 + float(np.mean(list(own.values())))) / 2 for own in repetitions if own],
        rate=(1 + float(each.mean())) / 2,
        interval=Interval(max(0.0, (1 + low) / 2), min(1.0, (1 + high) / 2)),
        p=p,
        p_holm=p,
    )
