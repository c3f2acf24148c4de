"""Stage ``refine``: a round's pairs, a policy's drafts against what they were refined to."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from esckit.chat_models.ledger import LEDGER
from esckit.chat_models.opening import chat_model_name
from esckit.conversation import Conversation, read_conversations
from esckit.errors import CorpusError, RunError
from esckit.files import hash_file, write_json
from esckit.judging.better_reply import check_acceptor
from esckit.mining.pairs import pair_statistics
from esckit.mining.self_refinement.options import RefinementOptions
from esckit.recipes.identity import answers_identity
from esckit.recipes.stages.keep import stopped_at
from esckit.recipes.stages.sft import SftStage, sft_of
from esckit.recipes.trees import PAIRS, TREES, TreesStage, mined_trees
from esckit.rendering import Part
from esckit.supporters.open_model import check_model, open_model

if TYPE_CHECKING:
    from esckit.corpora import Corpus
    from esckit.mining.self_refinement.drafting import Policy
    from esckit.mining.self_refinement.run import Models
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe
    from esckit.supporters import Supporter

__all__ = ["RefineStage", "open_policy"]


class RefineStage(TreesStage, RefinementOptions):
    """Drafts, refines and keeps pairs on dialogues of the training part (`RefinementOptions`; docs/mining.md).

    Attributes:
        model: name of the sft, preference or keep stage whose policy drafts: M_t of a round.
        trees: name of the refine stage of the round before: its dialogues are not taken again, and its trees are kept.
        contexts: files of dialogues whose replies are drafted, in the training part's place (self-evolution, section
            3.1: synthetic ones). All rounds name the same.
        labels: a map of their labels to a taxonomy's, YAML or JSON.
    """

    stage: Literal["refine"]
    model: str
    trees: str | None = None
    contexts: tuple[str, ...] = ()
    labels: str | None = None

    elsewhere: ClassVar[frozenset[str]] = frozenset({"contexts", "labels", "refiner", "accept"})
    reads: ClassVar[dict[str, tuple[str, ...]]] = {"model": ("adapter",), "trees": ("trees",)}

    @property
    def grows(self) -> str | None:
        return self.trees

    @property
    def for_more_pairs(self) -> str:
        return "raise its dialogues, or let more through its filters (docs/mining.md)"

    def parts(self, recipe: "Recipe") -> tuple[Part, ...]:
        return (sft_of(recipe, self.model).part,)

    def _round(self, recipe: "Recipe") -> int:
        return 1 + sum(isinstance(stage, RefineStage) for stage in self.builds_on(recipe))

    def _first(self, recipe: "Recipe") -> SftStage | None:
        """The stage whose drafts are rejected, where it is not the policy's own."""
        root = sft_of(recipe, self.model)
        return root if self.rejected_from == "first" and root.name != self.model else None

    def check_recipe(self, recipe: "Recipe") -> None:
        if sft_of(recipe, self.model).part == "planner":
            raise ValueError(
                f"stage {self.name!r} refines replies, and a planner has none: name a coupled part's stage"
            )
        if self.trees and not isinstance(recipe.named(self.trees), RefineStage):
            raise ValueError(f"stage {self.name!r} takes up the dialogues of an earlier round: name a refine stage")
        for earlier in self.builds_on(recipe):
            if isinstance(earlier, RefineStage) and earlier.model == self.model:
                raise ValueError(f"stages {earlier.name!r} and {self.name!r} refine the drafts of one policy")

    def dialogues_of(self, corpus: "Corpus") -> list[Conversation]:
        """The dialogues of all rounds.

        Raises:
            CorpusError: a file cannot be read, two dialogues have one name, or strategies are other ones.
        """
        return _read(self.contexts, self.labels, str(corpus.train[0].taxonomy)) if self.contexts else corpus.train

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        dialogues = self.dialogues_of(corpus)
        before = [stage for stage in self.builds_on(recipe) if isinstance(stage, RefineStage)]
        if any((stage.contexts, stage.labels) != (self.contexts, self.labels) for stage in before):
            raise RunError(f"stage {self.name!r} names other contexts than the rounds before: give all the same.")
        if not self.contexts:
            self.check_source(self.model, "train", corpus)
        if self.refined_by != "people":
            check_model(self.refiner)
        if self.encoder is not None:
            from esckit.planning.encoder import check_encoder

            check_encoder(self.encoder)
        if self.accept is not None:
            check_acceptor(self.accept, dialogues)
        if self.reuse or not self.trees:
            return
        there = len(dialogues)
        taken = sum(stage.dialogues or there for stage in before)
        if taken + (self.dialogues or 1) > there:
            most = there // (len(before) + 1)
            lower = f"set dialogues to {most} at most" if most else "give more dialogues"
            raise RunError(
                f"stage {self.name!r} has too few dialogues left: earlier rounds take {min(taken, there)} of {there}; "
                f"{lower}, or reuse to true."
            )

    def depends_on(self, run: "RunFolder") -> Any:
        asked = [each for each in (self.refiner, self.accept) if each is not None]
        files = [hash_file(Path(path)) for path in (*self.contexts, *([self.labels] if self.labels else []))]
        told = [[run.source(each.model or ""), answers_identity(each, run.languages)] for each in asked]
        return [told, files, run.source(self.encoder or "")]

    def skips(self, run: "RunFolder") -> str | None:
        return super().skips(run) or stopped_at(run, self.model)

    def started_from(self, run: "RunFolder") -> list[Conversation]:
        """All dialogues, with the trees of earlier rounds in the place of theirs."""
        grown = {tree.id: tree for tree in read_conversations(run.folder / self.trees / TREES)} if self.trees else {}
        return [grown.get(tree.id, tree) for tree in self.dialogues_of(run.corpus)]

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Draft, refine and keep; the trees of earlier rounds stand in the same file.

        Raises:
            BudgetSpent, ChatError, LedgerError: every answer so far is in the ledger, and the same run continues.
        """
        from esckit.conversation import write_conversations
        from esckit.mining.inferential import draw_dialogues
        from esckit.mining.self_refinement.run import refine_dialogues

        folder, before = run.folder / self.name, self.started_from(run)
        taken = {tree.id for tree in before if "refined" in tree.provenance}
        left = [tree for tree in before if self.reuse or tree.id not in taken]
        policy, models = self._cast(run)
        found = refine_dialogues(
            draw_dialogues(left, self.dialogues, run.recipe.seed),
            self,
            folder,
            policy,
            models,
            ledger=run.folder / LEDGER,
            seed=run.seed(self),
            key=run.identity(self),
            title=self.name,
            number=self._round(run.recipe),
        )
        own = {tree.id: tree for tree in read_conversations(folder / TREES)}
        both = [own.get(tree.id, tree) for tree in before if tree.id in own or tree.id in taken]
        write_conversations(folder / TREES, both)
        write_json(folder / PAIRS, pair_statistics(mined_trees(run, self.name)))
        for name, number in found["filters"].items():
            run.count(self, f"no pair: {name}", number)
        return {
            **{name: found[name] for name in ("round", "contexts", "pairs", "from_people", "replaced")},
            "calls": sum(found["calls"].values()),
        }

    def _cast(self, run: "RunFolder") -> "tuple[Policy, Models]":
        """The policy, and who else takes part; each is loaded when it is asked."""
        from esckit.mining.self_refinement.drafting import Policy
        from esckit.mining.self_refinement.run import Models
        from esckit.supporters.open_model import prompted

        sft, first = sft_of(run.recipe, self.model), self._first(run.recipe)

        @cache
        def policy() -> "Supporter":
            return open_policy(run, self.model, sft)

        refiners: dict[str, tuple[str, Callable[[], Any]] | None] = {
            "policy": (self.model, lambda: prompted(policy(), self.refiner.concurrency)),
            "model": (chat_model_name(self.refiner.model or ""), lambda: open_model(self.refiner)),
            "people": None,
        }
        refiner = refiners[self.refined_by]
        accept = self.accept
        return Policy(self.model, sft.part, policy, sft.shown), Models(
            first=Policy(first.name, sft.part, lambda: open_policy(run, first.name, sft), sft.shown) if first else None,
            refiner=refiner and refiner[1],
            refiner_name=refiner[0] if refiner else "people",
            acceptor=(lambda: open_model(accept)) if accept is not None and accept.asks else None,
        )


@cache
def _read(contexts: tuple[str, ...], labels: str | None, taxonomy: str) -> list[Conversation]:
    """The dialogues of some files; those without strategies get the run's taxonomy, by which they are drafted."""
    from esckit.corpora import read_corpus

    dialogues = [tree for path in contexts for tree in read_corpus(Path(path), labels=Path(labels) if labels else None)]
    names, told = Counter(tree.id for tree in dialogues), ", ".join(contexts)
    if (most := names.most_common(1)) and most[0][1] > 1:
        raise CorpusError(
            f"{', '.join(contexts)}: several dialogues are called {most[0][0]!r}: give each its own name."
        )
    if other := sorted({str(tree.taxonomy) for tree in dialogues} - {taxonomy, "None"}):
        raise CorpusError(f"{told}: strategies are of {other[0]}, and the run's of {taxonomy}: map them with labels.")
    return [replace(tree, taxonomy=taxonomy) for tree in dialogues]


def open_policy(run: "RunFolder", stage: str, sft: SftStage) -> "Supporter":
    """The adapter of a stage on the backbone."""
    from esckit.supporters import Supporter

    backbone = run.load_backbone()
    folders: dict[Part, Path] = {sft.part: run.folder / stage / sft.part}
    return Supporter.of_adapters(backbone, sft.renderer(run, backbone), folders, sft.past_strategies)
