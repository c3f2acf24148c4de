"""Figures of pairwise verdicts, each asked in both orders: wins, flips, and what length has to do with them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from esckit.measures.bradley_terry import Duel, bradley_terry
from esckit.measures.intervals import FloatArray, basic_interval, dialogue_places, resample_totals
from esckit.measures.judgements import STATES, JudgedState
from esckit.measures.judging_results import PairTest, States
from esckit.measures.length_control import longer_wins, win_rate_at_equal_length
from esckit.measures.permutation import holm, mean_of, permutation_p

__all__ = ["TIE", "Contest", "pairwise_tests", "rate_of_wins", "strengths"]

TIE: Final = "tie"


@dataclass(frozen=True)
class Contest:
    """Two systems' replies to one turn, judged twice.

    Attributes:
        first, second: the systems.
        conversation_id, turn_id: where the replies stand.
        states: of the verdict with ``first`` shown first, and of that with ``second`` shown first.
        winners: what these verdicts name: a system or `TIE`; None unless done.
        lengths: of the replies, in characters.
        asked: False where the replies are equal, which is a tie that no judge need be asked about.
        explanations: the judge's.
    """

    first: str
    second: str
    conversation_id: str
    turn_id: str
    states: tuple[JudgedState, JudgedState]
    winners: tuple[str | None, str | None]
    lengths: tuple[int, int]
    asked: bool = True
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


def pairwise_tests(
    contests: Sequence[Contest], *, permutations: int = 10_000, resamples: int = 1000, seed: int = 0
) -> list[PairTest]:
    """Test every pair of systems: paired permutations and basic bootstrap over dialogues, Holm over all pairs."""
    by_pair: dict[tuple[str, str], list[Contest]] = {}
    for contest in contests:
        by_pair.setdefault((contest.first, contest.second), []).append(contest)
    rows = [
        PairTest(
            a=a, b=b, **_counts(own), **_rates([each for each in own if each.decided], permutations, resamples, seed)
        )
        for (a, b), own in by_pair.items()
    ]
    corrected = iter(holm([row.p for row in rows if row.p is not None]))
    return [row if row.p is None else replace(row, p_holm=next(corrected)) for row in rows]


def strengths(contests: Sequence[Contest], *, resamples: int = 1000, seed: int = 0) -> dict[str, Any] | None:
    """Rate the systems by `bradley_terry`, a dialogue being the unit that is resampled; None without any verdict."""
    duels = [
        Duel(each.conversation_id, each.first, each.second, None if each.winner == TIE else each.winner)
        for each in contests
        if each.decided
    ]
    return bradley_terry(duels, resamples=resamples, seed=seed) if duels else None


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


def _rates(contests: Sequence[Contest], permutations: int, resamples: int, seed: int) -> dict[str, Any]:
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
    outcomes = np.array([_outcome(each) for each in contests])
    _, places = dialogue_places([each.conversation_id for each in contests])
    longer = np.array([each.lengths[0] - each.lengths[1] for each in contests], dtype=np.float64)
    return {
        **counts,
        **rate_of_wins(
            outcomes,
            [each.conversation_id for each in contests],
            permutations=permutations,
            resamples=resamples,
            seed=seed,
        ),
        "p_holm": None,
        "longer_wins": longer_wins(outcomes - 0.5, longer, places, resamples=resamples, seed=seed),
        "equal_length": win_rate_at_equal_length(outcomes, longer, places, resamples=resamples, seed=seed),
    }


def rate_of_wins(
    outcomes: FloatArray, dialogues: Sequence[str], *, permutations: int, resamples: int, seed: int
) -> dict[str, Any]:
    """``win_rate``, its 95% ``interval``, ``p`` that it is one half, and ``permutations``, JSON-ready.

    Args:
        outcomes: (N,) 1 for a win, .5 for a tie, 0 for a loss.
        dialogues: (N,) where each was; they are drawn and permuted whole.
        permutations: of the test.
        resamples: of the bootstrap.
        seed: of both.
    """
    number, places = dialogue_places(dialogues)
    sums = np.zeros((number, 2))
    np.add.at(sums, places, np.stack([outcomes, 1 - outcomes], axis=1))
    rate = float(outcomes.mean())
    first, second, figure = sums[:, :1], sums[:, 1:], mean_of(len(outcomes))
    return {
        "win_rate": rate,
        "interval": basic_interval(rate, _win_rates(sums, resamples, seed), low=0, high=1),
        "p": permutation_p(first, second, figure, permutations=permutations, seed=seed),
        "permutations": permutations,
    }


def _win_rates(sums: FloatArray, resamples: int, seed: int) -> FloatArray:
    drawn = resample_totals(sums, resamples, seed)
    return np.asarray(drawn[:, 0] / drawn.sum(1))


def _outcome(contest: Contest) -> float:
    return 0.5 if contest.winner == TIE else float(contest.winner == contest.first)
