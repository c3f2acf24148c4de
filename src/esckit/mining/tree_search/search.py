"""Monte Carlo tree search over (strategy, reply) from one dialogue (CSO, section 3.1).

What a search does depends on its dialogue, its seed and the roles' answers alone. So a search that was killed is done
again from a ledger of answers, and ends in the same tree.
"""

import asyncio
from collections.abc import Callable, Iterable
from itertools import pairwise
from statistics import fmean
from typing import Final

from esckit.conversation import Conversation, Preference, Turn
from esckit.mining.tree_search.asking import Asking
from esckit.mining.tree_search.extraction import Extracted, Rule, extract, preferences
from esckit.mining.tree_search.nodes import Node
from esckit.mining.tree_search.options import MODES, SearchOptions
from esckit.mining.tree_search.roles import END, Roles, Scored
from esckit.mining.tree_search.searched import SearchedTree

__all__ = ["TreeSearch"]

_WINDOW: Final = 10  # iterations after which pairs are counted, and turns that decide them are judged again, at least
_SHARE: Final = 10  # or this part of all, so that a long search looks at its tree as often as makes it linear
_PLANTED: Final = 100  # visits of the seed's own turns, each worth 1, as coded
_MISSING: Final = 0.1  # prior of a gold strategy that the strategy role left out; the others share the rest


