"""Stage ``search``: preferences from a tree search over strategies and replies, or from one of its controls."""

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

from pydantic import model_validator

from esckit.chat_models.ledger import LEDGER
from esckit.files import write_json
from esckit.mining.pairs import pair_statistics
from esckit.mining.tree_search.options import SearchOptions
from esckit.recipes.identity import prompt_texts
from esckit.recipes.trees import PAIRS, TreesStage, mined_trees
from esckit.rendering import Part
from esckit.strategy import TAXONOMIES

if TYPE_CHECKING:
    from esckit.corpora import Corpus
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe

__all__ = ["SearchStage"]

_ROLES: Final = ("seeker", "supporter", "strategy", "reward", "check")


class SearchStage(TreesStage, SearchOptions):
    """Searches from dialogues of the training part (`SearchOptions`; docs/mining.md).

    Attributes:
        planner: name of a planner stage, which then says which strategies fit.
    """

    stage: Literal["search"]
    planner: str | None = None

    reads: ClassVar[dict[str, tuple[str, ...]]] = {"planner": ("planner",)}
    elsewhere: ClassVar[frozenset[str]] = frozenset({"concurrency", *_ROLES})
    keeps: ClassVar[bool] = True

    @property
    def rejected_sides(self) -> int:
        """At a gold turn every strategy may be tried, gold's own too."""
        return 1 if self.method == "random" else max(len(taxonomy.labels) for taxonomy in TAXONOMIES.values())

    @property
    def for_more_pairs(self) -> str:
        return "raise its iterations or its dialogues, or change theta"

    @model_validator(mode="after")
    def _one_strategy_role(self) -> Self:
        if self.planner and self.strategy.model_fields_set & {"planner", "model"}:
            raise ValueError("planner names a stage that chooses strategies: leave out strategy, or leave out planner")
        return self

    def parts(self, recipe: "Recipe") -> tuple[Part, ...]:
        return ("coupled", "planner", "generator") if self.decoupled else ("coupled",)

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        from esckit.mining.inferential import draw_dialogues
        from esckit.mining.tree_search.open_roles import check_roles

        seeds = draw_dialogues(corpus.train, self.dialogues, recipe.seed)
        check_roles(self, TAXONOMIES[str(seeds[0].taxonomy)], seeds, planned=self.planner is not None)

    def depends_on(self, run: "RunFolder") -> Any:
        from esckit.mining.tree_search.open_roles import roles_identity

        roles = [role for name in _ROLES if (role := self.role(name)) is not None]
        models = [role.model or getattr(role, "planner", None) for role in roles]
        texts = [prompt_texts(role.read_prompts(), run.languages) for role in roles]
        return [roles_identity(self), [run.source(model) for model in models if model], texts]

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Search; a stopped search is replayed from the run's ledger.

        Raises:
            BudgetSpent, ChatError, LedgerError: every answer so far is in the ledger, and the same run continues.
        """
        from esckit.mining.inferential import draw_dialogues
        from esckit.mining.tree_search.run import search_dialogues

        folder = run.folder / self.name
        found = search_dialogues(
            draw_dialogues(run.corpus.train, self.dialogues, run.recipe.seed),
            self,
            folder,
            ledger=run.folder / LEDGER,
            seed=run.seed(self),
            planner=run.folder / self.planner if self.planner else None,
            title=self.name,
        )
        write_json(folder / PAIRS, pair_statistics(mined_trees(run, self.name)))
        for role, number in found["unanswered"].items():
            run.count(self, f"{role} did not answer", number)
        return {name: value for name, value in found.items() if name != "statistics"}  # they stand beside the trees
