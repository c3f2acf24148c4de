"""Two controls that search no tree: best of all strategies, and a strategy at random (CSO, table 4)."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from esckit.conversation import CSO_REASONS, Conversation, Preference
from esckit.decoding import seed_of
from esckit.mining.tree_search.extraction import Extracted, two_sides
from esckit.mining.tree_search.nodes import Node
from esckit.mining.tree_search.search import TreeSearch
from esckit.strategy import TAXONOMIES

__all__ = ["METHODS", "AtRandom", "BestOf"]


class _TurnByTurn(TreeSearch):
    """Looks at each gold turn once, in order; an iteration is a turn."""

    @property
    def planting(self) -> int:
        return 0

    @property
    def most(self) -> int:
        return len(self.tree.gold)

    @property
    def labels(self) -> tuple[str, ...]:
        """The strategies of the dialogue's taxonomy."""
        return TAXONOMIES[str(self.tree.seed.taxonomy)].labels

    async def _plant(self) -> None:
        """Nothing stands in the tree before its turn comes."""

    def _stops(self, allowance: int | None) -> str | None:
        if self.iterations == len(self.tree.gold):
            return "exhausted"
        return "budget" if allowance is not None and self.spent + self.dearest > allowance else None

    async def _iterate(self) -> bool:
        await self._turn(self.tree.gold[self.iterations])
        return True

    async def _turn(self, gold: Node) -> None:
        raise NotImplementedError


class BestOf(_TurnByTurn):
    """At each gold turn a reply under each strategy, all judged, gold too: what the tree has to beat at equal calls."""

    @property
    def dearest(self) -> int:
        roles = self.asking.roles
        return len(self.labels) * (roles.supporter.calls + roles.reward.calls) + roles.reward.calls

    async def _turn(self, gold: Node) -> None:
        assert gold.parent is not None
        even = 1 / len(self.labels)
        beside = [self.tree.plan(gold.parent, label, 0.0, even) for label in self.labels]
        looked = await asyncio.gather(*(self._judged(node) for node in (gold, *beside)))
        for node, judged in zip((gold, *beside), looked, strict=True):
            if judged:
                self.tree.back_up(node, [node])

    async def _judged(self, node: Node) -> bool:
        return (node.written or await self._write(node)) and await self._judge(node, 0)


class AtRandom(_TurnByTurn):
    """At each gold turn a reply under another strategy, drawn at random; gold is preferred, and nobody judges."""

    @property
    def dearest(self) -> int:
        return self.asking.roles.supporter.calls

    async def _turn(self, gold: Node) -> None:
        assert gold.parent is not None
        others = [label for label in self.labels if label != gold.strategy]
        draw = np.random.default_rng(seed_of(self.number, self.tree.seed.id, gold.turn))
        label = others[draw.integers(len(others))]
        await self._write(self.tree.plan(gold.parent, label, 0.0, 1 / len(others)))

    def _in_doubt(self, allowance: int | None) -> list[Node]:
        """Nobody judges."""
        return []

    def extract(self, tree: Conversation) -> Extracted:
        """Each gold turn that has been reached, over what was drawn beside it."""
        pairs = [
            (gold.turn, other.id)
            for gold in self.tree.gold[: self.iterations]
            for other in tree.children(tree.turn(gold.turn).parent)
            if other.speaker == "supporter" and other.id != gold.turn and not other.planned and "visits" in other.scores
        ]
        return Extracted([chosen for chosen, _ in pairs], pairs)

    def prefer(self, tree: Conversation, found: Extracted) -> Iterable[Preference]:
        how: dict[str, Any] = {"reason": "random", "judge": "rule:random", "reasons": CSO_REASONS}
        for chosen, rejected in found.pairs:
            yield from two_sides(tree.turn(chosen), tree.turn(rejected), how, decoupled=self.options.decoupled)


METHODS: Final = {"search": TreeSearch, "best_of": BestOf, "random": AtRandom}
"""How pairs are found, by the name that options give it."""
