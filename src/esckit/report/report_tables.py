"""What tables and notes say beyond the figures of evaluation.json."""

from collections.abc import Collection, Iterator, Sequence
from importlib import resources
from statistics import fmean
from typing import Final, NamedTuple

import yaml

from esckit.measures.judging_results import SystemScore
from esckit.measures.phrases import phrases
from esckit.measures.results import Difference, Opening, Phrase
from esckit.measures.text import distinct, length_shares, openings
from esckit.report.figure_tables import METRIC_NAMES
from esckit.report.run import ReportedRun, System
from esckit.report.run_records import Alignment, Point

_FIGURES: Final = METRIC_NAMES | {"accuracy": "Accuracy", "rouge_l_utterance": "ROUGE-L"}

QUALITIES: Final = ("fluency", "professionalism", "empathy", "helpfulness")
"""DecoupledESC's, as its table 4 has them."""

ONE_SIDED: Final = 0.8
"""From this share of one strategy among the predictions on, a note says so."""


class Published(NamedTuple):
    """A paper's figures for one system: per cent, but for B and scores; None where there is none to compare."""

    system: str
    past_strategies: str
    distinct1: float | None
    bleu1: float | None
    f1: float | None
    rouge_l: float | None
    fluency: float | None
    professionalism: float | None
    empathy: float | None
    helpfulness: float | None
    b: float
    q_w: float
    q: float | None


class GoldText(NamedTuple):
    """The gold responses of a split, measured as the supporters' are; the names are those of `TextFigures`."""

    split: str
    distinct1_corpus: float
    distinct2_corpus: float
    mean_tokens: float
    over_40_words_share: float | None
    over_2_sentences_share: float | None
    openings: list[Opening]
    phrases: list[Phrase]


class PhraseColumn(NamedTuple):
    """The phrases of one system, or of the gold replies of a split where there is no system."""

    system: System | None
    split: str
    frequent: list[Phrase]
    overused: list[Phrase]


class ComparedPair(NamedTuple):
    """Two supporters and every test between them."""

    first: System
    second: System
    tests: list[tuple[str, Difference]]  # the figure's short name, its test


def published_figures(kinds: Collection[str]) -> list[tuple[str, list[Published]]]:
    """Return sources with their rows, from published.yaml: those for a run with these kinds of stages."""
    text = (resources.files("esckit.report") / "published.yaml").read_text(encoding="utf-8")
    shown = [table for table in yaml.safe_load(text) if table.get("stage") in (None, *kinds)]
    return [(table["source"], [Published(*row) for row in table["rows"]]) for table in shown]


def judged_qualities(run: ReportedRun) -> dict[str, dict[str, SystemScore]]:
    """By stage, the scores of DecoupledESC's four qualities by the run's first judge of them.

    The judge who sees the human reply, as the paper's does, where this one was asked so.
    """
    return first_scores(run, QUALITIES, sees_reference=True)


def first_scores(
    run: ReportedRun, rubrics: Collection[str], *, sees_reference: bool
) -> dict[str, dict[str, SystemScore]]:
    """By stage, the scores of the run's first judge who was asked all these rubrics.

    Those with or without the human reply, as is preferred, where there are any.
    """
    for judging in run.judgings.values():
        if {rubric.name for rubric in judging.rubrics} >= {*rubrics}:
            preferred = any(row.reference == sees_reference for row in judging.scores)
            found: dict[str, dict[str, SystemScore]] = {}
            for row in judging.scores:
                if row.reference == (sees_reference == preferred):
                    found.setdefault(row.system, {})[row.rubric] = row
            return found
    return {}


def first_of_splits(systems: Sequence[System]) -> list[System]:
    """The first system of each split: what is said of its gold replies holds for the others."""
    return list({system.split: system for system in reversed(systems)}.values())[::-1]


def gold_texts(systems: Sequence[System]) -> list[GoldText]:
    """Measure the gold responses, the scale on which to read Distinct, length and openings; one row a split."""
    measured = [system for system in systems if system.figures and system.figures.text]
    return [_gold_text(system) for system in first_of_splits(measured)]


def _gold_text(system: System) -> GoldText:
    tokenizer = system.tokenizer
    texts = [row.gold_text for row in system.predictions]
    tokens = [tokenizer.tokenize(text) for text in texts]
    lengths = length_shares(texts, characters=tokenizer.name.startswith("characters"))
    return GoldText(
        split=system.split,
        distinct1_corpus=distinct(tokens, 1).corpus,
        distinct2_corpus=distinct(tokens, 2).corpus,
        mean_tokens=fmean(map(len, tokens)),
        over_40_words_share=lengths["over_40_words_share"],
        over_2_sentences_share=lengths["over_2_sentences_share"],
        openings=openings(tokens),
        phrases=phrases(tokens, tokens).frequent,
    )