class TreeSearch:
    """One search. `run` may be called again with a larger allowance; `finish` gives the tree.

    Args:
        seed: a dialogue; its trunk is the gold path.
        roles: who answers.
        options: the switches.
        number: the seed of the draws, 0 or more.
        gate: lets so many questions be under way at once.
    """

    def __init__(
        self, seed: Conversation, roles: Roles, options: SearchOptions, number: int, gate: asyncio.Semaphore
    ) -> None:
        self.options = options
        self.asking = Asking(seed, roles, number, gate)
        self.theta = roles.reward.theta if options.theta is None else options.theta
        self.rule = Rule(options.keep, self.theta, options.decoupled, roles.reward.name)
        self.curve: list[list[int]] = []
        self.iterations = 0
        self.on_step: Callable[[TreeSearch], None] = lambda _: None  # is called after each iteration
        self.number = number
        self.tree = SearchedTree(seed, roles, self.extract)
        self._planted = False
        self._since = 0  # iterations since the number of pairs last grew

    @property
    def most(self) -> int:
        """The most iterations that there will be."""
        return self.options.most_iterations

    @property
    def last(self) -> list[int]:
        """Iterations, ends, pairs and calls when pairs were counted last."""
        return self.curve[-1] if self.curve else [0, 0, 0, 0]

    @property
    def spent(self) -> int:
        """Questions asked so far."""
        return self.asking.calls.total()

    @property
    def planting(self) -> int:
        """Questions that are asked before the first iteration."""
        roles, options = self.asking.roles, self.options
        each = roles.reward.calls if options.gold == "judged" else 0
        return len(self.tree.gold) * (each + (roles.strategy.calls if options.expand == "child" else 0))

    @property
    def dearest(self) -> int:
        """The most questions that one iteration can take."""
        roles, options = self.asking.roles, self.options
        step = roles.seeker.calls + roles.supporter.calls + roles.strategy.calls + roles.reward.calls
        if options.expand == "child":
            return step * (options.rollout + 1) + roles.seeker.calls + roles.supporter.calls
        # On its way a search asks for the strategies after people's turns as well, once each.
        way = roles.strategy.calls * sum(node.children is None for node in (self.tree.root, *self.tree.gold[:-1]))
        return options.leaves * step * (options.rollout + 1) + way

    @property
    def _sample(self) -> int:
        """Which answer to a question: the first where simulations stay, else this iteration's own."""
        return 0 if self.options.expand == "leaf" else self.iterations + 1

    # ------------------------------------------------------------------------------------------------------- running

    async def run(self, allowance: int | None = None) -> str:
        """Search until it stops; return why: iterations, ends, patience, exhausted, budget.

        Args:
            allowance: questions that it may ask in all, those of earlier calls included; None is any number.
        """
        if not self._planted:
            await self._plant()
            self._planted = True
        while (why := self._stops(allowance)) is None:
            if not await self._iterate():
                why = "exhausted"
                break
            self.iterations += 1
            self.on_step(self)
            if self.iterations - self.last[0] >= max(_WINDOW, self.iterations // _SHARE):
                await self._look(allowance)
        await self._look(allowance)
        return why

    def _stops(self, allowance: int | None) -> str | None:
        options, done, ends = self.options, self.iterations, self.tree.ends
        if allowance is not None and self.spent + self.dearest > allowance:
            return "budget"
        if options.patience is not None and self._since >= options.patience:
            return "patience"
        if ends >= options.most_ends:
            return "ends"
        if done >= options.most_iterations:
            return "iterations"
        if done < options.iterations or ends < options.ends:
            return None
        # As coded, a search does not stop where an end is what it would look at next.
        following = self._childless() if options.expand == "child" else None
        return None if following is not None and following.end else "iterations"

    async def _plant(self) -> None:
        """Let the seed's own turns stand in the tree with what they count for."""
        options = self.options
        path = [self.tree.root, *self.tree.gold]
        for before, node in pairwise(path):
            if options.expand == "child":
                # As coded, the strategy role then sees nothing of what stands before the first node.
                await self._grow(before, 0 if options.sees_opening else len(self.tree.path(self.tree.root.turn)))
            if options.gold == "judged" and await self._judge(node, 0):
                self.tree.back_up(node, [node] if options.expand == "leaf" else [], node.reward)
        if options.gold == "planted":
            for node in path:
                node.planted = node.visits = _PLANTED
                node.total = float(_PLANTED)

    async def _iterate(self) -> bool:
        """One iteration; False where nothing is left to look at."""
        if self.options.expand == "child":
            leaf = self._childless()
            if leaf is not None:
                await self._expand_child(leaf)
            return leaf is not None
        chosen: list[Node] = []
        while len(chosen) < self.options.leaves and (node := await self._unvisited()) is not None:
            node.waiting = True
            for each in node.line():
                each.virtual += 1
            chosen.append(node)
        looked = await asyncio.gather(*(self._expand_leaf(node) for node in chosen))
        # Backed up in the order in which they were selected, whoever was answered first.
        for node, judged in zip(chosen, looked, strict=True):
            node.waiting = False
            for each in node.line():
                each.virtual -= 1
            if judged:
                self.tree.back_up(node, judged)
        self.tree.value_again(node for judged in looked for node in judged if len(node.rewards) > 1)
        return bool(chosen)

    # ----------------------------------------------------------------------------------------------------- selection

    def _best(self, node: Node) -> Node | None:
        """The open child of the greatest PUCB, of equal ones the first."""
        exploration, loss = self.options.exploration, self.asking.roles.reward.lowest
        free = [
            child for child in node.children or () if not child.closed and not child.waiting and self._followed(child)
        ]
        return max(free, key=lambda child: child.pucb(exploration, loss), default=None)

    def _followed(self, node: Node) -> bool:
        """Whether the search goes on from a node: perhaps from people's turns and what is worth keeping alone."""
        low = bool(node.rewards) and not node.human and node.reward <= self.theta
        return not (low and self.options.follow == "kept")

    def _childless(self) -> Node | None:
        """By PUCB down to a node without children (section 3.1.2); None where all is closed."""
        node = self.tree.root
        while node.children:
            best = self._best(node)
            if best is None:
                if node is self.tree.root:
                    return None
                node.closed, node = True, self.tree.root
            else:
                node = best
        return node

    async def _unvisited(self) -> Node | None:
        """By PUCB down to a node that was not looked at, or an end; what was looked at gets its children on the way.

        Where that fails it returns the node, which is closed then: an iteration asks for no more than `dearest`.
        """
        node = self.tree.root
        while node is self.tree.root or ((node.visits or node.asked) and not node.end):
            if node.children is None:
                await self._grow(node)
                if node.end or node.closed:
                    return node
            if (best := self._best(node)) is not None:
                node = best
            elif node is self.tree.root or any(child.waiting for child in node.children or ()):
                return None
            else:
                node.closed, node = True, self.tree.root
        return node

    # ----------------------------------------------------------------------------------------- expansion, simulation

    async def _expand_child(self, leaf: Node) -> None:
        """Expand a leaf, then its likeliest child; simulate from there, and back up what it is worth."""
        if not (leaf.written or await self._write(leaf)):
            return
        if leaf.end:
            known = self.options.rewards_stay and leaf.rewards
            if known or await self._judge(leaf, self._sample):
                self.tree.back_up(leaf, [], leaf.rewards[-1])
            return
        await self._grow(leaf)
        child = self._likeliest(leaf)
        if child is None or not (child.written or await self._write(child)):
            return
        simulated = [] if child.end else await self._simulated(child)
        own = not simulated or self.options.reward_over == "all"
        rewards = [child.rewards[-1]] if own and await self._judge(child, self._sample) else []
        rewards += [judged.reward for path in simulated if (judged := await self.asking.judge(path, self._sample))]
        child.closed = not rewards
        if rewards:
            self.tree.back_up(child, [], fmean(rewards))

    async def _simulated(self, node: Node) -> list[list[Turn]]:
        """Greedy turns after a node, which leave no trace in the tree: the path up to each (section 3.1.4)."""
        paths: list[list[Turn]] = []
        path = self.tree.path(node.state)
        for _ in range(self.options.rollout):
            rated = await self.asking.rate(path, self._sample)
            if not rated:
                break
            strategy = max(rated, key=lambda label: rated[label].score)
            text = await self.asking.reply(path, strategy, self._sample)
            if text is None:
                break
            path = [*path, self.tree.turn(path[-1].id, "supporter", text, strategy)]
            paths.append(path)
            answer = await self.asking.answer(path, self._sample)
            if not answer:
                break
            path = [*path, self.tree.turn(path[-1].id, "seeker", answer)]
        return paths

    async def _expand_leaf(self, leaf: Node) -> list[Node]:
        """Write and judge a leaf and the likeliest turns after it; return the nodes whose judgements count."""
        if leaf.closed or not await self._looked_at(leaf):
            return []
        judged, node = [leaf], leaf
        for _ in range(self.options.rollout):
            if node.end or not self._followed(node):
                break
            if node.children is None:
                await self._grow(node)
            following = self._likeliest(node)
            if following is None or not await self._looked_at(following):
                break
            judged.append(following)
            node = following
        return judged[1:] if self.options.reward_over == "rollout" and len(judged) > 1 else judged

    async def _looked_at(self, node: Node) -> bool:
        """Whether a node has a text and a judgement now; an end is to be judged once more each time, until enough."""
        if not (node.written or await self._write(node)):
            return False
        once = not node.end or self.asking.roles.reward.deterministic
        enough = 1 if once else self.options.judgements
        judged = await self._judge(node, node.asked) if node.asked < enough else bool(node.rewards)
        node.closed |= node.end and node.asked >= enough
        return judged

    def _likeliest(self, node: Node) -> Node | None:
        """The open child of the greatest strategy score, of equal ones the first."""
        return max((child for child in node.children or () if not child.closed), key=lambda c: c.score, default=None)

    async def _write(self, node: Node) -> bool:
        """Give a planned node its reply, and where it is time the seeker's; False where one could not be had."""
        assert node.parent is not None
        text = await self.asking.reply(self.tree.path(node.parent.state), node.strategy, self._sample)
        if text is None:
            node.closed = True
            return False
        self.tree.write(node, text)
        return self.options.ask_seeker == "when_needed" or await self._hear(node)

    async def _hear(self, node: Node) -> bool:
        """Ask what the seeker answers, or whether the talk is over; False where that could not be had."""
        answer = await self.asking.answer(self.tree.path(node.turn), self._sample)
        if answer is None:
            node.closed = True
            return False
        node.end = answer == END
        self.tree.ends += node.end
        if not node.end:
            self.tree.hear(node, answer)
        return True

    async def _judge(self, node: Node, sample: int) -> bool:
        """Judge a node once more; where that could not be had the search does not come back, unless it was visited."""
        judged = await self.asking.judge(self.tree.path(node.turn), sample)
        node.asked += 1
        if judged is None:
            node.closed |= not (node.visits or node.rewards or node.human)
            return False
        node.rewards.append(judged.reward)
        node.scores.append(judged.scores)
        return True

    async def _grow(self, node: Node, unseen: int = 0) -> None:
        """Ask for the strategies after a node, which become its planned children.

        The role does not see so many of the first turns. Where it gives no answer the node is closed, but for one of
        the seed's own, which keeps its next one as the only child.
        """
        if node.state is None and (not await self._hear(node) or node.end):
            return
        rated = await self.asking.rate(self.tree.path(node.state)[unseen:], self._sample)
        gold = node.gold
        if not rated:
            node.closed = gold is None
            node.children = [gold] if gold else None
            return
        if gold and gold.strategy not in rated:
            rated = {label: each._replace(prior=each.prior * (1 - _MISSING)) for label, each in rated.items()}
            rated[gold.strategy] = Scored(0.0, _MISSING)
        shared = self.options.gold_label == "shared"
        node.children = [gold] if gold and not shared else []
        for label, (score, prior) in rated.items():
            if gold and label == gold.strategy:
                gold.score, gold.prior = score, prior
            node.children.append(
                gold if gold and shared and label == gold.strategy else self.tree.plan(node, label, score, prior)
            )

    # ---------------------------------------------------------------------------------------------------------- pairs

    async def _look(self, allowance: int | None) -> None:
        """Judge again what decides pairs, as long as that changes which there are; then count them."""
        if self.curve and self.curve[-1][0] == self.iterations and self.curve[-1][3] == self.spent:
            return
        while again := self._in_doubt(allowance):
            await asyncio.gather(*(self._judge(node, -node.asked) for node in again))  # other samples than elsewhere
            self.tree.value_again(again)
        pairs = len(self.tree.found().pairs)
        most = max((point[2] for point in self.curve), default=0)
        self._since = 0 if pairs > most else self._since + self.iterations - self.last[0]
        self.curve.append([self.iterations, self.tree.ends, pairs, self.spent])

    def _in_doubt(self, allowance: int | None) -> list[Node]:
        """The nodes that decide a pair by fewer judgements than they may have; as many as can be paid for."""
        options, reward = self.options, self.asking.roles.reward
        if options.judgements == 1 or reward.deterministic or not options.rewards_stay:
            return []
        deciding = {turn for pair in self.tree.found().pairs for turn in pair}
        found = [node for node in self.tree.ordered() if node.turn in deciding and node.asked < options.judgements]
        return found if allowance is None else found[: max(0, (allowance - self.spent) // reward.calls)]

    def extract(self, tree: Conversation) -> Extracted:
        """What is kept and rejected in the tree."""
        return extract(tree, self.rule)

    def prefer(self, tree: Conversation, found: Extracted) -> Iterable[Preference]:
        """The preferences that the pairs are."""
        return preferences(tree, found, self.rule)

    def finish(self, stopped: str) -> Conversation:
        """The searched tree (docs/mining.md), checked in full.

        Args:
            stopped: what `run` returned last.
        """
        roles, options, asking = self.asking.roles, self.options, self.asking
        told = {
            **{"method": options.method, "mode": options.mode, "leaves": options.leaves},
            "switches": {name: getattr(options, name) for name in MODES[options.mode]},
            **{"theta": self.theta, "seed": self.number, "root": self.tree.root.turn},
            "roles": {name: getattr(roles, name).name for name in asking.calls},
            **{"iterations": self.iterations, "stopped": stopped, "ends": self.tree.ends},
            **{"calls": dict(asking.calls), "unanswered": dict(+asking.unanswered)},
            "curve": self.curve,
        }
        return self.tree.finish(self.prefer, told)
