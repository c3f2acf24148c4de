"""What a search asks its roles, counted, with so many questions under way at once."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from esckit.conversation import Conversation, Turn
from esckit.decoding import seed_of
from esckit.mining.tree_search.roles import Judged, Roles, Scored, SpeakingRole, Talk

__all__ = ["Asking"]

Answer = TypeVar("Answer")


class Asking:
    """One dialogue's questions.

    Args:
        seed: the dialogue.
        roles: who answers.
        number: the seed of the draws.
        gate: lets so many questions of all dialogues be under way at once; what asks nobody passes it.
    """

    def __init__(self, seed: Conversation, roles: Roles, number: int, gate: asyncio.Semaphore) -> None:
        self.roles = roles
        self.calls: Counter[str] = Counter(dict.fromkeys(("seeker", "supporter", "strategy", "reward"), 0))
        self.unanswered: Counter[str] = Counter()
        self._seed, self._number, self._gate = seed, number, gate

    async def reply(self, path: Sequence[Turn], strategy: str, sample: int) -> str | None:
        """What the supporter says after a path; None where no answer could be had, as in the others."""
        return await self._said("supporter", self.roles.supporter, path, strategy, sample)

    async def answer(self, path: Sequence[Turn], sample: int) -> str | None:
        """What the seeker says, or `roles.END`."""
        return await self._said("seeker", self.roles.seeker, path, None, sample)

    async def rate(self, path: Sequence[Turn], sample: int) -> dict[str, Scored] | None:
        """Which strategies fit after a path."""
        role = self.roles.strategy
        return await self._ask("strategy", role.calls, lambda: role.rate(self._talk(path, sample)))

    async def judge(self, path: Sequence[Turn], sample: int) -> Judged | None:
        """How good the last turn of a path is."""
        role = self.roles.reward
        return await self._ask("reward", role.calls, lambda: role.judge(self._talk(path, sample)))

    async def _said(
        self, name: str, role: SpeakingRole, path: Sequence[Turn], strategy: str | None, sample: int
    ) -> str | None:
        return await self._ask(name, role.calls, lambda: role.say(self._talk(path, sample), strategy))

    def _talk(self, path: Sequence[Turn], sample: int) -> Talk:
        return Talk(self._seed, path, seed_of(self._number, sample))

    async def _ask(self, name: str, calls: int, answer: Callable[[], Awaitable[Answer | None]]) -> Answer | None:
        self.calls[name] += calls
        if calls:
            async with self._gate:
                found = await answer()
        else:
            found = await answer()
        self.unanswered[name] += found is None
        return found
