"""Several predictions files over the same turns: each one's figures, and a test for every pair and figure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from textwrap import shorten
from typing import Final, NamedTuple

import numpy as np

from esckit.errors import PredictionsError
from esckit.measures.evaluation import DEFAULT_METRICS, FORMAT, Measured, Settings, measure
from esckit.measures.intervals import Draws, FloatArray
from esckit.measures.matching import align, key_of
from esckit.measures.patterns import PATTERNS
from esckit.measures.permutation import FIGURES, Figure, difference_interval, holm, mean_of, permutation_p
from esckit.measures.predictions import Prediction
from esckit.measures.results import Comparison, Difference
from esckit.measures.strategy_measures import Unparsed, count_outcomes, treat_unparsed
from esckit.measures.text import TokenizerName
from esckit.strategy import ESCONV, Taxonomy

TESTED_TEXT: Final = ("bleu1", "f1", "rouge_l", "meteor", "bertscore_f1", "relevance")
"""Text measures that are tested, where they were asked for: each test more makes Holm's correction stricter."""

_SHOWN: Final = 60  # characters of a text in a sentence


class System(NamedTuple):
    """A predictions file, measured."""

    name: str
    rows: Sequence[Prediction]
    measured: Measured


class Tested(NamedTuple):
    """What two systems' dialogues contribute to one figure."""

    first: FloatArray  # (D, F)
    second: FloatArray  # (D, F)
    figure: Figure
    turns: int  # that the figure rests on


def compare(
    files: Mapping[str, Sequence[Prediction]],
    taxonomy: Taxonomy = ESCONV,
    *,
    permutations: int = 10_000,
    seed: int = 0,
    resamples: int = 1000,
    unparsed: Unparsed = "wrong",
    tokenizer: TokenizerName | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    encoder: str | None = None,
    against: str | None = None,
) -> Comparison:
    """Measure several systems, and test every pair by paired permutations over dialogues, Holm-corrected together.

    Args:
        files: name to predictions; of a single one there are figures and no comparisons.
        against: the one that each other is tested against, as in an ablation: fewer tests, a milder correction.
        permutations: of each test; everything else is as in ``evaluate``.

    Raises:
        PredictionsError: two files share no turn, by id or gold text, or disagree about a turn's gold strategy or text;
            ``against`` is none of the files.
        EsckitError: as in ``evaluate``.
    """
    if against is not None and against not in files:
        raise PredictionsError(f"there are no predictions {against!r} to compare with: take one of {', '.join(files)}.")
    settings = Settings(taxonomy, seed, resamples, unparsed, tokenizer, metrics, encoder)
    aligned, warnings = align(files)
    systems = [System(name, rows, measure(rows, settings)) for name, rows in aligned.items()]
    tests: list[Difference] = []
    warnings = _past_warning(systems) + warnings
    for first, second in _paired(systems, against):
        pairs = shared_turns(first, second)
        left_out = len(first.rows) + len(second.rows) - 2 * len(pairs)
        if left_out:
            warnings.append(
                f"{first.name} and {second.name} are compared over the {len(pairs)} turns that both predict; "
                f"{left_out} others are left out."
            )
        warnings += _in_one_alone(first, second)
        tests += _tests(first, second, pairs, settings, Draws(seed, resamples, permutations))
    if tests:
        warnings.append(
            "A test between two files says nothing about training them again: where training is compared, train each "
            "system with at least three seeds."
        )
    figures = {system.name: system.measured.figures for system in systems}
    corrected = holm([test.p for test in tests])
    comparisons = [replace(test, p_holm=p) for test, p in zip(tests, corrected, strict=True)]
    return Comparison(format=FORMAT, files=figures, comparisons=comparisons, warnings=warnings)


def _paired(systems: Sequence[System], against: str | None) -> list[tuple[System, System]]:
    """Which systems are tested against which."""
    if against is None:
        return [*combinations(systems, 2)]
    other = next(system for system in systems if system.name == against)
    return [(system, other) for system in systems if system is not other]


def _in_one_alone(first: System, second: System) -> list[str]:
    """Say which kind of figures cannot be compared."""
    told = []
    for kind in ("strategy", "text"):
        lacking = [side.name for side in (first, second) if getattr(side.measured.figures, kind) is None]
        if len(lacking) == 1:
            told.append(f"{first.name} and {second.name} are not compared by {kind}: {lacking[0]} has no such figures.")
    return told


def _past_warning(systems: Sequence[System]) -> list[str]:
    past = {system.name: system.measured.figures.past_strategies for system in systems}
    if len({repr(kind) for kind in past.values()}) == 1:
        return []
    told = ", ".join(f"{name} {kind or 'not said'}" for name, kind in past.items())
    return [
        f"The files differ in the past strategies that the model saw ({told}): their strategy figures do not compare."
    ]


