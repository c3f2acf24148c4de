"""Stage ``evaluate``: predictions, measured and tested against each other."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from esckit.conversation import Conversation, read_conversations
from esckit.errors import RunError
from esckit.files import write_json
from esckit.measures import Prediction, compare, predictions_of
from esckit.recipes.stage import Stage
from esckit.recipes.stages.predict import PredictionsStage
from esckit.recipes.trees import TREES
from esckit.strategy import TAXONOMIES

if TYPE_CHECKING:
    from esckit.corpora import Corpus
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe

__all__ = ["ComparingStage", "EvaluateStage"]


class ComparingStage(Stage):
    """Reads the predictions of several stages, turn by turn.

    Attributes:
        predictions: names of predict and baseline stages, all of one split.
    """

    predictions: list[str] = Field(min_length=1)

    reads: ClassVar[dict[str, tuple[str, ...]]] = {"predictions": ("predictions",)}

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        predicting = [s for s in map(recipe.named, self.predictions) if isinstance(s, PredictionsStage)]
        splits = {stage.name: stage.split_in(corpus) for stage in predicting}
        if len(set(splits.values())) > 1:
            told = ", ".join(f"{name}: {split}" for name, split in splits.items())
            raise RunError(
                f"stage {self.name!r} compares predictions of different splits ({told}): give each split an evaluate "
                "stage of its own."
            )

    def read_trees(self, run: "RunFolder") -> tuple[list[Conversation], dict[str, list[Prediction]]]:
        """The dialogues, as the first of the stages left them, and the rows of each stage that was not skipped."""
        names = [name for name in self.predictions if not run.was_skipped(name)]
        trees = {name: read_conversations(run.folder / name / TREES) for name in names}
        rows = {name: predictions_of(own, name, TAXONOMIES[run.taxonomy]) for name, own in trees.items()}
        return trees[names[0]], rows


class EvaluateStage(ComparingStage):
    """Measures predictions and tests every pair of them (docs/measures.md).

    Attributes:
        against: one of the predictions; the others are tested against it alone, as in an ablation.
    """

    version: ClassVar[int] = 2  # patterns and phrases

    stage: Literal["evaluate"]
    against: str | None = None
    resamples: int = Field(1000, ge=100)

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        if self.against is not None and self.against not in self.predictions:
            raise RunError(
                f"stage {self.name!r} compares with {self.against!r}, which is none of its predictions: take one of "
                f"{', '.join(self.predictions)}."
            )
        super().check_before(recipe, corpus)

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Write ``evaluation.json``: what `measures.compare` returns."""
        _, files = self.read_trees(run)
        for name, rows in files.items():
            unparsed = [row for row in rows if row.predicted_strategy is None and "strategy_given" not in row.extra]
            run.count(self, f"{name}: unparsed strategies", len(unparsed))
        against = self.against if self.against in files else None  # a stage that was skipped predicted nothing
        settings: dict[str, Any] = {"seed": run.seed(self), "resamples": self.resamples, "against": against}
        evaluation = compare(files, TAXONOMIES[run.taxonomy], **settings)
        write_json(run.folder / self.name / "evaluation.json", evaluation.to_json())
        return {}
