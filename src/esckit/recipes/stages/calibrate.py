"""Stage ``calibrate``: temperature and class offsets for any planner, against preference bias."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from esckit.errors import CorpusError
from esckit.files import write_json
from esckit.progress import progress
from esckit.recipes.stage import Split, Stage
from esckit.recipes.stages.supporter import supporter_of
from esckit.rendering import past_strategies, supporter_turns

if TYPE_CHECKING:
    from esckit.corpora import Corpus
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe

FILE = "calibration.json"
"""In the stage's folder: `planning.calibration.Calibration`."""


class CalibrateStage(Stage):
    """Fits a temperature and class offsets to a supporter's planner on a part that it was not trained on.

    Attributes:
        supporter: name of a supporter stage.
        split: the part that it is fitted on; no predict stage may use it on the same part.
        past_strategies: what the history shows; null is what the supporter saw in training.
    """

    stage: Literal["calibrate"]
    supporter: str
    split: Literal["valid", "test"] = "valid"
    past_strategies: Literal["gold", "hidden"] | None = None

    makes: ClassVar[str] = "calibration"
    reads: ClassVar[dict[str, tuple[str, ...]]] = {"supporter": ("supporter",)}

    def shown(self, recipe: "Recipe") -> Literal["gold", "hidden"]:
        """The past strategies that it is fitted with."""
        return self.past_strategies or supporter_of(recipe, self.supporter).shown(recipe)

    def check_recipe(self, recipe: "Recipe") -> None:
        supporter_of(recipe, self.supporter).check_shown(recipe, self.shown(recipe), f"stage {self.name!r}")

    def fitted_to(self, corpus: "Corpus") -> tuple[Split, ...]:
        return (self.split,)

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        recipe.refuse_seen(self, f"fits to {self.split}", self.split, corpus)
        if not getattr(corpus, self.split):
            raise CorpusError(f"stage {self.name!r} needs the part {self.split}: give corpus.{self.split}=FILE.")

    def work(self, run: "RunFolder") -> dict[str, Any]:
        import numpy as np

        from esckit.planning.calibration import fit_calibration
        from esckit.supporters import Supporter

        conversations = [c for c in getattr(run.corpus, self.split) if supporter_turns(c)]
        supporter = Supporter.load(run.folder / self.supporter)
        with progress(self.name, len(conversations)) as bar:
            scores, gold = [], []
            for conversation in conversations:
                turns = supporter_turns(conversation)
                shown = past_strategies(conversation, self.shown(run.recipe))
                scores.append(supporter.score(conversation, turns, shown))
                gold += [supporter.taxonomy.labels.index(str(turn.strategy)) for turn in turns]
                bar.advance()
        fitted = fit_calibration(np.concatenate(scores), np.array(gold))
        write_json(run.folder / self.name / FILE, fitted.to_json())
        return {"turns": len(gold), "temperature": round(fitted.temperature, 4)}
