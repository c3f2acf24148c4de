"""What a judging found, declared once: from here it goes to judging.json, tables and pages (docs/judging.md)."""

from dataclasses import dataclass, field
from typing import Any

from esckit.measures.intervals import Interval
from esckit.measures.results import Result


@dataclass(frozen=True, kw_only=True)
class JudgedRubric(Result):
    """A quality and the ends of its scale."""

    name: str
    version: int
    lowest: int
    highest: int


@dataclass(frozen=True, kw_only=True)
class States(Result):
    """Verdicts by state."""

    done: int
    unparsed: int
    refused: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class SystemScore(Result):
    """One system's mean for one quality; None where nothing is scored."""

    system: str
    rubric: str
    reference: bool  # the judge saw the human reply
    n: int  # scored
    states: States
    length: float  # mean, characters
    mean: float | None
    interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class LongerWins(Result):
    """Of the ``n`` turns where one reply is longer and one preferred, the share where it is the same one."""

    n: int
    share: float | None
    interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class EqualLength(Result):
    """A comparison as it would be at equal length (`length_control`)."""

    value: float
    interval: Interval
    slope: float
    extrapolated: bool  # one system's reply is longer at every turn: nothing near equal length bears the value out


@dataclass(frozen=True, kw_only=True)
class ScoreTest(Result):
    """Two systems' scores for one quality over the turns where both have one: a - b."""

    a: str
    b: str
    rubric: str
    reference: bool
    turns: int
    dialogues: int
    difference: float
    interval: Interval
    p: float
    permutations: int
    longer_wins: LongerWins
    equal_length: EqualLength | None
    p_holm: float


@dataclass(frozen=True, kw_only=True)
class PairTest(Result):
    """Two systems compared in both orders; figures of no turn are None."""

    a: str
    b: str
    states: States  # of all verdicts
    equal: int  # replies that are equal, not asked about
    left_out: int  # turns without two verdicts
    flip_rate: float | None  # of turns asked about, those where the orders name different systems
    wavered: float | None  # of these, those where one order says tie and the other does not
    first_share: float | None  # of verdicts that name a system, those that name the one shown first
    turns: int  # with both verdicts
    dialogues: int
    wins: int  # of a
    losses: int
    ties: int
    win_rate: float | None  # (wins + ties / 2) / turns
    interval: Interval | None
    p: float | None  # that it is one half
    permutations: int | None
    p_holm: float | None
    longer_wins: LongerWins | None
    equal_length: EqualLength | None


@dataclass(frozen=True, kw_only=True)
class GroupOrder(Result):
    """Two known groups and how they came out: in order, reversed, not told apart or not judged."""

    rubric: str
    above: str
    below: str
    difference: float | None
    interval: Interval | None
    found: str


@dataclass(frozen=True, kw_only=True)
class KnownGroups(Result):
    """Replies whose order is known beforehand."""

    scores: list[SystemScore]
    orders: list[GroupOrder]
    in_order: bool
    problems: list[SystemScore] = field(default_factory=list)  # as `Judging.problems`


@dataclass(frozen=True, kw_only=True)
class Judging(Result):
    """All figures of a judging."""

    format: int
    judge: str
    identity: Any
    left_out: list[str] = field(default_factory=list)  # settings that the judge was not told
    prompts: str | None = None
    also_mined: list[str]
    turns: int
    dialogues: int
    systems: list[str]
    rubrics: list[JudgedRubric]
    resamples: int
    seed: int
    scores: list[SystemScore]
    differences: list[ScoreTest]
    pairs: list[PairTest]
    strengths: dict[str, Any] | None
    known_groups: KnownGroups | None
    warnings: list[str]
    # by system and yes/no question the share of replies with a yes; ``rubric`` is the question's name
    problems: list[SystemScore] = field(default_factory=list)

    def rubric(self, name: str) -> JudgedRubric:
        """The quality of this name."""
        return next(rubric for rubric in self.rubrics if rubric.name == name)
