"""Roles that answer from fixed tables, so that a search can be followed by hand.

A talk is written as its texts without spaces: ``o`` is what the seeker opens with, ``1`` and ``2`` are people's
replies, a reply under a strategy is its letter, and a seeker's answer is ``-``.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Final

from esckit.conversation import Conversation, Turn
from esckit.mining.tree_search.options import SearchOptions
from esckit.mining.tree_search.roles import END, Judged, Roles, Scored, Talk
from esckit.mining.tree_search.search import TreeSearch
from esckit.strategy import CSO

LABELS: Final = dict(zip("ABC", CSO.labels, strict=False))
LETTERS: Final = {label: letter for letter, label in LABELS.items()}


def gold() -> Conversation:
    """Two replies of people: the first under A, the second under B."""
    turns = [
        Turn("o", None, "seeker", "o"),
        Turn("g1", "o", "supporter", "1", LABELS["A"]),
        Turn("s1", "g1", "seeker", "-"),
        Turn("g2", "s1", "supporter", "2", LABELS["B"]),
        Turn("s2", "g2", "seeker", "-"),
    ]
    return Conversation("gold", turns, taxonomy="cso")


class Script:
    """Plays all roles; ``log`` has each question as "role talk", ``samples`` which answer was asked for.

    Args:
        strategies: of a talk from the first reply on: letter to (score, prior). What the seeker opened with is no part
            of it, so that a role that does not see it answers alike.
        ends: talks that the seeker ends.
        rewards: of a talk, one after the other.
    """

    def __init__(
        self,
        strategies: Mapping[str, Mapping[str, tuple[float, float]]],
        ends: set[str],
        rewards: dict[str, list[float]],
    ) -> None:
        self.log: list[str] = []
        self.samples: list[int] = []
        self._strategies, self._ends, self._rewards = strategies, ends, rewards
        self._judged: Counter[str] = Counter()
        self.roles = Roles(_Speaker(self, "seeker"), _Speaker(self, "supporter"), _Strategies(self), _Judge(self))

    def asked(self, role: str, talk: Talk, letter: str = "") -> str:
        """Write down a question; the talk as a string."""
        said = "".join(str(turn.text) for turn in talk.path)
        self.log.append(f"{role} {said}{letter and ' as ' + letter}")
        self.samples.append(talk.sample)
        return said

    def search(self, **given: object) -> TreeSearch:
        """A search by these roles."""
        options = SearchOptions.model_validate({"strategy": {"model": "script"}, **given})
        return TreeSearch(gold(), self.roles, options, 0, asyncio.Semaphore(1))


class _Speaker:
    calls = 1

    def __init__(self, script: Script, role: str) -> None:
        self.script, self.name = script, role

    async def say(self, talk: Talk, strategy: str | None = None) -> str | None:
        letter = LETTERS[strategy] if strategy else ""
        said = self.script.asked(self.name, talk, letter)
        return letter or (END if said in self.script._ends else "-")


class _Strategies:
    name, calls = "strategies", 1

    def __init__(self, script: Script) -> None:
        self.script = script

    async def rate(self, talk: Talk) -> dict[str, Scored] | None:
        said = self.script.asked("strategy", talk).removeprefix("o")
        return {LABELS[letter]: Scored(*scored) for letter, scored in self.script._strategies[said].items()}


class _Judge:
    name, calls = "judge", 1
    lowest, highest, theta, deterministic = -3.0, 1.0, 0.5, False

    def __init__(self, script: Script) -> None:
        self.script = script

    async def judge(self, talk: Talk) -> Judged | None:
        said = self.script.asked("reward", talk)
        reward = self.script._rewards[said][self.script._judged[said]]
        self.script._judged[said] += 1
        return Judged(reward, {"reward": reward})
