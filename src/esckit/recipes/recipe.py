"""What a recipe may say. Every key is checked before anything runs; docs/recipes.md lists them all."""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, Field, model_validator

from esckit.judging.open_annotator import AnnotatorOptions
from esckit.recipes.stages import (
    BaselineStage,
    CalibrateStage,
    Config,
    CorpusConfig,
    EvaluateStage,
    JudgeStage,
    MineStage,
    ModelConfig,
    PlannerStage,
    PredictStage,
    PreferenceStage,
    RepliesStage,
    SftStage,
    Stage,
    SupporterStage,
)

__all__ = ["FORMAT", "Recipe", "input_names", "tag_of"]

FORMAT = 1


class Recipe(Config):
    """One experiment: stages in order, each reading what earlier ones made."""

    format: Literal[1]
    title: str = ""
    seed: int = 0
    corpus: CorpusConfig = CorpusConfig()
    model: ModelConfig = ModelConfig()
    annotator: AnnotatorOptions = AnnotatorOptions()
    stages: list[Annotated[Stage, Field(discriminator="stage")]] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        seen: dict[str, Stage] = {}
        for stage in self.stages:
            if stage.name in seen or stage.name in Recipe.model_fields or not stage.name.replace("-", "").isalnum():
                raise ValueError(f"stage name {stage.name!r} is taken or not made of letters, digits and hyphens")
            for wanted, *kinds in _inputs(stage):
                if not isinstance(seen.get(wanted), tuple(kinds)):
                    tags = " or ".join(map(tag_of, kinds))
                    raise ValueError(f"stage {stage.name!r} needs an earlier {tags} stage named {wanted!r}")
            seen[stage.name] = stage
            self._check_parts(stage)
        if "annotator" in self.model_fields_set and not self.judged:
            raise ValueError("annotator is for mine stages with the rule judged, and there is none")
        return self

    def named(self, name: str) -> Stage:
        """The stage of this name."""
        return next(stage for stage in self.stages if stage.name == name)

    def sft_of(self, name: str) -> SftStage:
        """The sft stage at the root of a trained part: what it is, and which past strategies it sees."""
        stage = self.named(name)
        while isinstance(stage, PreferenceStage):
            stage = self.named(stage.start)
        assert isinstance(stage, SftStage)
        return stage

    def adapters_of(self, stage: SupporterStage) -> dict[str, str]:
        """Stage name of each part that is an adapter on the backbone."""
        own = (PlannerStage, RepliesStage)
        return {part: name for part, name in stage.parts.items() if not isinstance(self.named(name), own)}

    @property
    def needs_backbone(self) -> bool:
        """True where a stage trains or asks a language model."""
        return any(
            isinstance(stage, SftStage) or (isinstance(stage, BaselineStage) and stage.model is None)
            for stage in self.stages
        )

    @property
    def judged(self) -> list[MineStage]:
        """The mine stages whose pairs an annotator judges."""
        return [stage for stage in self.stages if isinstance(stage, MineStage) and stage.rule == "judged"]

    def _check_parts(self, stage: Stage) -> None:
        """Parts are of their kind, a supporter's saw the same past strategies, pairs are of the part they train."""
        if isinstance(stage, MineStage):
            self._check_mining(stage)
        if isinstance(stage, PreferenceStage):
            if self.model.quantisation and stage.reference == "merged":
                raise ValueError(f"stage {stage.name!r} cannot merge into 4-bit weights: set reference to frozen")
            mined = self.named(stage.pairs)
            assert isinstance(mined, MineStage)
            if self.sft_of(mined.model).part != self.sft_of(stage.start).part:
                raise ValueError(f"stage {stage.name!r} aligns a part on pairs that were mined for another part")
            if stage.kinds and self.sft_of(stage.start).part != "coupled":
                raise ValueError(f"stage {stage.name!r} chooses kinds of pairs, which only a coupled part's differ in")
        if isinstance(stage, SupporterStage):
            trained = {part: self.sft_of(name) for part, name in self.adapters_of(stage).items()}
            if any(sft.part != part for part, sft in trained.items()):
                raise ValueError(f"stage {stage.name!r} takes a part from a stage that trained another part")
            if len({sft.past_strategies for sft in trained.values()}) > 1:
                raise ValueError(f"the parts of {stage.name!r} must be trained with the same past_strategies")

    def _check_mining(self, stage: MineStage) -> None:
        """No option would go unheard."""
        if stage.folds > 1 and not isinstance(self.named(stage.model), SftStage):
            raise ValueError(f"stage {stage.name!r} mines in folds, which needs an sft stage as its model")
        if stage.folds > 1 and stage.rule == "random":
            raise ValueError(f"stage {stage.name!r} mines at random, which asks no model: leave out folds")
        if stage.top_k and (stage.rule == "random" or self.sft_of(stage.model).part == "generator"):
            raise ValueError(f"stage {stage.name!r} chooses no strategy by its probability: leave out top_k")
        if stage.rule != "judged" and "clean_chosen" in stage.model_fields_set:
            raise ValueError(f"stage {stage.name!r} asks no annotator: leave out clean_chosen, or set rule to judged")
        self._check_wording(stage)

    def _check_wording(self, stage: MineStage) -> None:
        """A planner's strategies are judged by the replies that follow them; nobody else's need wording."""
        wanted = stage.rule == "judged" and self.sft_of(stage.model).part == "planner"
        if wanted and stage.wording is None:
            raise ValueError(
                f"stage {stage.name!r} judges a planner by the replies that follow its strategies: "
                "set wording to a stage of the generator"
            )
        if stage.wording is None:
            return
        if not wanted:
            raise ValueError(f"stage {stage.name!r} needs no wording, which is for judged pairs of the planner")
        if self.sft_of(stage.wording).part != "generator":
            raise ValueError(f"stage {stage.name!r} needs a stage of the generator as wording")
        if self.sft_of(stage.wording).past_strategies != self.sft_of(stage.model).past_strategies:
            raise ValueError(
                f"the model and the wording of {stage.name!r} must be trained with the same past_strategies"
            )


def _inputs(stage: Stage) -> list[tuple[Any, ...]]:
    """Names of the stages that a stage reads, each with the kinds it may be."""
    match stage:
        case MineStage():
            named = [stage.model, *([stage.wording] if stage.wording else [])]
            return [(name, SftStage, PreferenceStage) for name in named]
        case PreferenceStage():
            return [(stage.start, SftStage, PreferenceStage), (stage.pairs, MineStage)]
        case SupporterStage():
            own = {"planner": (PlannerStage,), "generator": (RepliesStage,), "coupled": ()}
            return [(name, SftStage, PreferenceStage, *own[part]) for part, name in stage.parts.items()]
        case CalibrateStage():
            return [(stage.supporter, SupporterStage)]
        case PredictStage():
            calibration = [(stage.calibration, CalibrateStage)] if stage.calibration else []
            return [(stage.supporter, SupporterStage), *calibration]
        case EvaluateStage() | JudgeStage():
            return [(name, PredictStage, BaselineStage) for name in stage.predictions]
        case _:
            return []


def input_names(stage: Stage) -> list[str]:
    """Names of the stages that a stage reads."""
    return [name for name, *_ in _inputs(stage)]


def tag_of(kind: type[BaseModel]) -> str:
    """A stage's name in recipes, from its class."""
    return str(get_args(kind.model_fields["stage"].annotation)[0])
