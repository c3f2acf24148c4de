"""What ``evaluate`` and ``compare`` return, declared once: from here it goes to files, tables and the report.

Fields have the names and the order of the JSON (docs/measures.md); shares and F1 are fractions 0..1, intervals are 95%.
"""

from dataclasses import dataclass, fields
from typing import Any, Final

from esckit.measures.intervals import Interval

_HEAD: Final = ("format", "taxonomy", "seed", "resamples", "unparsed")


@dataclass(frozen=True, kw_only=True)
class Result:
    """A record of figures."""

    __pydantic_config__ = {"allow_inf_nan": False}  # noqa: RUF012 - pydantic's own way to configure a dataclass

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object: the fields in order."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, Result):
        return value.to_json()
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True, kw_only=True)
class SubsetStrategy(Result):
    """How often a strategy is gold and predicted, and its preference ``p``: 1 is none; None without evidence."""

    strategy: str
    gold: int
    predicted: int
    p: float | None


@dataclass(frozen=True, kw_only=True)
class PerStrategy(Result):
    """One strategy's figures."""

    strategy: str
    gold: int
    predicted: int
    precision: float
    recall: float
    f1: float
    p: float | None


@dataclass(frozen=True, kw_only=True)
class Subset(Result):
    """A random subset of turns (`subsets`)."""

    n: int
    b: float
    per_strategy: list[SubsetStrategy]


@dataclass(frozen=True, kw_only=True)
class SixthShares(Result):
    """Shares of the strategies in a sixth of the dialogues, the stage of CSO: 0, .2, .4, .6, .8 or 1."""

    stage: float
    gold: dict[str, float]
    predicted: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin(Result):
    """The turns whose most probable label was given a probability in one of the bins."""

    n: int  # turns, at least one
    confidence: float  # mean probability of that label
    accuracy: float  # how often it is gold


@dataclass(frozen=True, kw_only=True)
class Reliability(Result):
    """How far a planner's probabilities can be believed, over the turns that have some."""

    n: int
    ece: float  # expected calibration error
    nll: float  # mean negative log-likelihood of gold, nats, from 0
    top3_accuracy: float  # gold among the three most probable
    bins: list[ReliabilityBin]  # those of the error that hold turns, in order: a reliability diagram's points


@dataclass(frozen=True, kw_only=True)
class StrategyFigures(Result):
    """Figures of the turns that have a gold strategy."""

    n: int
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
    b_compat: float | None
    b_n: int
    b_marks: list[str]
    b_never_wrongly_chosen: list[str]
    b_never_predicted: list[str]
    b_no_evidence: list[str]
    b_without_gold: list[str]
    b_predictions_without_gold: int
    per_strategy: list[PerStrategy]
    subsets: list[Subset] | None = None
    stages: list[SixthShares] | None
    calibration: Reliability | None


@dataclass(frozen=True, kw_only=True)
class Opening(Result):
    """Four tokens with which responses begin."""

    opening: str
    count: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Phrase(Result):
    """A run of words, how many responses hold it, and how many human replies to the same turns."""

    phrase: str  # tokens with blanks between
    count: int
    share: float  # of the responses
    gold_count: int
    gold_share: float
    z: float  # log odds ratio against the human replies, in standard errors


@dataclass(frozen=True, kw_only=True)
class Finish(Result):
    """How many responses ended by themselves, and how many at the length limit."""

    stop: int
    length: int


