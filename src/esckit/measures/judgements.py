"""What judges said of replies, and the figures made of it: scores by system and quality, wins of pairs, tests."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Final, Literal, NamedTuple, TypeVar

import numpy as np

from esckit.measures.bradley_terry import Duel, bradley_terry
from esckit.measures.intervals import (
    DRAWS,
    Draws,
    FloatArray,
    IntArray,
    basic_interval,
    dialogue_places,
    resample_totals,
)
from esckit.measures.judging_results import GroupOrder, PairTest, ScoreTest, States, SystemScore
from esckit.measures.length_control import difference_at_equal_length, longer_wins, win_rate_at_equal_length
from esckit.measures.permutation import difference_interval, holm, mean_of, permutation_p

JudgedState = Literal["done", "unparsed", "refused", "failed"]
STATES: Final[tuple[JudgedState, ...]] = ("done", "unparsed", "refused", "failed")
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Answer:
    """What a judge answered to one yes/no question about a reply."""

    answer: Literal["no", "yes", "unparsed"]  # unparsed: a yes whose quote does not stand in the reply
    quote: str = ""  # the words of the reply that are to show it


@dataclass(frozen=True)
class Judgement:
    """One reply's score for one quality."""

    system: str  # who wrote the reply
    conversation_id: str
    turn_id: str
    rubric: str  # the quality
    reference: bool  # the judge saw the human reply
    state: JudgedState
    score: int | None  # a point of the rubric's scale; None unless done
    length: int  # of the reply, in characters
    explanation: str = ""  # the judge's; of what is not done, its last words or what was wrong
    answers: dict[str, Answer] = field(default_factory=dict)  # by the question's name, where the quality has questions

    @property
    def turn(self) -> tuple[str, str]:
        """The turn's key."""
        return self.conversation_id, self.turn_id


class Group(NamedTuple):
    """Judgements that can be averaged: of one quality, with or without the reference."""

    rubric: str
    reference: bool


def scores_by_system(
    judgements: Sequence[Judgement], scales: dict[str, tuple[int, int]], draws: Draws = DRAWS
) -> list[SystemScore]:
    """Average each system's scores by quality, with and without the reference.

    Args:
        judgements: of any systems.
        scales: rubric to its lowest and highest point.
        draws: of the bootstrap over dialogues.
    """
    return [
        _score(system, group, own, scales[group.rubric], draws)
        for (group, system), own in _by(judgements, lambda each: (_group(each), each.system)).items()
    ]


def problem_shares(
    judgements: Sequence[Judgement], problems: Mapping[str, Sequence[str]], draws: Draws = DRAWS
) -> list[SystemScore]:
    """How many of each system's replies have a problem: the mean, 0 to 1, of answers (yes is 1), question by question.

    ``problems`` are names of questions by rubric. A row's ``rubric`` is its question's name; a question without an
    answer has the state of its judgement.
    """
    asked = [_answered(each, name) for each in judgements for name in problems.get(each.rubric, ())]
    return scores_by_system(asked, {each.rubric: (0, 1) for each in asked}, draws)


def _answered(judgement: Judgement, name: str) -> Judgement:
    """One question's answer as a judgement of its own."""
    found = judgement.answers.get(name)
    if found is None:
        return replace(judgement, rubric=name, score=None)
    state: JudgedState = "unparsed" if found.answer == "unparsed" else "done"
    return replace(judgement, rubric=name, state=state, score=int(found.answer == "yes") if state == "done" else None)


def score_tests(judgements: Sequence[Judgement], draws: Draws = DRAWS) -> list[ScoreTest]:
    """Test every pair of systems, quality by quality, over the turns where both are scored; Holm over all tests."""
    tests = []
    for group, own in _by(judgements, _group).items():
        by_system = _by((each for each in own if each.score is not None), lambda each: each.system)
        for a, b in combinations(by_system, 2):
            pairs = list(_shared(by_system[a], by_system[b]))
            if pairs:
                tests.append(_test(a, b, group, pairs, draws))
    corrected = holm([test.p for test in tests])
    return [replace(test, p_holm=p) for test, p in zip(tests, corrected, strict=True)]


def group_orders(
    judgements: Sequence[Judgement], orders: Mapping[str, Sequence[tuple[str, str]]], draws: Draws = DRAWS
) -> list[GroupOrder]:
    """Say whether known groups come out in order. Groups may stand in different dialogues.

    Args:
        judgements: ``system`` is the group.
        orders: rubric to pairs of groups, the better one first.
        draws: of the bootstrap over dialogues; where both groups stand in one dialogue, it is drawn for both. As many
            dialogues are drawn with both groups, with the one and with the other as there are of each, so that no
            resample lacks a group.

    Returns:
        Differences of means; ``in order`` where the whole interval lies above 0, ``reversed`` where it lies below, else
        ``not told apart``. A pair of which a group has no score is ``not judged``, one that was not asked for no row.
    """
    rows = []
    present = {each.system for each in judgements}
    for rubric, own in _by(judgements, lambda each: each.rubric).items():
        for above, below in orders.get(rubric, ()):
            if {above, below} <= present:
                rows.append(_difference_of_groups(own, rubric, above, below, draws))
    return rows


