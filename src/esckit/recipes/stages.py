"""The parts of a recipe: its corpus, its model, and each kind of stage with its keys (docs/recipes.md lists them)."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from esckit.judging.plan import JudgingOptions
from esckit.mining.mining_options import MiningOptions
from esckit.mining.pairs import PairKind
from esckit.planning.planner_options import PlannerOptions
from esckit.rendering import Layout
from esckit.supporters.baselines import BaselineOptions
from esckit.training.training_options import LoraOptions, PreferenceOptions, TrainingOptions

__all__ = [
    "BaselineStage",
    "CalibrateStage",
    "Config",
    "CorpusConfig",
    "DecodingConfig",
    "EvaluateStage",
    "JudgeStage",
    "MineStage",
    "ModelConfig",
    "PlannerStage",
    "PredictStage",
    "PreferenceStage",
    "PretrainStage",
    "RepliesStage",
    "ReportStage",
    "SftStage",
    "Split",
    "Stage",
    "SupporterStage",
]

Split = Literal["train", "valid", "test"]


class Config(BaseModel):
    """Nothing but its keys, and nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CorpusConfig(Config):
    """Which dialogues: a shipped corpus, a file a part, or one file and a split (`corpora.load_corpus`)."""

    name: str = "starter"
    train: str | None = None
    valid: str | None = None
    test: str | None = None
    file: str | None = None
    split: str | None = None


class ModelConfig(Config):
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


class DecodingConfig(Config):
    """How a strategy or a text is chosen (`language_models.backbone.Decoding`)."""

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
    kinds: list[PairKind] | None = Field(None, min_length=1)
    epochs: int = Field(1, ge=1)
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


class RepliesStage(Config):
    """Stores the training part's supporter replies that a program may say again, by strategy and context.

    Attributes:
        encoder: ``embedded``, a folder, or a Hub id.
    """

    stage: Literal["replies"]
    name: str
    encoder: str = "embedded"


class SupporterStage(Config):
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


class CalibrateStage(Config):
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


class PredictStage(Config):
    """Predicts a split with a supporter.

    Attributes:
        supporter: name of a supporter stage.
        split: null is test where the corpus has one, else valid.
        strategies: ``gold`` gives the generator the gold strategy, to be measured alone; null lets the planner choose.
        past_strategies: what the history shows; null is what the supporter saw in training.
        calibration: name of a calibrate stage, whose calibration the planner's scores get.
        planning, wording: how strategy and text are chosen.
    """

    stage: Literal["predict"]
    name: str
    supporter: str
    split: Split | None = None
    strategies: Literal["gold"] | None = None
    past_strategies: Literal["gold", "predicted", "hidden"] | None = None
    calibration: str | None = None
    planning: DecodingConfig = DecodingConfig(greedy=True)
    wording: DecodingConfig = DecodingConfig()

    @model_validator(mode="after")
    def _plans_or_is_told(self) -> Self:
        if self.strategies and (self.calibration or self.planning != DecodingConfig(greedy=True)):
            raise ValueError("strategies: gold plans nothing: leave out calibration and planning")
        return self


class BaselineStage(BaselineOptions):
    """Predicts a split by prompting a chat model, by default the run's backbone (`BaselineOptions`).

    Attributes:
        split: null is test where the corpus has one, else valid.
    """

    stage: Literal["baseline"]
    name: str
    split: Split | None = None


class EvaluateStage(Config):
    """Measures the predictions of predict and baseline stages, all of one split, and tests each pair of them."""

    stage: Literal["evaluate"]
    name: str
    predictions: list[str] = Field(min_length=1)
    resamples: int = Field(1000, ge=100)


class JudgeStage(JudgingOptions):
    """Lets a language model score what predict and baseline stages predicted, all of one split (`JudgingOptions`)."""

    stage: Literal["judge"]
    name: str
    predictions: list[str] = Field(min_length=1)


class ReportStage(Config):
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
    | BaselineStage
    | EvaluateStage
    | JudgeStage
    | ReportStage
)
