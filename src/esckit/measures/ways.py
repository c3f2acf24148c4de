"""What a comparison of ways of mining found, declared once: from here it goes to comparison.json, tables, pages."""

from dataclasses import dataclass

from esckit.measures.intervals import Interval
from esckit.measures.repeated import Advantage, RepeatedFigure
from esckit.measures.results import Result


@dataclass(frozen=True, kw_only=True)
class Kept(Result):
    """Pairs that a judge looked at again."""

    looked_at: int
    rate: float  # whose chosen side is the better one again; neither counts half; .5 is chance
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class Way(Result):
    """One way of mining; lists have a value for each stage that mined."""

    way: str
    method: str
    pairs: list[int]
    calls: list[int]  # replies asked of language models
    tokens: list[int]  # that language models wrote, by the backbone's tokenizer
    kept: Kept | None  # of all repetitions
    longer_chosen: float | None  # share of pairs whose chosen side has more characters
    length_ratio: float | None  # characters of chosen sides over those of rejected ones
    repetitions: int
    trained: int  # of them, those that had pairs to train on
    figures: list[RepeatedFigure]
    win_rate: Advantage | None  # judged, against the start


@dataclass(frozen=True, kw_only=True)
class Ways(Result):
    """Ways of mining, each against what all started from."""

    format: int
    against: str
    turns: int
    dialogues: int
    judge: str | None
    also_mined: list[str]
    seed: int
    resamples: int
    permutations: int
    ways: list[Way]
    warnings: list[str]
