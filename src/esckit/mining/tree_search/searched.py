"""The tree that a search grows, and what its nodes are worth (CSO, equation 4)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Final

from esckit.conversation import Conversation, GrowingTree, Preference, Speaker, Turn, Verdict, mined_id
from esckit.errors import CorpusError
from esckit.mining.tree_search.extraction import Extracted
from esckit.mining.tree_search.nodes import Node
from esckit.mining.tree_search.roles import Roles

__all__ = ["RUBRIC", "SearchedTree", "gold_turns"]

RUBRIC: Final = "cso/1"
"""Name of the rubric in verdicts: what a reward is made of."""


@dataclass(eq=False, slots=True)
class _Step:
    """A reward on its way back: from which node, and whose judgements it is the mean of, if it is one."""

    node: Node
    judged: Sequence[Node]
    reward: float


def gold_turns(seed: Conversation) -> list[Turn]:
    """The trunk's turns that a search starts from.

    Of each run of supporter turns after the seeker's first turn it is the first one with a strategy and a text.

    Raises:
        CorpusError: there is none.
    """
    found: list[Turn] = []
    heard = answered = False
    for turn in seed.trunk:
        if turn.speaker == "seeker":
            heard, answered = True, False
        elif heard and not answered and turn.strategy and not turn.planned:
            answered = True
            found.append(turn)
    if not found:
        raise CorpusError(
            f"conversation {seed.id!r} has no supporter turn with a strategy after a seeker's turn, and a search "
            "starts from such turns: label it, or leave it out."
        )
    return found


class SearchedTree:
    """A dialogue, the turns that a search adds, and a node for each supporter turn that it knows.

    Args:
        seed: the dialogue; its trunk is the gold path.
        roles: who speaks, chooses and judges; only their names are read.
        extract: finds what is kept and rejected in the tree as it stands.
    """

    def __init__(self, seed: Conversation, roles: Roles, extract: Callable[[Conversation], Extracted]) -> None:
        self.seed = seed
        self._roles, self._extract = roles, extract
        self._tree = GrowingTree(seed)
        self._own = {turn.id for turn in seed.turns}
        turns = gold_turns(seed)
        self.nodes = [Node(str(turns[0].parent), None, human=True, written=True)]
        for turn in turns:
            before = self.nodes[-1]
            node = Node(turn.id, before, str(turn.strategy), human=True, written=True)
            before.state, before.gold = turn.parent, node
            self.nodes.append(node)
        self.nodes[-1].end = True
        self.gold = self.nodes[1:]
        self.ends = 1  # after which the talk ends, the seed's own last one included
        self._steps: dict[Node, list[_Step]] = {}  # in which a node's judgements count

    @property
    def root(self) -> Node:
        """What stands before the first node."""
        return self.nodes[0]

    def ordered(self) -> Iterator[Node]:
        """All nodes, each behind its parent, in an order that does not depend on who was answered first."""
        below: dict[Node | None, list[Node]] = {}
        for node in self.nodes:
            below.setdefault(node.parent, []).append(node)  # siblings come at once
        waiting = [self.root]
        while waiting:
            yield (node := waiting.pop())
            waiting += reversed(below.get(node, []))

    def path(self, turn: str | None) -> list[Turn]:
        """The turns up to one, inclusive."""
        return self._tree.conversation.path(turn)

    def turn(self, parent: str, speaker: Speaker, text: str, strategy: str | None = None) -> Turn:
        """A turn that a role says; it is not in the tree yet."""
        name = self._roles.seeker.name if speaker == "seeker" else self._roles.supporter.name
        return Turn(mined_id(parent, name, strategy, text), parent, speaker, text, strategy, name)

    def plan(self, node: Node, label: str, score: float, prior: float) -> Node:
        """Add a planned child: a strategy without words."""
        source = self._roles.supporter.name
        child = Node(mined_id(node.state, source, label, None), node, label, prior, score)
        child.told = child.numbers()
        self._tree.add(Turn(child.turn, node.state, "supporter", None, label, source, scores={**child.told}))
        self.nodes.append(child)
        return child

    def write(self, node: Node, text: str) -> None:
        """Give a planned node its words."""
        self._tree.update(node.turn, text=text)
        node.written = True

    def hear(self, node: Node, text: str) -> None:
        """Add what the seeker answers to a node."""
        node.state = self._tree.add(self.turn(node.turn, "seeker", text)).id

    def back_up(self, node: Node, judged: Sequence[Node], reward: float = 0.0) -> None:
        """Equation 4, from a node to the root: the mean of what the judged nodes are worth, or a reward as it is."""
        step = _Step(node, judged, fmean(each.reward for each in judged) if judged else reward)
        for each in judged:
            self._steps.setdefault(each, []).append(step)
        for each in node.line():
            each.visits += 1
            each.total += step.reward

    def value_again(self, nodes: Iterable[Node]) -> None:
        """After more judgements of these, what was backed up is another mean."""
        for step in dict.fromkeys(step for node in nodes for step in self._steps.get(node, ())):
            before, step.reward = step.reward, fmean(each.reward for each in step.judged)
            for each in step.node.line():
                each.total += step.reward - before

    def found(self) -> Extracted:
        """What is kept and rejected as things stand, which the turns are told first."""
        for node in self.nodes:
            if (numbers := node.numbers()) != node.told:
                self._tree.update(node.turn, scores=numbers, verdicts=self._verdicts(node))
                node.told = numbers
        return self._extract(self._tree.conversation)

    def _verdicts(self, node: Node) -> list[Verdict]:
        if not node.scores:
            return []
        means = {name: round(fmean(scores[name] for scores in node.scores), 6) for name in node.scores[-1]}
        return [Verdict(self._roles.reward.name, RUBRIC, scores=means)]

    def finish(
        self, prefer: Callable[[Conversation, Extracted], Iterable[Preference]], told: dict[str, Any]
    ) -> Conversation:
        """The tree with kept turns marked, preferences, and how it was searched; checked in full."""
        self.found()
        grown = self._tree.conversation
        ids = [each for node in self.ordered() for each in (node.turn, node.state) if each]
        new = [turn for turn in map(grown.turn, dict.fromkeys(ids)) if turn.id not in self._own]
        self._tree = GrowingTree(replace(grown, turns=[*grown.turns[: len(self._own)], *new]))
        found = self._extract(self._tree.conversation)
        for turn in found.kept:
            self._tree.update(turn, scores={"kept": 1})
        for preference in prefer(self._tree.conversation, found):
            self._tree.prefer(preference)
        tree = self._tree.finish()
        return replace(tree, provenance={**tree.provenance, "search": told})
