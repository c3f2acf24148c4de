"""Before a recipe's first stage: its corpus is loaded, and what would fail after hours is refused."""

from esckit.corpora import Corpus, load_corpus
from esckit.errors import CorpusError, RunError
from esckit.judging.judge_run import check_options
from esckit.judging.open_annotator import check_annotator
from esckit.language_models.backbone import check_reachable, check_source
from esckit.planning.encoder import check_encoder
from esckit.recipes.recipe import Recipe
from esckit.recipes.stages import (
    BaselineStage,
    CalibrateStage,
    EvaluateStage,
    JudgeStage,
    PlannerStage,
    PredictStage,
    PretrainStage,
    RepliesStage,
)
from esckit.rendering import supporter_turns

__all__ = ["load_checked", "load_dialogues", "split_of"]


def load_checked(recipe: Recipe) -> Corpus:
    """Load the corpus, and refuse before anything is written what would fail after hours."""
    if recipe.model.path:
        check_source(recipe.model.path)
        check_reachable(recipe.model.path)
    return load_dialogues(recipe)


def load_dialogues(recipe: Recipe) -> Corpus:
    """Load the corpus, and check that every stage finds its part of it and a backbone.

    Raises:
        RunError: the recipe has no backbone, or stages that do not fit the corpus.
        CorpusError: the corpus cannot be read, or lacks what a stage needs.
    """
    if recipe.needs_backbone and not recipe.model.path and not _pretrains(recipe):
        raise RunError("the recipe has no backbone: add a pretrain stage, or set model.path to a causal LM.")
    for stage in recipe.stages:
        if isinstance(stage, RepliesStage) or (isinstance(stage, PlannerStage) and stage.model == "encoder"):
            check_encoder(stage.encoder)
    corpus = load_corpus(**recipe.corpus.model_dump(), seed=recipe.seed)
    if recipe.judged:
        check_annotator(recipe.annotator, corpus.train)
    if not any(supporter_turns(conversation) for conversation in corpus.train):
        raise CorpusError(
            f"the training part of {corpus.source} has no supporter turn with a strategy: nothing can be trained on it."
        )
    for stage in recipe.stages:
        if isinstance(stage, PredictStage | BaselineStage) and not getattr(corpus, split_of(stage, corpus)):
            split = split_of(stage, corpus)
            raise CorpusError(
                f"stage {stage.name!r} predicts {split}, which the corpus lacks: give corpus.{split}=FILE."
            )
        if isinstance(stage, BaselineStage):
            stage.check()
        if isinstance(stage, JudgeStage):
            check_options(stage)
        if isinstance(stage, EvaluateStage | JudgeStage):
            _check_one_split(recipe, stage, corpus)
        if isinstance(stage, PredictStage) and stage.calibration:
            _check_calibration(recipe, stage, corpus)
    return corpus


def _pretrains(recipe: Recipe) -> bool:
    return any(isinstance(stage, PretrainStage) for stage in recipe.stages)


def _check_calibration(recipe: Recipe, stage: PredictStage, corpus: Corpus) -> None:
    """Nothing is fitted to what is evaluated."""
    fitted = recipe.named(str(stage.calibration))
    assert isinstance(fitted, CalibrateStage)
    if fitted.split == split_of(stage, corpus):
        raise RunError(
            f"stage {stage.name!r} predicts {fitted.split}, which its calibration {fitted.name!r} is fitted on: "
            "predict another part (corpus.test=FILE), or leave out calibration."
        )
    if not getattr(corpus, fitted.split):
        raise CorpusError(f"stage {fitted.name!r} needs the part {fitted.split}: give corpus.{fitted.split}=FILE.")


def _check_one_split(recipe: Recipe, stage: EvaluateStage | JudgeStage, corpus: Corpus) -> None:
    """An evaluate stage tests its predictions against each other, turn by turn."""
    predicting = [
        s for s in recipe.stages if isinstance(s, PredictStage | BaselineStage) and s.name in stage.predictions
    ]
    splits = {predicted.name: split_of(predicted, corpus) for predicted in predicting}
    if len(set(splits.values())) > 1:
        told = ", ".join(f"{name}: {split}" for name, split in splits.items())
        raise RunError(
            f"stage {stage.name!r} compares predictions of different splits ({told}): give each split an evaluate "
            "stage of its own."
        )


def split_of(stage: PredictStage | BaselineStage, corpus: Corpus) -> str:
    """The split that a stage predicts: test where there is one, else valid, unless the stage names it."""
    return stage.split or ("test" if corpus.test else "valid")
