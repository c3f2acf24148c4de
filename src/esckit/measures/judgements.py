"""What judges said of replies, and the figures made of it: means by system and quality, and tests of differences."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final, Literal, NamedTuple, TypeVar

import numpy as np

from esckit.measures.intervals import FloatArray, IntArray, Interval, basic_interval, dialogue_places, resample_totals
from esckit.measures.length_control import difference_at_equal_length, longer_wins
from esckit.measures.permutation import difference_interval, holm, mean_of, permutation_p

__all__ = [
    "STATES",
    "Group",
    "JudgedState",
    "Judgement",
    "group_orders",
    "score_tests",
    "scores_by_system",
]

JudgedState = Literal["done", "unparsed", "refused", "failed"]
STATES: Final[tuple[JudgedState, ...]] = ("done", "unparsed", "refused", "failed")
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Judgement:
    """One reply's score for one quality.

    Attributes:
        system: who wrote the reply.
        conversation_id, turn_id: where it stands.
        rubric: the quality.
        reference: whether the judge saw the human reply.
        state: ``done``, or why there is no score.
        score: a point of the rubric's scale; None unless done.
        length: of the reply, in characters.
        explanation: the judge's; of what is not done, its last words or what was wrong.
    """

    system: str
    conversation_id: str
    turn_id: str
    rubric: str
    reference: bool
    state: JudgedState
    score: int | None
    length: int
    explanation: str = ""

    @property
    def turn(self) -> tuple[str, str]:
        """The turn's key."""
        return self.conversation_id, self.turn_id


class Group(NamedTuple):
    """Judgements that can be averaged: of one quality, with or without the reference."""

    rubric: str
    reference: bool


