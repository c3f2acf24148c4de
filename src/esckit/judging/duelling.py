"""Which of two replies is better, asked in both orders: what the judge is asked, and what its answers come to."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final, Literal, NamedTuple

from pydantic import BaseModel

from esckit.chat_models.json_replies import schema_text
from esckit.chat_models.ledger import Outcome
from esckit.chat_models.protocol import ChatRequest
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.judging.rubric import Rubric
from esckit.judging.sampling import JudgedTurn
from esckit.judging.scoring import SHIPPED, shown_talk, system_message
from esckit.measures.pairwise import TIE, Contest
from esckit.prompts.own import Prompts
from esckit.prompts.transcript import quote

__all__ = ["DuelReply", "Pairing", "contest_of", "duel_requests", "pairings"]

_LETTERS: Final = ("A", "B")


class DuelReply(BaseModel):
    """What a judge has to answer; the explanation comes first, so that it is not made up for the winner."""

    explanation: str
    better: Literal["A", "B", "tie"]


class Pairing(NamedTuple):
    """Two systems' replies to one turn."""

    first: str
    second: str
    turn: JudgedTurn
    replies: tuple[str, str]

    @property
    def equal(self) -> bool:
        """Nobody need be asked which of them is better."""
        return self.replies[0].strip() == self.replies[1].strip()


def pairings(turns: Sequence[JudgedTurn], replies: Mapping[str, Mapping[tuple[str, str], str]]) -> list[Pairing]:
    """Every pair of systems at every turn."""
    return [
        Pairing(first, second, turn, (replies[first][turn.key], replies[second][turn.key]))
        for first, second in combinations(replies, 2)
        for turn in turns
    ]


def duel_requests(
    pairing: Pairing, rubrics: Sequence[Rubric], max_new_tokens: int, prompts: Prompts = SHIPPED
) -> list[ChatRequest]:
    """What the judge is asked: once with the first system's reply as A, once as B; nothing for equal replies."""
    if pairing.equal:
        return []
    qualities = "\n".join(f"- {rubric.name}: {rubric.question}" for rubric in rubrics)
    requests = []
    for reply_a, reply_b in (pairing.replies, pairing.replies[::-1]):
        asked = prompts.fill(
            "duel",
            transcript=shown_talk(pairing.turn),
            reply_a=quote(reply_a),
            reply_b=quote(reply_b),
            qualities=qualities,
            schema=schema_text(DuelReply),
        )
        decoding = Decoding(greedy=True, max_new_tokens=max_new_tokens)
        requests.append(ChatRequest((system_message(prompts), Message("user", asked)), decoding, DuelReply))
    return requests


def contest_of(pairing: Pairing, outcomes: Sequence[Outcome]) -> Contest:
    """The contest that both orders' outcomes say; none for equal replies."""
    first, second, turn, replies = pairing
    lengths = len(replies[0].strip()), len(replies[1].strip())
    if pairing.equal:
        return Contest(first, second, *turn.key, ("done", "done"), (TIE, TIE), lengths, asked=False)
    one, two = outcomes
    winners = _winner(one, (first, second)), _winner(two, (second, first))
    return Contest(first, second, *turn.key, (one.state, two.state), winners, lengths, True, (_said(one), _said(two)))


def _winner(outcome: Outcome, shown: tuple[str, str]) -> str | None:
    if outcome.state != "done":
        return None
    better = outcome.value(DuelReply).better
    return TIE if better == TIE else shown[_LETTERS.index(better)]


def _said(outcome: Outcome) -> str:
    return outcome.value(DuelReply).explanation if outcome.state == "done" else outcome.text or outcome.detail
