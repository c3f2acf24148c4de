"""The four roles of a search, as it sees them: who speaks, who chooses, who judges (CSO, appendix A).

A role is asked about a *talk*: the path of turns up to where it comes in. It answers None where no answer could be had
or read; the search counts that and goes on elsewhere.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from esckit.conversation import Conversation, Turn

__all__ = ["END", "Judged", "RewardRole", "Roles", "Scored", "SpeakingRole", "StrategyRole", "Talk"]

END = ""
"""What a seeker says who ends the talk."""


class Talk(NamedTuple):
    """What a role is asked about.

    Attributes:
        seed: the dialogue that the search started from, for its situation, labels and language.
        path: turns from the first one on; the last one is the one that is answered, or judged.
        sample: which of several answers to the same question, in 0..2^32-1.
    """

    seed: Conversation
    path: Sequence[Turn]
    sample: int = 0


class Scored(NamedTuple):
    """What a strategy role says of one strategy.

    Attributes:
        score: of 0 to 10 where a chat model gave it; a planner's log-probability else. The greatest is the best.
        prior: its probability among its siblings, P in PUCB.
    """

    score: float
    prior: float


class Judged(NamedTuple):
    """What a reward role says of the last turn of a talk.

    Attributes:
        reward: within the role's range.
        scores: what it is made of, by name.
    """

    reward: float
    scores: Mapping[str, float]


class SpeakingRole(Protocol):
    """Seeker or supporter."""

    name: str
    """The source of the turns that it writes."""
    calls: int
    """Questions that one answer takes of a budget."""

    async def say(self, talk: Talk, strategy: str | None = None) -> str | None:
        """The next turn's text; a seeker says `END` where the talk is over."""


class StrategyRole(Protocol):
    """Says which strategies fit as the next reply's."""

    name: str
    calls: int
    """Questions that one answer takes: 0 where nobody is asked."""

    async def rate(self, talk: Talk) -> dict[str, Scored] | None:
        """Strategies in the order of the taxonomy; a chat model may leave some out."""


class RewardRole(Protocol):
    """Says how good the last turn of a talk is as a reply."""

    name: str
    calls: int
    lowest: float
    """The least reward there is."""
    highest: float
    theta: float
    """What is worth keeping, where nobody says otherwise."""
    deterministic: bool
    """Another sample says the same."""

    async def judge(self, talk: Talk) -> Judged | None:
        """Judge the last turn, of which everything before is the context."""


class Roles(NamedTuple):
    """Who plays which role in a search; ``check`` judges pairs again, and may be missing."""

    seeker: SpeakingRole
    supporter: SpeakingRole
    strategy: StrategyRole
    reward: RewardRole
    check: RewardRole | None = None