def scores_by_system(
    judgements: Sequence[Judgement], scales: dict[str, tuple[int, int]], *, resamples: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Average each system's scores by quality, with and without the reference.

    Args:
        judgements: of any systems.
        scales: rubric to its lowest and highest point.
        resamples: of the bootstrap over dialogues.
        seed: of the resamples.

    Returns:
        JSON-ready rows: ``system``, ``rubric``, ``reference``, ``n`` (scored), ``states`` (each state's number),
        ``mean`` and its 95% basic bootstrap ``interval`` (None where nothing is scored), ``length`` (mean, characters).
    """
    return [
        {
            "system": system,
            "rubric": group.rubric,
            "reference": group.reference,
            "n": sum(each.score is not None for each in own),
            "states": {state: Counter(each.state for each in own)[state] for state in STATES},
            "length": float(np.mean([each.length for each in own])),
            **_mean(own, scales[group.rubric], resamples, seed),
        }
        for (group, system), own in _by(judgements, lambda each: (_group(each), each.system)).items()
    ]


def score_tests(
    judgements: Sequence[Judgement], *, permutations: int = 10_000, resamples: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Test every pair of systems, quality by quality, over the turns where both are scored; Holm over all tests.

    Returns:
        JSON-ready rows as of `comparison.compare` (a, b, turns, dialogues, difference a - b, interval, p, p_holm,
        permutations) with ``rubric``, ``reference``, ``longer_wins`` and ``equal_length`` (`length_control`).
    """
    tests = []
    for group, own in _by(judgements, _group).items():
        by_system = _by((each for each in own if each.score is not None), lambda each: each.system)
        for a, b in combinations(by_system, 2):
            pairs = list(_shared(by_system[a], by_system[b]))
            if pairs:
                found = _test(pairs, permutations, resamples, seed)
                tests.append({"a": a, "b": b, "rubric": group.rubric, "reference": group.reference, **found})
    for test, corrected in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = corrected
    return tests


def group_orders(
    judgements: Sequence[Judgement],
    orders: dict[str, Sequence[tuple[str, str]]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Say whether known groups come out in order. Groups may stand in different dialogues.

    Args:
        judgements: ``system`` is the group.
        orders: rubric to pairs of groups, the better one first.
        resamples: of the bootstrap over dialogues; where both groups stand in one dialogue, it is drawn for both. As
            many dialogues are drawn with both groups, with the one and with the other as there are of each, so that no
            resample lacks a group.
        seed: of the resamples.

    Returns:
        JSON-ready rows: ``rubric``, ``above``, ``below``, ``difference`` of means with its ``interval``, and ``found``:
        ``in order`` where the whole interval lies above 0, ``reversed`` where it lies below, else ``not told apart``.
        A pair of which a group has no score at all has ``found`` ``not judged``, one that was not asked for no row.
    """
    rows = []
    present = {each.system for each in judgements}
    for rubric, own in _by(judgements, lambda each: each.rubric).items():
        for above, below in orders.get(rubric, ()):
            if {above, below} <= present:
                found = _difference_of_groups(own, above, below, resamples, seed)
                rows.append({"rubric": rubric, "above": above, "below": below, **found})
    return rows


def _group(judgement: Judgement) -> Group:
    return Group(judgement.rubric, judgement.reference)


def _by(judgements: Iterable[Judgement], key: Callable[[Judgement], Key]) -> dict[Key, list[Judgement]]:
    """Judgements by a key, in order of first appearance."""
    found: dict[Key, list[Judgement]] = {}
    for judgement in judgements:
        found.setdefault(key(judgement), []).append(judgement)
    return found


def _mean(
    judgements: Sequence[Judgement], scale: tuple[int, int], resamples: int, seed: int
) -> dict[str, float | list[float] | None]:
    scored = [each for each in judgements if each.score is not None]
    if not scored:
        return {"mean": None, "interval": None}
    totals = _sums(scored, *dialogue_places([each.conversation_id for each in scored]))
    mean = float(_means(totals.sum(0)))
    replicates = _means(resample_totals(totals, resamples, seed))
    return {"mean": mean, "interval": list(basic_interval(mean, replicates, low=scale[0], high=scale[1]))}


def _sums(scored: Sequence[Judgement], dialogues: int, places: IntArray) -> FloatArray:
    """(D, 2): each dialogue's sum of scores and their number."""
    totals = np.zeros((dialogues, 2))
    np.add.at(totals, places, [[each.score or 0, 1] for each in scored])
    return totals


def _means(totals: FloatArray) -> FloatArray:
    """Mean scores of sums and numbers (..., 2)."""
    return np.asarray(totals[..., 0] / totals[..., 1])


def _shared(first: Sequence[Judgement], second: Sequence[Judgement]) -> Iterator[tuple[Judgement, Judgement]]:
    others = {each.turn: each for each in second}
    return ((each, others[each.turn]) for each in first if each.turn in others)


def _test(pairs: Sequence[tuple[Judgement, Judgement]], permutations: int, resamples: int, seed: int) -> dict[str, Any]:
    dialogues, places = dialogue_places([one.conversation_id for one, _ in pairs])
    scores = np.array([[one.score, two.score] for one, two in pairs], dtype=np.float64)
    longer = np.array([one.length - two.length for one, two in pairs], dtype=np.float64)
    sums = np.zeros((dialogues, 2))
    np.add.at(sums, places, scores)
    first, second, figure = sums[:, :1], sums[:, 1:], mean_of(len(pairs))
    gains = scores[:, 0] - scores[:, 1]
    return {
        "turns": len(pairs),
        "dialogues": dialogues,
        "difference": float(gains.mean()),
        "interval": list(difference_interval(first, second, figure, resamples=resamples, seed=seed)),
        "p": permutation_p(first, second, figure, permutations=permutations, seed=seed),
        "permutations": permutations,
        "longer_wins": longer_wins(gains, longer, places, resamples=resamples, seed=seed),
        "equal_length": difference_at_equal_length(gains, longer, places, resamples=resamples, seed=seed),
    }


def _difference_of_groups(
    judgements: Sequence[Judgement], above: str, below: str, resamples: int, seed: int
) -> dict[str, Any]:
    sides = [[e for e in judgements if e.system == name and e.score is not None] for name in (above, below)]
    if not all(sides):
        return {"difference": None, "interval": None, "found": "not judged"}
    dialogues, places = dialogue_places([each.conversation_id for side in sides for each in side])
    cut = len(sides[0])
    first, second = _sums(sides[0], dialogues, places[:cut]), _sums(sides[1], dialogues, places[cut:])
    both = np.concatenate([first, second], axis=1)  # (D, 4)
    holds = (first[:, 1] > 0) + 2 * (second[:, 1] > 0)
    drawn = [resample_totals(both[holds == kind], resamples, seed + int(kind)) for kind in np.unique(holds)]
    difference, replicates = (_means(t[..., :2]) - _means(t[..., 2:]) for t in (both.sum(0), np.sum(drawn, axis=0)))
    interval = basic_interval(float(difference), replicates, low=-np.inf)
    return {"difference": float(difference), "interval": list(interval), "found": _found(interval)}


def _found(interval: Interval) -> str:
    return "in order" if interval.low > 0 else "reversed" if interval.high < 0 else "not told apart"
