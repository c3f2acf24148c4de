"""The search stages of a run: what they did, how far they got, which tree is drawn, who was trained on their pairs."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from esckit.conversation import Conversation, iterate_conversations
from esckit.report.reading import read_record
from esckit.report.run_records import RecipeRecord, SearchRecord

__all__ = ["ROLES", "CurvePoint", "Search", "read_search", "trained_on"]

ROLES: Final = ("seeker", "supporter", "strategy", "reward")


class CurvePoint(NamedTuple):
    """How far all seeds together were after so many iterations of each."""

    iteration: int
    ends: int
    pairs: int
    calls: int


@dataclass(frozen=True)
class Search:
    """A search stage."""

    record: SearchRecord
    curve: list[CurvePoint]
    tree: Conversation | None  # the one with most pairs; the first of several

    @property
    def title(self) -> str:
        """Method, and mode where a tree is searched."""
        method = self.record.method.replace("_", " ")
        return f"{method} ({self.record.mode.replace('_', ' ')})" if method == "search" else method

    @property
    def calls(self) -> int:
        """Questions of all roles."""
        return sum(self.record.calls.values())


def read_search(folder: Path) -> Search:
    """Read what a search stage left.

    Raises:
        RunError, CorpusError: a file is missing or broken; one sentence names it.
    """
    record = read_record(folder / "search.json", SearchRecord)
    best, steps = None, Counter[tuple[int, str]]()
    for tree in iterate_conversations(folder / "trees.jsonl"):
        if best is None or len(tree.preferences) > len(best.preferences):
            best = tree
        _add_steps(steps, tree.provenance.get("search", {}))
    return Search(record, _sums(steps), best)


def _add_steps(steps: Counter[tuple[int, str]], search: Mapping[str, Any]) -> None:
    """Count at each iteration what it added in one tree."""
    before = (0, 0, 0)
    for iteration, *reached in search.get("curve", []):
        for name, now, then in zip(CurvePoint._fields[1:], reached, before, strict=True):
            steps[iteration, name] += now - then
        before = reached


def _sums(steps: Counter[tuple[int, str]]) -> list[CurvePoint]:
    reached: Counter[str] = Counter()
    points = []
    for iteration in sorted({iteration for iteration, _ in steps}):
        for name in CurvePoint._fields[1:]:
            reached[name] += steps[iteration, name]
        points.append(CurvePoint(iteration, *(reached[name] for name in CurvePoint._fields[1:])))
    return points


def trained_on(recipe: RecipeRecord, search: str) -> list[str]:
    """The predict stages of supporters with a part that learned from a search, or started from such a part."""
    stages = {stage.name: stage for stage in recipe.stages}

    def learned(*names: str | int | None) -> bool:
        before = [stages[name] for name in names if isinstance(name, str) and name in stages]
        return search in names or any(learned(stage.start, stage.pairs, stage.trees) for stage in before)

    supporters = {
        name
        for name, stage in stages.items()
        if stage.stage == "supporter" and learned(stage.coupled, stage.planner, stage.generator)
    }
    return [stage.name for stage in recipe.stages if stage.stage == "predict" and stage.supporter in supporters]
