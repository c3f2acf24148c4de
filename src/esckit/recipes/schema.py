"""What a recipe may say. Every key is checked before anything runs; docs/recipes.md lists them all."""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from esckit.judging.opening import AnnotatorOptions
from esckit.mining.options import MiningOptions
from esckit.mining.pairs import PairKind
from esckit.rendering import Layout
from esckit.training.options import LoraOptions, PlannerOptions, PreferenceOptions, TrainingOptions

__all__ = ["FORMAT", "Recipe", "Stage", "input_names", "tag_of"]

FORMAT = 1
Split = Literal["train", "valid", "test"]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CorpusConfig(_Config):
    """Which dialogues: a shipped corpus, a file a part, or one file and a split (`corpora.load_corpus`)."""

    name: str = "starter"
    train: str | None = None
    valid: str | None = None
    test: str | None = None
    file: str | None = None
    split: str | None = None


class ModelConfig(_Config):
    """Which backbone.

    Attributes:
        path: a folder or a Hub id of a causal language model; null makes a pocket backbone.
        pocket: size of the pocket backbone.
        vocabulary: most tokens of the pocket backbone's tokenizer.
        max_context: most tokens of a path; null takes the model's own limit.
        layout: what each part reads and says (`rendering.layouts`).
        quantisation: ``4bit`` loads the backbone's linear layers in four bits, under adapters in full precision; needs
            bitsandbytes and a CUDA device.
    """

    path: str | None = None
    pocket: Literal["2m", "10m"] = "2m"
    vocabulary: int = Field(2048, ge=300)
    max_context: int | None = Field(None, ge=256)
    layout: Layout = "shared-prefix"
    quantisation: Literal["4bit"] | None = None

    @model_validator(mode="after")
    def _quantises_what_is_there(self) -> Self:
        if self.quantisation and not self.path:
            raise ValueError("quantisation is for a backbone that is there: set model.path")
        return self