def shared_turns(first: System, second: System) -> list[tuple[int, int]]:
    """Indices of the rows of each turn that both predict, in the first one's order.

    Raises:
        PredictionsError: there is none, or they disagree about its gold strategy or text.
    """
    places = {key_of(row): j for j, row in enumerate(second.rows)}
    pairs = [(i, places[key]) for i, row in enumerate(first.rows) if (key := key_of(row)) in places]
    if not pairs:
        ids = "; ".join(f"{side.name} has {_told(side.rows[0])}" for side in (first, second))
        raise PredictionsError(
            f"{first.name} and {second.name} share no turn (conversation_id and turn_id), and no gold text is the "
            f"same: compare predictions of the same dialogues ({ids})."
        )
    known = [
        what
        for what in ("gold_strategy", "gold_text")
        if all(any(getattr(row, what) for row in side.rows) for side in (first, second))
    ]
    for i, j in pairs:
        _check_gold(first, first.rows[i], second, second.rows[j], known)
    return pairs


def _check_gold(first: System, one: Prediction, second: System, two: Prediction, known: Sequence[str]) -> None:
    """``known``: what both files have; a planner's may have no texts, a generator's no strategies."""
    for what in known:
        a, b = ((getattr(row, what) or "").strip() for row in (one, two))
        if a != b and (what == "gold_text" or a.casefold() != b.casefold()):
            raise PredictionsError(
                f"{first.name} and {second.name} differ in the {what} of {_told(one)}: compare predictions of the same "
                f"dialogues ({first.name} has {shorten(a, _SHOWN)!r}, {second.name} {shorten(b, _SHOWN)!r})."
            )


def _told(row: Prediction) -> str:
    return f"conversation {row.conversation_id!r}, turn {row.turn_id!r}"


def _tests(
    first: System, second: System, pairs: list[tuple[int, int]], settings: Settings, draws: Draws
) -> list[Difference]:
    """Tests whose p is not corrected yet."""
    found = []
    for metric, tested in tested_figures(first, second, pairs, settings, TESTED_TEXT).items():
        one, two = (tested.figure(side.sum(0, keepdims=True)).value[0] for side in (tested.first, tested.second))
        p = permutation_p(*tested[:3], draws)
        found.append(
            Difference(
                a=first.name,
                b=second.name,
                metric=metric,
                turns=tested.turns,
                dialogues=len(tested.first),
                difference=float(one - two),
                interval=difference_interval(*tested[:3], draws),
                p=p,
                permutations=draws.permutations,
                p_holm=p,
            )
        )
    return found


def tested_figures(
    first: System,
    second: System,
    pairs: list[tuple[int, int]],
    settings: Settings,
    texts: Sequence[str],
) -> dict[str, Tested]:
    """What is tested over these pairs of rows: figures that both files have; ``texts`` are text measures."""
    one, two = [first.rows[i] for i, _ in pairs], [second.rows[j] for _, j in pairs]
    here = [np.array(indices) for indices in zip(*pairs, strict=True)]
    each = [
        {name: values[places] for name, values in system.measured.each.items()}
        for system, places in zip((first, second), here, strict=True)
    ]
    strategies = [system.measured.figures.strategy for system in (first, second)]
    turns = sum(row.gold_strategy is not None for row in one)
    tested = {}
    if all(strategies) and turns:
        counts = _counts(one, settings), _counts(two, settings)
        tested = {name: Tested(*counts, figure, turns) for name, figure in FIGURES.items()}
        if any(figures is None or figures.b is None for figures in strategies):
            del tested["b"]
    return tested | _means(one, each[0], each[1], texts)


def _means(
    rows: Sequence[Prediction], first: dict[str, FloatArray], second: dict[str, FloatArray], texts: Sequence[str]
) -> dict[str, Tested]:
    """Means over turns: text measures, and shares of replies in a pattern."""
    dialogues = sorted({row.conversation_id for row in rows}, key=repr)
    place = {dialogue: d for d, dialogue in enumerate(dialogues)}
    where = np.array([place[row.conversation_id] for row in rows])
    tested = {}
    for name in (*texts, *PATTERNS):
        if name in first and name in second:
            known = ~np.isnan(first[name]) & ~np.isnan(second[name])
            sums = np.zeros((2, len(dialogues), 1))
            for side, values in zip(sums, (first[name], second[name]), strict=True):
                np.add.at(side[:, 0], where[known], values[known])
            turns = int(known.sum())
            tested[name if name in PATTERNS else f"{name}_utterance"] = Tested(
                sums[0], sums[1], mean_of(max(turns, 1)), turns
            )
    return tested


def _counts(rows: Sequence[Prediction], settings: Settings) -> FloatArray:
    """Each dialogue's confusion matrix, flat: (D, (K + 1) K)."""
    labelled = [row for row in rows if row.gold_strategy is not None]
    counts = treat_unparsed(count_outcomes(labelled, settings.taxonomy), settings.unparsed)
    return counts.reshape(len(counts), -1).astype(np.float64)
