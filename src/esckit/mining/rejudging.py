"""A judge that did not mine looks again: which of two replies to one context is better."""

import asyncio
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Self

import numpy as np
from pydantic import model_validator

from esckit.chat_models.asker import runner
from esckit.chat_models.ledger import Ledger
from esckit.chat_models.opening import REMOTE
from esckit.conversation import Conversation, Turn
from esckit.decoding import seed_of
from esckit.judging.better_reply import AcceptOptions, Sides, acceptor_name, advantages
from esckit.judging.plan import also_mined
from esckit.mining.pairs import Pair
from esckit.mining.tree_search.open_roles import open_reward
from esckit.mining.tree_search.options import RewardOptions
from esckit.mining.tree_search.roles import Talk
from esckit.supporters.open_model import open_model

__all__ = ["Looked", "RejudgeOptions", "look_again", "looked_at", "who_also_mined"]

_ANNOTATOR: Final = "annotator:"


class RejudgeOptions(AcceptOptions):
    """Who looks again.

    Attributes:
        by: of a chat model: ``duels``, asked which reply is better, in both orders; or ``digits``, on this machine:
            each reply is scored by the probabilities of digits (`tree_search.digits`), one after the other.
    """

    by: Literal["duels", "digits"] = "duels"

    @model_validator(mode="after")
    def _digits_are_read_here(self) -> Self:
        if self.by == "digits" and (self.model.startswith(REMOTE) or not self.asks):
            raise ValueError(
                f"by: digits reads the probabilities of a chat model on this machine, and {self.model} is none: "
                "leave by out"
            )
        return self

    @property
    def both_orders(self) -> bool:
        """Whether a pair is shown twice, once in each order; else each reply is looked at alone."""
        return self.asks and self.by == "duels"


class Looked(NamedTuple):
    """Two replies that are looked at; each is a turn after ``path``."""

    tree: Conversation
    path: Sequence[Turn]
    first: Turn
    second: Turn


def looked_at(pair: Pair) -> Looked:
    """The sides of a pair, the chosen one first."""
    tree = pair.conversation
    return Looked(tree, tree.path(pair.chosen.parent), pair.chosen, pair.rejected)


def who_also_mined(options: RejudgeOptions, miners: Sequence[str]) -> list[str]:
    """Those of the miners (`judging.plan.mining_judges`) that are this judge."""
    name = acceptor_name(options).removeprefix(_ANNOTATOR)
    return [miner for miner in miners if also_mined(name, None, [miner.removeprefix(_ANNOTATOR)])]


def look_again(looked: Sequence[Looked], options: RejudgeOptions, ledger: Ledger, seed: int = 0) -> list[int]:
    """Say of each whether the first reply is better (1), the second (-1), or neither (0).

    Neither: a chat model's two orders name different replies, or it says tie; two scores are equal; or there is no
    usable answer.

    Raises:
        BudgetSpent, ChatError, LedgerError: the judge cannot go on; every answer so far is in the ledger.
    """
    if options.asks and options.by == "digits":
        return _by_digits(looked, options, ledger, seed)
    sides = [
        Sides(
            (each.tree.id, each.first.id),
            tuple(each.path),
            (each.first.strategy, each.first.text or ""),
            (each.second.strategy, each.second.text or ""),
            each.tree.language,
        )
        for each in looked
    ]
    better, _ = advantages(sides, options, open_model(options) if options.asks else None, ledger) if sides else ([], [])
    return [int(np.sign(each)) for each in better]


def _by_digits(looked: Sequence[Looked], options: RejudgeOptions, ledger: Ledger, seed: int) -> list[int]:
    rewards = RewardOptions(model=options.model, by="digits", prompts=None, concurrency=options.concurrency)

    async def work() -> list[int]:
        async with open_reward(rewards, ledger) as role:
            talks = [
                Talk(each.tree, [*each.path, side], seed_of(seed, each.tree.id, side.id))
                for each in looked
                for side in (each.first, each.second)
            ]
            judged = await asyncio.gather(*map(role.judge, talks))
        both = zip(judged[::2], judged[1::2], strict=True)
        return [int(np.sign(one.reward - other.reward)) if one and other else 0 for one, other in both]

    with runner() as run:
        found: list[int] = run(work())
    return found
