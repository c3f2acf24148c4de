"""Figures of pairwise verdicts, each asked in both orders: wins, flips, and what length has to do with them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from esckit.measures.bradley_terry import Duel, bradley_terry
from esckit.measures.intervals import DRAWS, Draws, FloatArray, basic_interval, dialogue_places, resample_totals
from esckit.measures.judgements import STATES, JudgedState
from esckit.measures.judging_results import PairTest, States
from esckit.measures.length_control import longer_wins, win_rate_at_equal_length
from esckit.measures.permutation import holm, mean_of, permutation_p

__all__ = ["TIE", "Contest", "pairwise_tests", "rate_of_wins", "strengths"]

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
