"""What tables and notes say beyond the figures of evaluation.json."""

from collections.abc import Sequence
from importlib import resources
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

import yaml

from esckit.measures.text import distinct, make_tokenizer
from esckit.report.run import Run, System

__all__ = ["GoldText", "Published", "gold_texts", "notes", "published_figures"]


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
    """What a reader must know before comparing supporters: the evaluation's warnings, each once, and our own."""
    measured = [(system, system.figures) for system in run.systems if system.figures]
    names: dict[str, list[str]] = {}
    for system, figures in measured:
        for warning in figures.warnings:
            names.setdefault(warning, []).append(system.name)
    found = [f"{', '.join(systems)}: {warning}" for warning, systems in names.items()]
    if any(a.past_strategies != b.past_strategies for (_, a), (_, b) in pairwise(measured)):
        told = ", ".join(f"{system.name} {figures.past_strategies or 'mixed'}" for system, figures in measured)
        found.append(f"The supporters saw different past strategies ({told}): their strategy figures do not compare.")
    if len(measured) > 1:
        found.append(
            f"One training run each (seed {run.recipe.seed}) and no test between supporters: a difference seen here is "
            "no finding. Compare over at least three seeds, with a paired test over dialogues."
        )
    return found
