"""What tables and notes say beyond the figures of evaluation.json."""

from collections.abc import Iterator, Sequence
from importlib import resources
from statistics import fmean
from typing import Final, NamedTuple

import yaml

from esckit.measures.text import distinct, make_tokenizer
from esckit.report.run import Run, System

__all__ = ["GoldText", "Published", "gold_texts", "notes", "published_figures"]

ONE_SIDED: Final = 0.8
"""From this share of one strategy among the predictions on, a note says so."""


class Published(NamedTuple):
    """A paper's figures for one system: per cent, but for B; None where there is none to compare."""

    system: str
    past_strategies: str
    q: float
    q_w: float
    b: float
    bleu1: float | None
    f1: float | None
    rouge_l: float | None


class GoldText(NamedTuple):
    """The gold responses of a split, measured as the supporters' are."""

    split: str
    n: int
    distinct1: float
    distinct2: float
    mean_tokens: float


def published_figures() -> list[tuple[str, list[Published]]]:
    """Return each source with its rows, from published.yaml."""
    text = (resources.files("esckit.report") / "published.yaml").read_text(encoding="utf-8")
    return [(table["source"], [Published(*row) for row in table["rows"]]) for table in yaml.safe_load(text)]


def gold_texts(systems: Sequence[System]) -> list[GoldText]:
    """Measure the gold responses, the scale on which to read Distinct and length; one row a split."""
    first = {system.split: system for system in reversed(systems) if system.figures and system.figures.text}
    return [_gold_text(system) for system in reversed(first.values())]


def _gold_text(system: System) -> GoldText:
    assert system.figures
    assert system.figures.text
    tokenizer = make_tokenizer(system.figures.text.tokenizer.split()[0])  # type: ignore[arg-type]
    tokens = [tokenizer.tokenize(row.gold_text) for row in system.predictions]
    figures = (distinct(tokens, 1).corpus, distinct(tokens, 2).corpus, fmean(map(len, tokens)))
    return GoldText(system.split, len(tokens), *figures)


def notes(run: Run) -> list[str]:
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


def _comparison_notes(run: Run) -> Iterator[str]:
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
        yield (
            f"One training run each (seed {run.recipe.seed}) and no test between supporters: a difference seen here is "
            "no finding. Compare over at least three seeds, with a paired test over dialogues."
        )
