"""The files of a run's folder, as far as the report reads them; every other field passes by unread."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Bin",
    "Calibration",
    "CorpusPart",
    "CorpusRecord",
    "Difference",
    "Evaluation",
    "Event",
    "Figures",
    "MinedPairs",
    "Opening",
    "PerStrategy",
    "Point",
    "RecipeRecord",
    "StageConfig",
    "StageRecord",
    "StageShares",
    "StrategyFigures",
    "TextFigures",
]

Interval = tuple[float, float]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class StageConfig(_Record):
    """One stage of the recipe."""

    stage: str
    name: str
    part: str | None = None
    supporter: str | None = None
    coupled: str | None = None
    planner: str | None = None
    generator: str | None = None


class ModelConfig(_Record):
    """The recipe's model."""

    path: str | None = None
    pocket: str | None = None
    layout: str = "shared-prefix"


class RecipeRecord(_Record):
    """recipe.json."""

    title: str = ""
    seed: int = 0
    model: ModelConfig = ModelConfig()
    stages: list[StageConfig]


class StageRecord(_Record):
    """stages/<name>.json: what a stage did."""

    name: str
    stage: str
    state: str
    seconds: float = 0
    facts: dict[str, Any] = {}


class Event(_Record):
    """A line of events.jsonl: something cut, dropped, skipped or unparsed."""

    stage: str
    event: str
    count: int


class CorpusPart(_Record):
    """`corpora.corpus_statistics` of one part."""

    dialogues: int
    utterances: int
    seeker_utterances: int
    supporter_utterances: int
    supporter_utterances_without_strategy: int
    dialogues_opened_by_supporter: int
    mean_utterances_per_dialogue: float | None
    mean_words_per_seeker_utterance: float | None
    mean_words_per_supporter_utterance: float | None
    strategy_counts: dict[str, int]
    strategy_shares: dict[str, float]
    strategy_by_stage: list[dict[str, float]]
    emotion_types: dict[str, int]
    problem_types: dict[str, int]


class CorpusRecord(_Record):
    """corpus.json."""

    name: str
    licence: str
    source: str
    hash: str
    parts: Annotated[dict[str, CorpusPart], Field(min_length=1)]


class Point(_Record):
    """A line of curve.jsonl: a training loss, a validation loss, or both; of preference stages margin and accuracy."""

    step: float
    epoch: float
    loss: float | None = None
    valid_loss: float | None = None
    margin: float | None = None
    accuracy: float | None = None


class Alignment(_Record):
    """What a preference stage says of itself (`recipes.stages.preference`); shares 0..1, divergences in nats."""

    pairs: int
    duplicates: int
    longer_chosen: int
    length_ratio: float
    choices_changed: float | None = None
    choice_kl: float | None = None
    tokens_changed: float | None = None
    token_kl: float | None = None


class PerStrategy(_Record):
    """One strategy's figures."""

    strategy: str
    gold: int
    predicted: int
    precision: float
    recall: float
    f1: float
    p: float | None


class Sides(_Record):
    """Counts of chosen and rejected sides."""

    chosen: int
    rejected: int


class MeanCharacters(_Record):
    """Of chosen and rejected replies; None where no pair has any."""

    chosen: float | None
    rejected: float | None


class MinedPairs(_Record):
    """pairs.json of a mine stage (`mining.pair_statistics`)."""

    pairs: int
    kinds: dict[str, int]
    reasons: dict[str, int]
    strategies: dict[str, Sides]
    mean_characters: MeanCharacters


class SubsetStrategy(_Record):
    """One strategy in a subset of turns."""

    strategy: str
    gold: int
    predicted: int
    p: float | None


class Subset(_Record):
    """A random subset of turns (`measures.subsets`)."""

    n: int
    b: float
    per_strategy: list[SubsetStrategy]


class Bin(_Record):
    """A point of the reliability diagram."""

    n: int
    confidence: float
    accuracy: float


class Calibration(_Record):
    """How far the planner's probabilities can be believed."""

    n: int
    ece: float
    nll: float
    top3_accuracy: float
    bins: list[Bin]


class StageShares(_Record):
    """Shares of the strategies in one of six stages of the dialogues."""

    gold: dict[str, float]
    predicted: dict[str, float]


class StrategyFigures(_Record):
    """The strategy part of `measures.evaluate`."""

    q: float
    q_interval: Interval
    q_w: float
    q_w_interval: Interval
    accuracy: float
    accuracy_interval: Interval
    parse_rate: float
    b: float | None
    b_interval: Interval | None
    b_floor: float | None
    b_debiased: float | None
    b_marks: list[str]
    per_strategy: list[PerStrategy]
    subsets: list[Subset] | None = None
    stages: list[StageShares] | None
    calibration: Calibration | None


class Finish(_Record):
    """How many responses ended by themselves, and how many at the length limit."""

    stop: int
    length: int


class Opening(_Record):
    """Four tokens with which responses begin."""

    opening: str
    count: int
    share: float


class TextFigures(_Record):
    """The text part of `measures.evaluate`."""

    tokenizer: str
    bleu1_utterance: float
    bleu2_utterance: float
    f1_utterance: float
    rouge_l_utterance: float
    meteor_utterance: float | None = None
    distinct1_utterance: float
    bleu1_utterance_interval: Interval
    bleu2_utterance_interval: Interval
    f1_utterance_interval: Interval
    rouge_l_utterance_interval: Interval
    meteor_utterance_interval: Interval | None = None
    distinct1_utterance_interval: Interval
    distinct1_corpus: float
    distinct2_corpus: float
    mean_tokens: float
    over_40_words_share: float
    over_2_sentences_share: float
    openings: list[Opening]
    finish: Finish


class Figures(_Record):
    """What `measures.evaluate` says of one predictions file."""

    n: int
    dialogues: int
    past_strategies: str | None
    strategy: StrategyFigures | None
    text: TextFigures | None
    warnings: list[str]
    resamples: int
    unparsed: str


class Difference(_Record):
    """One test of `measures.compare`: figure of stage a minus that of stage b."""

    a: str
    b: str
    metric: str
    turns: int
    dialogues: int
    difference: float
    interval: Interval
    p: float
    p_holm: float
    permutations: int


class Evaluation(_Record):
    """evaluation.json: what `measures.compare` returns for the predict stages of one evaluate stage."""

    files: dict[str, Figures]
    comparisons: list[Difference]
