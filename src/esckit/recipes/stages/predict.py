"""Stage ``predict``: what a supporter says in a part of the corpus."""

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

from pydantic import model_validator

from esckit.chat_models.ledger import LEDGER, Ledger
from esckit.chat_models.opening import REMOTE
from esckit.conversation import Conversation, write_conversations
from esckit.decoding import Decoding
from esckit.errors import CorpusError
from esckit.measures import Prediction, add_predictions, read_predictions
from esckit.recipes.stage import Split, Stage
from esckit.recipes.stages.calibrate import FILE, CalibrateStage
from esckit.recipes.stages.derive import DeriveStage
from esckit.recipes.stages.supporter import supporter_of
from esckit.recipes.trees import TREES
from esckit.rendering import PastStrategies
from esckit.strategy import TAXONOMIES
from esckit.supporters.casting_options import CastingOptions

if TYPE_CHECKING:
    from esckit.corpora import Corpus
    from esckit.planning.calibration import Calibration
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe

__all__ = ["PREDICTIONS", "PredictStage", "PredictionsStage"]

PREDICTIONS: Final = "predictions.jsonl"
"""The rows of a stage's trees as the file to take away (docs/measures.md)."""


class PredictionsStage(Stage):
    """Predicts a part of the corpus: into its trees, beside what was said there, and into ``predictions.jsonl``.

    Attributes:
        split: null is test where the corpus has one, else valid.
        trees: name of a derive stage: its dialogues of the part are predicted.
    """

    split: Split | None = None
    trees: str | None = None

    later: ClassVar[frozenset[str]] = frozenset({"trees"})
    reads: ClassVar[dict[str, tuple[str, ...]]] = {"trees": ("dialogues",)}
    makes: ClassVar[str] = "predictions"
    version: ClassVar[int] = 2  # trees

    def split_in(self, corpus: "Corpus") -> Split:
        """The part that is predicted."""
        return self.split or ("test" if corpus.test else "valid")

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        split = self.split_in(corpus)
        if not getattr(corpus, split):
            raise CorpusError(
                f"stage {self.name!r} predicts {split}, which the corpus lacks: give corpus.{split}=FILE."
            )
        self.check_source(self.name, split, corpus)

    def dialogues(self, run: "RunFolder") -> list[Conversation]:
        """What is predicted."""
        split = self.split_in(run.corpus)
        derived = self.trees and run.recipe.named(self.trees)
        return derived.read(run, split) if isinstance(derived, DeriveStage) else list(getattr(run.corpus, split))

    def write_trees(self, run: "RunFolder") -> list[Prediction]:
        """Write the dialogues with what the predictions file says in them; return its rows."""
        rows = read_predictions(run.folder / self.name / PREDICTIONS, TAXONOMIES[run.taxonomy])
        write_conversations(run.folder / self.name / TREES, add_predictions(self.dialogues(run), rows, self.name))
        return rows


class PredictStage(PredictionsStage):
    """Predicts every labelled supporter turn of a part with a supporter.

    Attributes:
        supporter: name of a supporter stage.
        strategies: ``gold`` gives the generator the gold strategy, to be measured alone; null lets the planner choose.
        past_strategies: what the history shows; null is what the supporter saw in training.
        calibration: name of a calibrate stage, whose calibration the planner's scores get.
        planning, wording: how strategy and text are chosen.
        casting: of a supporter with roles: how roles and experiences are chosen, where that differs from
            its own way.
    """

    stage: Literal["predict"]
    supporter: str
    strategies: Literal["gold"] | None = None
    past_strategies: PastStrategies | None = None
    calibration: str | None = None
    planning: Decoding = Decoding(greedy=True)
    wording: Decoding = Decoding()
    casting: CastingOptions | None = None

    later: ClassVar[frozenset[str]] = PredictionsStage.later | {"casting"}
    reads: ClassVar[dict[str, tuple[str, ...]]] = {
        **PredictionsStage.reads,
        "supporter": ("supporter",),
        "calibration": ("calibration",),
    }

    @model_validator(mode="after")
    def _plans_or_is_told(self) -> Self:
        if self.strategies and (self.calibration or self.planning != Decoding(greedy=True)):
            raise ValueError("strategies: gold plans nothing: leave out calibration and planning")
        if self.strategies and self.past_strategies == "predicted":
            raise ValueError("strategies: gold predicts none that the history could show: set past_strategies to gold")
        return self

    def check_recipe(self, recipe: "Recipe") -> None:
        supporter = supporter_of(recipe, self.supporter)
        mode = self.past_strategies or supporter.shown(recipe)
        if self.casting and not supporter.roles:
            raise ValueError(f"stage {self.name!r} has a casting, and {self.supporter!r} has no roles: leave it out")
        supporter.check_shown(recipe, mode, f"stage {self.name!r}")
        if self.calibration is None:
            return
        fitted = recipe.named(self.calibration)
        assert isinstance(fitted, CalibrateStage)
        if supporter_of(recipe, fitted.supporter).planned_by() != supporter.planned_by():
            raise ValueError(
                f"stage {self.name!r} predicts with {self.supporter!r}, and its calibration {fitted.name!r} is fitted "
                f"to the planner of {fitted.supporter!r}: fit one to its own, or leave out calibration"
            )
        if fitted.shown(recipe) != mode:
            raise ValueError(
                f"stage {self.name!r} shows past strategies {mode}, and its calibration {fitted.name!r} is fitted "
                f"with {fitted.shown(recipe)}: give both the same past_strategies, or leave out calibration"
            )

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        super().check_before(recipe, corpus)
        split = self.split_in(corpus)
        supporter_of(recipe, self.supporter).check_casting(recipe, corpus, self.casting, self.name)
        recipe.refuse_seen(self, f"predicts {split}", split, corpus)

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Predict; rows of a stopped stage are continued after the last whole conversation."""
        conversations = self.dialogues(run)
        self._predict(run, conversations)
        rows = self.write_trees(run)
        run.count(self, "replies cut at max_new_tokens", sum(row.finish == "length" for row in rows))
        for state in ("unparsed", "refused", "failed"):  # of a model behind a URL
            run.count(self, f"turns {state}", sum(row.extra.get("state") == state for row in rows))
        return {"split": self.split_in(run.corpus), "turns": len(rows), "dialogues": len(conversations)}

    def _predict(self, run: "RunFolder", conversations: list[Conversation]) -> None:
        """Ask the supporter."""
        from esckit.supporters import Supporter, predict

        calibration = self._calibration(run)
        with ExitStack() as opened:
            ledger = None
            named = supporter_of(run.recipe, self.supporter)
            asks = (self.casting or named.casting or CastingOptions()).scorer
            if asks or (named.model or "").startswith(REMOTE):
                ledger = opened.enter_context(Ledger(run.folder / LEDGER))
                ledger.forget_failed()
            supporter = Supporter.load(run.folder / self.supporter, ledger)
            if self.casting:
                supporter = supporter.recast(**self.casting.model_dump(exclude_unset=True))
            predict(
                supporter.calibrated(calibration) if calibration else supporter,
                conversations,
                run.folder / self.name / PREDICTIONS,
                seed=run.seed(self),
                planning=self.planning,
                wording=self.wording,
                past=self.past_strategies,
                given_gold=self.strategies == "gold",
                title=self.name,
            )

    def _calibration(self, run: "RunFolder") -> "Calibration | None":
        from esckit.planning.calibration import Calibration

        if self.calibration is None:
            return None
        return Calibration.from_json(json.loads((run.folder / self.calibration / FILE).read_text(encoding="utf-8")))