def phrase_columns(systems: Sequence[System], gold: Sequence[GoldText]) -> list[PhraseColumn]:
    """The frequent phrases of each system with text figures, and of the gold replies."""
    said = [
        PhraseColumn(system, system.split, text.phrases or [], text.overused_phrases or [])
        for system in systems
        if system.figures and (text := system.figures.text)
    ]
    return [*said, *(PhraseColumn(None, each.split, each.phrases, []) for each in gold)]


def compared_pairs(run: ReportedRun) -> list[ComparedPair]:
    """Gather the tests of each pair of supporters."""
    systems = {system.stage: system for system in run.systems}
    pairs: dict[tuple[str, str], list[tuple[str, Difference]]] = {}
    for test in run.differences:
        pairs.setdefault((test.a, test.b), []).append((_FIGURES.get(test.metric, test.metric), test))
    return [ComparedPair(systems[a], systems[b], tests) for (a, b), tests in pairs.items()]


class AgainstOne(NamedTuple):
    """One system, and what every test of another one against it found."""

    other: System
    figures: list[str]  # the short names of all that was tested
    systems: list[tuple[System, dict[str, Difference]]]  # by figure


def against_one(run: ReportedRun) -> AgainstOne | None:
    """Gather the tests in one table where two systems or more were each tested against the same one; else None."""
    pairs = compared_pairs(run)
    if len(pairs) < 2 or len({pair.second.stage for pair in pairs}) > 1:
        return None
    figures = dict.fromkeys(figure for pair in pairs for figure, _ in pair.tests)
    return AgainstOne(pairs[0].second, [*figures], [(pair.first, dict(pair.tests)) for pair in pairs])


def notes(run: ReportedRun) -> list[str]:
    """What a reader must know before comparing supporters; what bears on every figure first."""
    measured = [(system, system.figures) for system in run.systems if system.figures]
    names: dict[str, list[str]] = {}
    for system, figures in measured:
        for warning in figures.warnings:
            names.setdefault(warning, []).append(system.name)
    everyone = [system.name for system, _ in measured]
    warnings = [
        f"{warning} ({'all supporters' if len(systems) > 2 and systems == everyone else ', '.join(systems)})"
        for warning, systems in names.items()
    ]
    floors = [warning for warning in warnings if "noise floor" in warning]
    return [*floors, *_comparison_notes(run), *(warning for warning in warnings if warning not in floors)]


def _comparison_notes(run: ReportedRun) -> Iterator[str]:
    for system in run.systems:
        if system.figures and system.figures.strategy:
            most = max(system.figures.strategy.per_strategy, key=lambda row: row.predicted)
            if most.predicted >= ONE_SIDED * system.figures.n:
                yield (
                    f"{system.name} chooses {most.strategy} at {most.predicted} of {system.figures.n} turns: "
                    "its strategy figures are nearly those of a constant."
                )
    past = {system.name: system.figures.past_strategies or "mixed" for system in run.systems if system.figures}
    if len(set(past.values())) > 1:
        told = ", ".join(f"{name}: {kind}" for name, kind in past.items())
        yield f"The supporters saw different past strategies ({told}): their strategy figures do not compare."
    if len(past) > 1:
        tested = (
            "the tests below say whether these predictions differ by more than their dialogues explain, not whether "
            "training again would give the same"
            if run.differences
            else "no test between supporters: a difference seen here is no finding"
        )
        yield f"One training run each (seed {run.recipe.seed}), and {tested}. Train each with at least three seeds."


class Aligned(NamedTuple):
    """A preference stage: its pairs, how they came apart in training, how far the part moved on validation turns."""

    stage: str
    facts: Alignment
    margin: float | None  # of rewards, over the last tenth of the curve
    accuracy: float | None  # share of pairs whose chosen side has the larger reward, there


def aligned(run: ReportedRun) -> list[Aligned]:
    """One row a preference stage."""
    return [_aligned(name, facts, run.curves.get(name, [])) for name, facts in run.alignments.items()]


def _aligned(name: str, facts: Alignment, curve: Sequence[Point]) -> Aligned:
    last = [point for point in curve if point.margin is not None]
    last = last[-max(1, len(last) // 10) :]
    margins = [point.margin for point in last if point.margin is not None]
    accuracies = [point.accuracy for point in last if point.accuracy is not None]
    return Aligned(name, facts, fmean(margins) if margins else None, fmean(accuracies) if accuracies else None)