def _group(judgement: Judgement) -> Group:
    return Group(judgement.rubric, judgement.reference)


def _by(judgements: Iterable[Judgement], key: Callable[[Judgement], Key]) -> dict[Key, list[Judgement]]:
    """Judgements by a key, in order of first appearance."""
    found: dict[Key, list[Judgement]] = {}
    for judgement in judgements:
        found.setdefault(key(judgement), []).append(judgement)
    return found


def _score(system: str, group: Group, own: Sequence[Judgement], scale: tuple[int, int], draws: Draws) -> SystemScore:
    states = Counter(each.state for each in own)
    scored = [each for each in own if each.score is not None]
    mean = interval = None
    if scored:
        totals = _sums(scored, *dialogue_places([each.conversation_id for each in scored]))
        mean = float(_means(totals.sum(0)))
        drawn = _means(resample_totals(totals, draws.resamples, draws.seed))
        interval = basic_interval(mean, drawn, low=scale[0], high=scale[1])
    return SystemScore(
        system=system,
        rubric=group.rubric,
        reference=group.reference,
        n=len(scored),
        states=States(**{state: states[state] for state in STATES}),
        length=float(np.mean([each.length for each in own])),
        mean=mean,
        interval=interval,
    )


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


def _test(a: str, b: str, group: Group, pairs: Sequence[tuple[Judgement, Judgement]], draws: Draws) -> ScoreTest:
    """One test, its p not corrected yet."""
    dialogues, places = dialogue_places([one.conversation_id for one, _ in pairs])
    scores = np.array([[one.score, two.score] for one, two in pairs], dtype=np.float64)
    longer = np.array([one.length - two.length for one, two in pairs], dtype=np.float64)
    sums = np.zeros((dialogues, 2))
    np.add.at(sums, places, scores)
    first, second, figure = sums[:, :1], sums[:, 1:], mean_of(len(pairs))
    gains = scores[:, 0] - scores[:, 1]
    p = permutation_p(first, second, figure, draws)
    return ScoreTest(
        a=a,
        b=b,
        rubric=group.rubric,
        reference=group.reference,
        turns=len(pairs),
        dialogues=dialogues,
        difference=float(gains.mean()),
        interval=difference_interval(first, second, figure, draws),
        p=p,
        permutations=draws.permutations,
        longer_wins=longer_wins(gains, longer, places, draws),
        equal_length=difference_at_equal_length(gains, longer, places, draws),
        p_holm=p,
    )


def _difference_of_groups(
    judgements: Sequence[Judgement], rubric: str, above: str, below: str, draws: Draws
) -> GroupOrder:
    sides = [[e for e in judgements if e.system == name and e.score is not None] for name in (above, below)]
    difference, interval, found = None, None, "not judged"
    if all(sides):
        dialogues, places = dialogue_places([each.conversation_id for side in sides for each in side])
        cut = len(sides[0])
        first, second = _sums(sides[0], dialogues, places[:cut]), _sums(sides[1], dialogues, places[cut:])
        both = np.concatenate([first, second], axis=1)  # (D, 4)
        holds = (first[:, 1] > 0) + 2 * (second[:, 1] > 0)
        drawn = [
            resample_totals(both[holds == kind], draws.resamples, draws.seed + int(kind)) for kind in np.unique(holds)
        ]
        value, replicates = (_means(t[..., :2]) - _means(t[..., 2:]) for t in (both.sum(0), np.sum(drawn, axis=0)))
        difference = float(value)
        interval = basic_interval(difference, replicates, low=-np.inf)
        found = "in order" if interval.low > 0 else "reversed" if interval.high < 0 else "not told apart"
    return GroupOrder(rubric=rubric, above=above, below=below, difference=difference, interval=interval, found=found)


TIE: Final = "tie"


