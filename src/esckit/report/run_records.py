"""The files of a run's folder that hold no figures, as far as the report reads them; other fields pass unread."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = [
    "Alignment",
    "CorpusPart",
    "CorpusRecord",
    "Event",
    "GateRecord",
    "KeepRecord",
    "MinedPairs",
    "PartFigures",
    "Point",
    "RecipeRecord",
    "RefinementRecord",
    "SearchFigures",
    "SearchRecord",
    "StageConfig",
    "StageRecord",
]


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
    model: str | None = None
    start: str | None = None
    pairs: str | bool | None = None  # a stage's name; of a judge stage, whether it compares
    trees: str | int | None = None  # a stage's name; of a planner stage, how many its forest has

    @field_validator("supporter", mode="before")
    @classmethod
    def _a_role_is_no_stage(cls, given: Any) -> Any:
        """Of a search stage it is who plays the supporter, and names no stage."""
        return None if isinstance(given, dict) else given


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
    topics: dict[str, int] = {}
    roles: dict[str, int] = {}


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


class Sides(_Record):
    """Counts of chosen and rejected sides."""

    chosen: int
    rejected: int


class MeanCharacters(_Record):
    """Of chosen and rejected replies; None where no pair has any."""

    chosen: float | None
    rejected: float | None


class MinedPairs(_Record):
    """pairs.json of a mine stage (`mining.pairs.pair_statistics`)."""

    pairs: int
    kinds: dict[str, int]
    reasons: dict[str, int]
    strategies: dict[str, Sides]
    mean_characters: MeanCharacters


class PartFigures(_Record):
    """How many turns of a search play a part, and how long they are."""

    turns: int
    mean_words: float | None
    mean_characters: float | None


class SeedAndKept(_Record):
    """A figure of the seed dialogues and of the kept ones."""

    seed: float | None
    kept: float | None


class SearchFigures(_Record):
    """What a search kept (`mining.tree_search.statistics`); shares 0..1."""

    dialogues: SeedAndKept
    mean_utterances: SeedAndKept
    turns: dict[str, PartFigures]
    strategies: dict[str, list[dict[str, float]]]
    longer_wins: float | None
    human_pairs: int
    human_wins: float | None
    once: float | None


class Checked(_Record):
    """How many of some pairs keep their sign when another judge, or the same, judges them again."""

    judge: str
    pairs: int
    kept_sign: float | None
    interval: tuple[float, float] | None


class SearchRecord(_Record):
    """search.json of a search stage; docs/mining.md says what its fields are."""

    method: str
    mode: str
    theta: float | None
    range: tuple[float, float]
    roles: dict[str, str]
    seeds: int
    iterations: int
    ends: int
    pairs: int
    calls: dict[str, int]
    calls_per_pair: float | None
    unanswered: dict[str, int]
    stopped: dict[str, int]
    checked: Checked | None
    statistics: SearchFigures
    embedded_reward: bool


class Words(_Record):
    """Mean words of both sides of pairs, and the share (0..1) of pairs whose chosen side is longer."""

    chosen: float
    rejected: float
    longer_chosen: float


class PairRelevance(_Record):
    """Mean cosines of both sides with the seeker's words, and with each other (`mining.relevance`)."""

    chosen: float
    rejected: float
    likeness: float
    chosen_interval: tuple[float, float] | None = None
    rejected_interval: tuple[float, float] | None = None
    likeness_interval: tuple[float, float] | None = None


class GateRecord(_Record):
    """What the gates of one group of experts learned (`report.empath.Gate`), in the fact ``gates`` of a stage."""

    entropy_bits: dict[str, float]
    use: list[float]


class RefinementRecord(_Record):
    """refinement.json of a refine stage; docs/mining.md says what its fields are."""

    refined_by: str
    refiner: str
    mode: str
    round: int
    drafted_by: str
    rejected_from: str
    dialogues: int
    contexts: int
    filters: dict[str, int]
    replaced: dict[str, int]
    pairs: int
    scores: dict[str, int]
    calls: dict[str, int]
    tokens: dict[str, int]
    words: Words | None = None
    relevance: PairRelevance | None = None


class KeepRecord(_Record):
    """keep.json of a keep stage: the candidate against the policy before it; a difference above 0 is better."""

    candidate: str
    before: str
    measure: str
    bar: str
    dialogues: int
    contexts: int
    values: dict[str, float] | None = None
    difference: float
    interval: tuple[float, float]
    better: bool
    stopped: bool
    kept: str
