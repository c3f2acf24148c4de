"""The rounds of self-refinement in a run: what each drafted, filtered and kept, and what the stop rule decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from esckit.report.figure_tables import METRIC_NAMES
from esckit.report.reading import read_record
from esckit.report.run_records import KeepRecord, RecipeRecord, RefinementRecord, StageRecord

__all__ = ["Kept", "PublishedRound", "Round", "published_rounds", "read_kept", "read_rounds", "skipped_stages"]

_KEEP: Final = "keep.json"


@dataclass(frozen=True)
class Round:
    """A refine stage."""

    stage: str
    record: RefinementRecord

    @property
    def turns(self) -> int:
        """Turns that were looked at: each made a pair or was taken by one filter."""
        return self.record.pairs + sum(self.record.filters.values())

    @property
    def replaced(self) -> int:
        """Pairs in which the human reply took the place of the refined one."""
        return sum(self.record.replaced.values())

    @property
    def score(self) -> float | None:
        """The mean score that the refiner gave drafts, 1 to 5; None where it gave none."""
        number = sum(self.record.scores.values())
        return sum(int(score) * count for score, count in self.record.scores.items()) / number if number else None


class Kept(NamedTuple):
    """A keep stage, and what it decided, in a sentence or two."""

    stage: str
    told: str


class PublishedRound(NamedTuple):
    """A paper's figures for one model, per cent; None where none is printed."""

    model: str
    bleu2: float
    bleu3: float
    rouge_l: float | None
    meteor: float | None
    distinct2: float


def read_rounds(folder: Path, stages: Sequence[StageRecord]) -> list[Round]:
    """Read the refine stages that are done, in the order of the recipe.

    Raises:
        RunError: a file is missing or broken; one sentence names it.
    """
    names = [stage.name for stage in stages if stage.stage == "refine"]
    return [Round(name, read_record(folder / name / "refinement.json", RefinementRecord)) for name in names]


def read_kept(folder: Path, recipe: RecipeRecord, stages: Sequence[StageRecord], rounds: Sequence[Round]) -> list[Kept]:
    """Read the keep stages that are done. One whose candidate was skipped has compared nothing, and says why.

    Raises:
        RunError: a file is broken; one sentence names it.
    """
    learned = {stage.name: stage.pairs for stage in recipe.stages}
    numbers: Mapping[Any, int] = {each.stage: each.record.round for each in rounds}
    found = []
    for stage in stages:
        if stage.stage == "keep" and (folder / stage.name / _KEEP).exists():
            record = read_record(folder / stage.name / _KEEP, KeepRecord)
            found.append(Kept(stage.name, _decision(record, numbers.get(learned.get(record.candidate)))))
        elif stage.stage == "keep":
            kept, why = stage.facts.get("kept", "?"), stage.facts.get("why", "its candidate was skipped")
            found.append(Kept(stage.name, f"There was nothing to compare, and {kept} was kept: {why}."))
    return found


def _decision(record: KeepRecord, number: int | None) -> str:
    """The stop rule in words."""
    who = f"Round {number}'s policy ({record.candidate})" if number else record.candidate
    above = "was" if record.better else "was not"
    low, high = (_signed(end) for end in record.interval)
    values = "".join(f", {name} {value:.4f}" for name, value in (record.values or {}).items())
    bar = "the lower end of the interval has" if record.bar == "lower" else "the difference has"
    compared = (
        f"{who} {above} above {record.before} by {METRIC_NAMES.get(record.measure, record.measure)} on "
        f"{record.contexts:,} replies of {record.dialogues:,} held-out dialogues: difference "
        f"{_signed(record.difference)} (above 0 is better), 95% interval {low} to {high}{values}; {bar} to be above 0"
    )
    if record.better:
        return f"{compared}. So it was kept."
    if record.stopped:
        return f"{compared}. So {record.kept} was kept, and later rounds were skipped."
    return f"{compared}. The rule only tells here (stops: false): {record.kept} was kept all the same."


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def skipped_stages(records: Sequence[StageRecord]) -> dict[str, list[str]]:
    """Why stages were skipped, each reason with the names of the stages that it befell."""
    found: dict[str, list[str]] = {}
    for record in records:
        if record.state == "skipped":
            why = str(record.facts.get("why", "nobody said why")).rpartition(" was skipped: ")[2]
            found.setdefault(why, []).append(record.name)
    return found


def published_rounds() -> list[tuple[str, list[PublishedRound]]]:
    """Return sources with their rows, from published_rounds.yaml."""
    text = (resources.files("esckit.report") / "published_rounds.yaml").read_text(encoding="utf-8")
    return [(each["source"], [PublishedRound(*row) for row in each["rows"]]) for each in yaml.safe_load(text)]
