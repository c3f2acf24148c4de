"""Stage ``planner``: an encoder planner, trained on the training part."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from esckit.planning.planner_options import PlannerOptions
from esckit.recipes.stage import Split, Stage
from esckit.recipes.stages.derive import DeriveStage

if TYPE_CHECKING:
    from esckit.conversation import Conversation
    from esckit.corpora import Corpus
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe


class PlannerStage(Stage, PlannerOptions):
    """Trains a planner on an encoder's vectors and explicit features; no language model takes part.

    Attributes:
        encoder: ``embedded``, a folder, or a Hub id.
        derived: name of a derive stage: train on its dialogues in place of the corpus's.
        with_valid: train on the validation part too, where there is a test part to predict.
    """

    stage: Literal["planner"]
    encoder: str = "embedded"
    with_valid: bool = False
    derived: str | None = None

    later: ClassVar[frozenset[str]] = frozenset({"derived"})
    reads: ClassVar[dict[str, tuple[str, ...]]] = {"derived": ("dialogues",)}
    makes: ClassVar[str] = "planner"

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        from esckit.planning.encoder import check_encoder

        if self.model == "encoder":
            check_encoder(self.encoder)

    def fitted_to(self, corpus: "Corpus") -> tuple[Split, ...]:
        return ("valid",) if self.with_valid and corpus.test else ()

    def depends_on(self, run: "RunFolder") -> Any:
        return run.source(self.encoder) if self.model == "encoder" else None

    def _derived(self, run: "RunFolder", part: Split) -> "list[Conversation]":
        stage = run.recipe.named(str(self.derived))
        assert isinstance(stage, DeriveStage)
        return stage.read(run, part)

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Train it; the figures that it reaches on dialogues that it has not seen become facts."""
        from esckit.planning.encoder import load_encoder
        from esckit.planning.fitting import train_planner
        from esckit.strategy import TAXONOMIES

        conversations = [
            tree
            for part in ("train", *self.fitted_to(run.corpus))
            for tree in (self._derived(run, part) if self.derived else getattr(run.corpus, part))
        ]
        encoder, taxonomy = load_encoder(self.encoder), TAXONOMIES[run.taxonomy]
        options = PlannerOptions.model_validate(self.model_dump(include=set(PlannerOptions.model_fields)))
        folder = run.folder / self.name
        facts = train_planner(conversations, encoder, taxonomy, options, folder, seed=run.seed(self), title=self.name)
        unseen = {
            f"{figure}_unseen_{mode}": round(figures["calibrated"][figure], 4)
            for mode, figures in facts.get("out_of_fold", {}).items()
            for figure in ("q", "q_w", "b")
            if figures["calibrated"][figure] is not None
        }
        return {"dialogues": facts["dialogues"], "turns": facts["turns"], **unseen}
