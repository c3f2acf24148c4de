"""What stages that make preferences share: they leave the training part's trees, grown, with preferences in them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from esckit.conversation import Conversation, iterate_conversations, read_conversations
from esckit.recipes.stage import Stage
from esckit.rendering import Part

if TYPE_CHECKING:
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe

__all__ = ["PAIRS", "TREES", "TreesStage", "Whose", "mined_trees"]

TREES: Final = "trees.jsonl"
"""In the folder of a mine, search, predict or baseline stage: the trees that it started from, grown."""

PAIRS: Final = "pairs.json"
"""What a mine or search stage says of its own pairs (`mining.pairs.pair_statistics`)."""

Whose = Literal["mined", "accumulated", "all"]
"""Preferences in a stage's trees: its own; those of the stages that it builds on, too; the corpus's, too."""


class TreesStage(Stage):
    """Grows the training part's trees, and prefers some turns in them to others: `MineStage`, `SearchStage`.

    Attributes:
        keeps: it marks turns as worth keeping, and an sft stage can train on them.
    """

    makes: ClassVar[str] = "trees"
    keeps: ClassVar[bool] = False

    @property
    def grows(self) -> str | None:
        """The stage whose trees it grows further; None: it starts from the training part."""
        return None

    @property
    def rejected_sides(self) -> int:
        """Turns that may be found worse than a gold one, at most."""
        return 1

    @property
    def for_more_pairs(self) -> str:
        """What to change where it found no pair."""
        raise NotImplementedError

    def parts(self, recipe: "Recipe") -> tuple[Part, ...]:
        """Those that its preferences train."""
        raise NotImplementedError

    def builds_on(self, recipe: "Recipe") -> "Iterator[TreesStage]":
        """The stages whose trees it grows further, the last one first."""
        name = self.grows
        while name:
            stage = recipe.named(name)
            assert isinstance(stage, TreesStage)
            yield stage
            name = stage.grows

    def started_from(self, run: "RunFolder") -> list[Conversation]:
        """The trees before it: the training part, or another stage's."""
        return read_conversations(run.folder / self.grows / TREES) if self.grows else run.corpus.train


def mined_trees(run: "RunFolder", name: str, whose: Whose = "mined") -> Iterator[Conversation]:
    """A stage's trees with those preferences alone that it made, or with more of them (`Whose`)."""
    stage = run.recipe.named(name)
    assert isinstance(stage, TreesStage)
    before = stage.started_from(run) if whose == "mined" else run.corpus.train
    known = {tree.id: tree.preferences for tree in before} if whose != "all" else {}
    for tree in iterate_conversations(run.folder / name / TREES):
        yield replace(tree, preferences=[p for p in tree.preferences if p not in known.get(tree.id, ())])
