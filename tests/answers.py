"""Asking a supporter for the turns of a dialogue."""

from collections.abc import Mapping, Sequence
from typing import Any

from esckit.conversation import Conversation, Turn
from esckit.supporters.proposing import Answers, Candidate, TurnRequest


def requests_at(
    conversation: Conversation, turns: Sequence[Turn], strategies: Sequence[str] | None = None, **more: Any
) -> list[TurnRequest]:
    """A request at the place of each turn, under these strategies or free ones; seeds count from 0."""
    given: Sequence[str | None] = strategies or [None] * len(turns)
    rows = zip(turns, given, strict=True)
    settings: Mapping[str, Any] = {"shown": {}, **more}
    return [
        TurnRequest(conversation, turn.parent, seed, strategy=strategy, **settings)
        for seed, (turn, strategy) in enumerate(rows)
    ]


def first_of(supporter: Answers, requests: Sequence[TurnRequest]) -> list[Candidate]:
    """The first candidate for each request."""
    return [candidates[0] for candidates in supporter.propose(requests)]


def texts(supporter: Answers, requests: Sequence[TurnRequest]) -> list[str | None]:
    """The first candidate's text for each request."""
    return [candidate.text for candidate in first_of(supporter, requests)]
