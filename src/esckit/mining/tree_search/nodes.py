"""What a search knows of a turn, and the numbers that it goes by (CSO, equations 1 and 4)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import sqrt
from statistics import fmean

__all__ = ["Node"]


@dataclass(eq=False, slots=True)
class Node:
    """A supporter turn in a search; the root stands for what was said before the first one.

    Attributes:
        turn: its id.
        parent: the node before it; None for the root.
        strategy: of the turn; empty for the root.
        prior, score: as the strategy role says (`roles.Scored`).
        state: id of the turn that the next supporter turns answer; None until the seeker has spoken.
        children: None until strategies were asked for.
        gold: the seed's own next node, where there is one.
        human: it is one of the seed's own turns, or the root.
        written: it has a text.
        end: the talk ends after it.
        closed: the search does not come here again, as a role gave no answer or all below is closed.
        visits: rewards that were backed up through it; ``total`` is their sum. ``planted`` of them, each 1, are there
            from the start.
        rewards: its own judgements; ``scores`` what each was made of; ``asked``, how often it was to be judged.
        waiting: selected and not yet backed up; ``virtual`` counts the selections below it (virtual loss).
    """

    turn: str
    parent: "Node | None"
    strategy: str = ""
    prior: float = 1.0
    score: float = 0.0
    state: str | None = None
    children: "list[Node] | None" = None
    gold: "Node | None" = None
    human: bool = False
    written: bool = False
    end: bool = False
    closed: bool = False
    visits: int = 0
    total: float = 0.0
    planted: int = 0
    rewards: list[float] = field(default_factory=list)
    scores: list[Mapping[str, float]] = field(default_factory=list)
    asked: int = 0
    waiting: bool = False
    virtual: int = 0
    told: dict[str, float] = field(default_factory=dict)  # the numbers that its turn carries already

    @property
    def value(self) -> float:
        """Q, the mean of the rewards that were backed up; 0 before the first one."""
        return self.total / self.visits if self.visits else 0.0

    @property
    def reward(self) -> float:
        """The mean of its own judgements, of which there is at least one."""
        return fmean(self.rewards)

    def pucb(self, exploration: float, loss: float) -> float:
        """Q + c P sqrt(N of the parent) / (N + 1); a selection under way counts as a visit that was a ``loss``."""
        assert self.parent is not None
        visits = self.visits + self.virtual
        value = (self.total + self.virtual * loss) / visits if visits else 0.0
        before = self.parent.visits + self.parent.virtual
        return value + exploration * self.prior * sqrt(before) / (visits + 1)

    def line(self) -> "Iterator[Node]":
        """The node and those before it, up to the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def numbers(self) -> dict[str, float]:
        """What its turn carries as scores."""
        found = {"visits": self.visits, "value": round(self.value, 6)}
        if self.parent is not None:
            found |= {"prior": round(self.prior, 6), "score": round(self.score, 6)}
        if self.rewards:
            found |= {"reward": round(self.reward, 6), "judgements": len(self.rewards)}
        return found | ({"end": 1} if self.end else {}) | ({"closed": 1} if self.closed else {})
