"""What ways of mining cost, and how their pairs' sides differ in length."""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from esckit.conversation import Turn, read_conversations
from esckit.mining.pairs import Pair, PairReport, lint_pairs
from esckit.recipes.stages.mine import MineStage
from esckit.recipes.stages.refine import RefineStage
from esckit.recipes.stages.search import SearchStage
from esckit.recipes.trees import TREES, TreesStage, mined_trees

if TYPE_CHECKING:
    from esckit.recipes.folder import RunFolder

__all__ = ["Cost", "Counting"]


class Cost(NamedTuple):
    """What one stage mined, and for what.

    Attributes:
        pairs: with texts on both sides.
        calls: replies asked of language models.
        tokens: that language models wrote.
        report: how the pairs' sides differ.
    """

    pairs: list[Pair]
    calls: int
    tokens: int
    report: PairReport


class Counting:
    """Counts stages of a run; tokens are the backbone's."""

    def __init__(self, run: "RunFolder") -> None:
        self._run = run

    def cost(self, name: str) -> Cost:
        """Of a stage that is done."""
        stage = self._stage(name)
        pairs = [
            Pair(tree, each)
            for tree in mined_trees(self._run, name)
            for each in tree.preferences
            if each.aspect != "strategy"
        ]
        asked = self._run.facts(name).get("calls", 0)
        calls = sum(asked.values()) if isinstance(asked, dict) else int(asked)
        return Cost(pairs, calls, self._tokens(stage) if calls else 0, lint_pairs(pairs))

    def method(self, name: str) -> str:
        """What a stage does, in words."""
        stage = self._stage(name)
        told = {
            MineStage: lambda: f"mine, rule {stage.rule}",  # type: ignore[attr-defined]
            SearchStage: lambda: f"search, {stage.method.replace('_', ' ')}",  # type: ignore[attr-defined]
            RefineStage: lambda: f"refine, by {stage.refined_by}",  # type: ignore[attr-defined]
        }
        return told.get(type(stage), lambda: stage.kind())()

    def _stage(self, name: str) -> TreesStage:
        stage = self._run.recipe.named(name)
        assert isinstance(stage, TreesStage)
        return stage

    def _tokens(self, stage: TreesStage) -> int:
        """Of the turns that it added; of a refinement the whole answer counts, which the ledger knows."""
        folder = self._run.folder / stage.name
        known = {tree.id: {turn.id for turn in tree.turns} for tree in stage.started_from(self._run)}
        turns = [
            turn
            for tree in read_conversations(folder / TREES)
            for turn in tree.turns
            if turn.id not in known.get(tree.id, ()) and turn.text
        ]
        if not isinstance(stage, RefineStage):
            return self._count(turns)
        answered = json.loads((folder / "refinement.json").read_text(encoding="utf-8"))["tokens"]["completion"]
        return self._count([turn for turn in turns if "refinement" not in turn.extra]) + int(answered)

    def _count(self, turns: Sequence[Turn]) -> int:
        return sum(self._length(turn.text or "") for turn in turns)

    @cached_property
    def _length(self) -> Callable[[str], int]:
        from esckit.language_models.pretrained import read_tokenizer

        tokenizer: Any = read_tokenizer(self._run.backbone_source)
        return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
