"""judging.json as far as the report reads it; every other field passes by unread."""

from pydantic import BaseModel, ConfigDict

__all__ = ["Judging"]

Interval = tuple[float, float]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class RubricRecord(_Record):
    """A quality and the ends of its scale."""

    name: str
    version: int
    lowest: int
    highest: int


class States(_Record):
    """Verdicts by state."""

    done: int
    unparsed: int
    refused: int
    failed: int


class Score(_Record):
    """One system's mean for one quality (`measures.judgements.scores_by_system`)."""

    system: str
    rubric: str
    reference: bool
    n: int
    states: States
    mean: float | None
    interval: Interval | None
    length: float


class LongerWins(_Record):
    """How often the longer reply is the preferred one."""

    n: int
    share: float | None


class EqualLength(_Record):
    """A comparison as it would be at equal length."""

    value: float
    interval: Interval
    extrapolated: bool


class ScoreTest(_Record):
    """One test of `measures.judgements.score_tests`."""

    a: str
    b: str
    rubric: str
    reference: bool
    turns: int
    difference: float
    interval: Interval
    p: float
    p_holm: float
    longer_wins: LongerWins
    equal_length: EqualLength | None


class PairTest(_Record):
    """One row of `measures.pairwise.pairwise_tests`."""

    a: str
    b: str
    turns: int
    wins: int
    ties: int
    losses: int
    win_rate: float | None
    interval: Interval | None
    p_holm: float | None
    flip_rate: float | None
    wavered: float | None
    first_share: float | None
    left_out: int
    longer_wins: LongerWins | None
    equal_length: EqualLength | None


class GroupOrder(_Record):
    """Two known groups and how they came out."""

    rubric: str
    above: str
    below: str
    difference: float | None
    interval: Interval | None
    found: str


class KnownGroups(_Record):
    """Replies whose order is known beforehand."""

    scores: list[Score]
    orders: list[GroupOrder]
    in_order: bool


class Judging(_Record):
    """What `judging.plan.figures` returns."""

    name: str = ""
    judge: str
    prompts: str | None = None
    also_mined: list[str]
    turns: int
    dialogues: int
    systems: list[str]
    rubrics: list[RubricRecord]
    resamples: int
    scores: list[Score]
    differences: list[ScoreTest]
    pairs: list[PairTest]
    known_groups: KnownGroups | None
    warnings: list[str]

    def rubric(self, name: str) -> RubricRecord:
        """The quality of this name."""
        return next(rubric for rubric in self.rubrics if rubric.name == name)