@dataclass(frozen=True, kw_only=True)
class TextFigures(Result):
    """Figures of the responses; those that were not asked for are None here and left out of the JSON."""

    tokenizer: str
    bleu1_utterance: float | None = None
    bleu1_corpus: float | None = None
    bleu2_utterance: float | None = None
    bleu2_corpus: float | None = None
    bleu3_utterance: float | None = None
    bleu3_corpus: float | None = None
    bleu4_utterance: float | None = None
    bleu4_corpus: float | None = None
    distinct1_utterance: float | None = None
    distinct1_corpus: float | None = None
    distinct2_utterance: float | None = None
    distinct2_corpus: float | None = None
    distinct3_utterance: float | None = None
    distinct3_corpus: float | None = None
    f1_utterance: float | None = None
    f1_corpus: float | None = None
    rouge_l_utterance: float | None = None
    rouge_l_corpus: float | None = None
    rouge_score_l_utterance: float | None = None
    rouge_score_signature: str | None = None
    sacrebleu: float | None = None
    sacrebleu_signature: str | None = None
    mean_tokens: float | None = None
    over_40_words_share: float | None = None
    over_2_sentences_share: float | None = None
    long_response_share: float | None = None
    openings: list[Opening] | None = None
    phrases: list[Phrase] | None = None
    overused_phrases: list[Phrase] | None = None
    meteor_utterance: float | None = None
    meteor_wordnet_utterance: float | None = None
    meteor_signature: str | None = None
    bertscore_precision_utterance: float | None = None
    bertscore_recall_utterance: float | None = None
    bertscore_f1_utterance: float | None = None
    bertscore_signature: str | None = None
    relevance_utterance: float | None = None
    relevance_n: int | None = None
    encoder: str | None = None
    encoder_hash: str | None = None
    bleu1_utterance_interval: Interval | None = None
    bleu2_utterance_interval: Interval | None = None
    bleu3_utterance_interval: Interval | None = None
    bleu4_utterance_interval: Interval | None = None
    distinct1_utterance_interval: Interval | None = None
    distinct2_utterance_interval: Interval | None = None
    distinct3_utterance_interval: Interval | None = None
    f1_utterance_interval: Interval | None = None
    rouge_l_utterance_interval: Interval | None = None
    meteor_utterance_interval: Interval | None = None
    bertscore_f1_utterance_interval: Interval | None = None
    relevance_utterance_interval: Interval | None = None
    null_texts: int
    finish: Finish

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object: a measure that was asked for and has no value is null, any other is left out."""
        measured = {
            "rouge_score_l_utterance": self.bleu1_utterance,
            "over_2_sentences_share": self.mean_tokens,
            "long_response_share": self.mean_tokens,
            "meteor_wordnet_utterance": self.meteor_utterance,
            "encoder_hash": self.encoder,
        }
        values = {each.name: _plain(getattr(self, each.name)) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None or measured.get(name) is not None}


@dataclass(frozen=True, kw_only=True)
class PatternFigure(Result):
    """One pattern over the dialogues (`patterns`)."""

    share: float  # of replies
    share_interval: Interval
    run: float  # the longest run of a dialogue in replies, mean over dialogues
    run_interval: Interval
    longest: int  # the longest run of all, in replies


@dataclass(frozen=True, kw_only=True)
class Patterns(Result):
    """Patterns over a dialogue, by name; None where one cannot be told."""

    dialogues: int
    replies: int
    predicted: dict[str, PatternFigure | None]
    gold: dict[str, PatternFigure | None]  # the human replies to the same turns


@dataclass(frozen=True, kw_only=True)
class Figures(Result):
    """What is measured of some rows."""

    n: int
    dialogues: int
    past_strategies: str | None
    strategy: StrategyFigures | None
    text: TextFigures | None
    patterns: Patterns | None = None
    warnings: list[str]


@dataclass(frozen=True, kw_only=True)
class Evaluation(Figures):
    """What is measured of a predictions file, and how; ``groups`` has the same figures of each group of its rows."""

    format: int
    taxonomy: str
    seed: int
    resamples: int
    unparsed: str
    groups: dict[str, Figures] | None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object: first how it was measured."""
        values = Result.to_json(self)
        return {name: values[name] for name in _HEAD} | values


@dataclass(frozen=True, kw_only=True)
class Difference(Result):
    """One test: the figure of file a minus that of file b."""

    a: str
    b: str
    metric: str
    turns: int
    dialogues: int
    difference: float
    interval: Interval
    p: float
    permutations: int
    p_holm: float


@dataclass(frozen=True, kw_only=True)
class Comparison(Result):
    """Several files measured, and every pair of them tested; ``warnings`` are about the comparison."""

    format: int
    files: dict[str, Evaluation]
    comparisons: list[Difference]
    warnings: list[str]