class DecodingConfig(_Config):
    """How a strategy or a text is chosen (`models.backbone.Decoding`)."""

    greedy: bool = False
    temperature: float = Field(0.7, gt=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_new_tokens: int = Field(128, ge=1)


class PretrainStage(TrainingOptions):
    """Trains every weight of a new pocket backbone on both speakers' texts; skipped where model.path is given.

    Supporter turns show their strategy by default: a pretrained backbone would know the words of the labels, and LoRA
    cannot teach them to a model that has never seen them.
    """

    stage: Literal["pretrain"]
    name: str
    past_strategies: Literal["gold", "hidden"] = "gold"


class SftStage(TrainingOptions):
    """Supervised fine-tuning of one part, by LoRA, on the trunk's supporter turns.

    Attributes:
        part: which.
        past_strategies: what the history shows.
        lora: of the adapter.
        label_weight: of a strategy's tokens in the coupled part's loss, where a text's tokens weigh 1.
    """

    stage: Literal["sft"]
    name: str
    part: Literal["planner", "generator", "coupled"]
    past_strategies: Literal["gold", "hidden"]
    lora: LoraOptions = LoraOptions()
    label_weight: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _label_weight_fits(self) -> Self:
        if self.label_weight != 1 and self.part != "coupled":
            raise ValueError("label_weight is for the coupled part, which alone learns labels and texts together")
        return self


class MineStage(MiningOptions):
    """Mines preferences on the training part's trees with a trained part, named by its sft or preference stage.

    Attributes:
        wording: rule ``judged``, planner: the generator's stage that words what it chose, so that it can be judged.
    """

    stage: Literal["mine"]
    name: str
    model: str
    wording: str | None = None


class PreferenceStage(TrainingOptions, PreferenceOptions):
    """Aligns a part on mined preferences, starting from an sft (or an earlier preference) stage, which it refers to.

    Attributes:
        start: name of the stage whose adapter is aligned and is the reference.
        pairs: name of the mine stage.
        kinds: of the coupled part's pairs, the kinds that are trained on (`mining.pairs.kind_of`); null is all.
        drop_faulty: leave out pairs that the linter finds faulty or twice, instead of refusing them.
        length_matched: train on the largest subset whose lengths do not tell chosen from rejected.
        lora: of the fresh adapter where the reference is ``merged``.
    """

    stage: Literal["preference"]
    name: str
    start: str
    pairs: str
    epochs: int = Field(1, ge=1)
    kinds: list[PairKind] | None = Field(None, min_length=1)
    drop_faulty: bool = False
    length_matched: bool = False
    lora: LoraOptions = LoraOptions()


class PlannerStage(PlannerOptions):
    """Trains an encoder planner, which needs no backbone.

    Attributes:
        encoder: ``embedded``, a folder, or a Hub id.
        with_valid: train on the validation part too, where there is a test part to predict.
    """

    stage: Literal["planner"]
    name: str
    encoder: str = "embedded"
    with_valid: bool = False


class RepliesStage(_Config):
    """Stores the training part's supporter replies that a program may say again, by strategy and context.

    Attributes:
        encoder: ``embedded``, a folder, or a Hub id.
    """

    stage: Literal["replies"]
    name: str
    encoder: str = "embedded"


class SupporterStage(_Config):
    """Puts parts together: ``coupled``, or ``planner`` and ``generator``, or a ``planner`` alone, which only plans.

    Language-model parts are named by their sft or preference stages; a planner may also be a planner stage, a generator
    also a replies stage.

    Attributes:
        calibrated: an encoder planner's scores with its calibration, or as they are.
        past_strategies: what an encoder planner sees unless a predict stage says otherwise.
    """

    stage: Literal["supporter"]
    name: str
    coupled: str | None = None
    planner: str | None = None
    generator: str | None = None
    calibrated: bool = True
    past_strategies: Literal["gold", "hidden"] = "gold"

    @property
    def parts(self) -> dict[str, str]:
        """Stage name of each part."""
        named = {"coupled": self.coupled, "planner": self.planner, "generator": self.generator}
        return {part: stage for part, stage in named.items() if stage}

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if set(self.parts) not in ({"coupled"}, {"planner", "generator"}, {"planner"}):
            raise ValueError("needs either coupled, or planner and generator, or a planner alone")
        return self


class CalibrateStage(_Config):
    """Fits a temperature and class offsets to a supporter's planner, against preference bias.

    Attributes:
        supporter: name of a supporter stage.
        split: the part that it is fitted on; no predict stage may use it on the same part.
        past_strategies: what the history shows; null is what the supporter saw in training.
    """

    stage: Literal["calibrate"]
    name: str
    supporter: str
    split: Literal["valid", "test"] = "valid"
    past_strategies: Literal["gold", "hidden"] | None = None


class PredictStage(_Config):
    """Predicts a split with a supporter.

    Attributes:
        supporter: name of a supporter stage.
        split: null is test where the corpus has one, else valid.
        past_strategies: what the history shows; null is what the supporter saw in training.
        calibration: name of a calibrate stage, whose calibration the planner's scores get.
        planning, wording: how strategy and text are chosen.
    """

    stage: Literal["predict"]
    name: str
    supporter: str
    split: Split | None = None
    past_strategies: Literal["gold", "predicted", "hidden"] | None = None
    calibration: str | None = None
    planning: DecodingConfig = DecodingConfig(greedy=True)
    wording: DecodingConfig = DecodingConfig()


class EvaluateStage(_Config):
    """Measures the predictions of predict stages, all of one split, and tests each pair of them."""

    stage: Literal["evaluate"]
    name: str
    predictions: list[str] = Field(min_length=1)
    resamples: int = Field(1000, ge=100)


class ReportStage(_Config):
    """Writes report.html from the run's folder."""

    stage: Literal["report"]
    name: str


Stage = (
    PretrainStage
    | SftStage
    | MineStage
    | PreferenceStage
    | PlannerStage
    | RepliesStage
    | CalibrateStage
    | SupporterStage
    | PredictStage
    | EvaluateStage
    | ReportStage
)


class Recipe(_Config):
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
        return any(isinstance(stage, SftStage) for stage in self.stages)

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
        case EvaluateStage():
            return [(name, PredictStage) for name in stage.predictions]
        case _:
            return []


def input_names(stage: Stage) -> list[str]:
    """Names of the stages that a stage reads."""
    return [name for name, *_ in _inputs(stage)]


def tag_of(kind: type[BaseModel]) -> str:
    """A stage's name in recipes, from its class."""
    return str(get_args(kind.model_fields["stage"].annotation)[0])