@dataclass(frozen=True)
class Contest:
    """Two systems' replies to one turn, judged twice: once with ``first`` shown first, once with ``second``."""

    first: str
    second: str
    conversation_id: str
    turn_id: str
    states: tuple[JudgedState, JudgedState]  # of the two verdicts
    winners: tuple[str | None, str | None]  # what they name: a system or `TIE`; None unless done
    lengths: tuple[int, int]  # of the replies, in characters
    asked: bool = True  # False where the replies are equal, which is a tie that no judge need be asked about
    explanations: tuple[str, str] = ("", "")

    @property
    def decided(self) -> bool:
        """Both orders have a verdict."""
        return None not in self.winners

    @property
    def winner(self) -> str:
        """The system that both orders name, else `TIE`: a preference that the order turns round is none."""
        one, two = self.winners
        return one if one is not None and one == two else TIE

    @property
    def flipped(self) -> bool:
        """The two orders name different systems."""
        return self.decided and TIE not in self.winners and self.winners[0] != self.winners[1]


def pairwise_tests(contests: Sequence[Contest], draws: Draws = DRAWS) -> list[PairTest]:
    """Test every pair of systems: paired permutations and basic bootstrap over dialogues, Holm over all pairs."""
    by_pair: dict[tuple[str, str], list[Contest]] = {}
    for contest in contests:
        by_pair.setdefault((contest.first, contest.second), []).append(contest)
    rows = [
        PairTest(a=a, b=b, **_counts(own), **_rates([each for each in own if each.decided], draws))
        for (a, b), own in by_pair.items()
    ]
    corrected = iter(holm([row.p for row in rows if row.p is not None]))
    return [row if row.p is None else replace(row, p_holm=next(corrected)) for row in rows]


def strengths(contests: Sequence[Contest], draws: Draws = DRAWS) -> dict[str, Any] | None:
    """Rate the systems by `bradley_terry`, a dialogue being the unit that is resampled; None without any verdict."""
    duels = [
        Duel(each.conversation_id, each.first, each.second, None if each.winner == TIE else each.winner)
        for each in contests
        if each.decided
    ]
    return bradley_terry(duels, resamples=draws.resamples, seed=draws.seed) if duels else None


def _counts(contests: Sequence[Contest]) -> dict[str, Any]:
    asked = [each for each in contests if each.asked]
    decided = [each for each in asked if each.decided]
    named = [
        winner == shown
        for each in asked
        for winner, shown in zip(each.winners, (each.first, each.second), strict=True)
        if winner not in (None, TIE)
    ]
    states = [state for each in asked for state in each.states]
    return {
        "states": States(**{state: states.count(state) for state in STATES}),
        "equal": len(contests) - len(asked),
        "left_out": len(asked) - len(decided),
        "flip_rate": sum(each.flipped for each in decided) / len(decided) if decided else None,
        "wavered": sum(each.winners.count(TIE) == 1 for each in decided) / len(decided) if decided else None,
        "first_share": sum(named) / len(named) if named else None,
    }


def _rates(contests: Sequence[Contest], draws: Draws) -> dict[str, Any]:
    names = ("win_rate", "interval", "p", "p_holm", "permutations", "longer_wins", "equal_length")
    counts = {
        "turns": len(contests),
        "dialogues": len({each.conversation_id for each in contests}),
        "wins": sum(each.winner == each.first for each in contests),
        "losses": sum(each.winner == each.second for each in contests),
        "ties": sum(each.winner == TIE for each in contests),
    }
    if not contests:
        return {**counts, **dict.fromkeys(names)}
    outcomes = np.array([0.5 if each.winner == TIE else float(each.winner == each.first) for each in contests])
    dialogues = [each.conversation_id for each in contests]
    _, places = dialogue_places(dialogues)
    longer = np.array([each.lengths[0] - each.lengths[1] for each in contests], dtype=np.float64)
    return {
        **counts,
        **rate_of_wins(outcomes, dialogues, draws),
        "p_holm": None,
        "longer_wins": longer_wins(outcomes - 0.5, longer, places, draws),
        "equal_length": win_rate_at_equal_length(outcomes, longer, places, draws),
    }


def rate_of_wins(outcomes: FloatArray, dialogues: Sequence[str], draws: Draws) -> dict[str, Any]:
    """``win_rate``, its 95% ``interval``, ``p`` that it is one half, and ``permutations``, JSON-ready.

    Args:
        outcomes: (N,) 1 for a win, .5 for a tie, 0 for a loss.
        dialogues: (N,) where each was; they are drawn and permuted whole.
        draws: of the test and the bootstrap.
    """
    number, places = dialogue_places(dialogues)
    sums = np.zeros((number, 2))
    np.add.at(sums, places, np.stack([outcomes, 1 - outcomes], axis=1))
    rate, drawn = float(outcomes.mean()), resample_totals(sums, draws.resamples, draws.seed)
    return {
        "win_rate": rate,
        "interval": basic_interval(rate, drawn[:, 0] / drawn.sum(1), low=0, high=1),
        "p": permutation_p(sums[:, :1], sums[:, 1:], mean_of(len(outcomes)), draws),
        "permutations": draws.permutations,
    }
