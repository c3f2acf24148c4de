"""A scripted model of a search: every reply has a true quality, which judges see through noise.

A reply's quality is Gaussian (mean -.15, deviation .42; .4 for people's replies); .25 of what its parent's has above
the mean is added; it is clipped to -3..1. One judgement adds noise of .4 and is rounded to .1. A strategy's score is
6 + 2.2 times the standardised quality + noise of 1.8, rounded, 0 to 10. The seeker ends with probability .01 before the
fifth reply, then .08 for each reply beyond the fourth. All is drawn from hashes of what was said and of the sample, so
answers depend on nothing else.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from functools import cache
from math import exp
from typing import Final

import numpy as np

from esckit.conversation import Conversation, Turn
from esckit.mining.tree_search.options import SearchOptions
from esckit.mining.tree_search.roles import END, Judged, Roles, Scored, Talk
from esckit.strategy import CSO

MEAN: Final = -0.15
DEVIATION: Final = 0.42
PEOPLE: Final = 0.4  # mean of people's replies
KEPT: Final = 0.25  # of the parent's excess over the mean
NOISE: Final = 0.4  # of one judgement
SCORE_NOISE: Final = 1.8


def _random(*parts: object) -> np.random.Generator:
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def dialogue(number: int, least: int = 6, most: int = 9) -> Conversation:
    """A gold path of 6 to 9 replies under random strategies, each answered."""
    draw = _random("dialogue", number)
    turns = [Turn("0", None, "seeker", f"I cannot sleep, case {number}.")]
    for index in range(int(draw.integers(least, most + 1))):
        label = CSO.labels[draw.integers(len(CSO.labels))]
        turns.append(Turn(f"g{index}", turns[-1].id, "supporter", f"people say {number} {index}", label))
        turns.append(Turn(f"s{index}", turns[-1].id, "seeker", f"I answer {number} {index}"))
    return Conversation(f"toy-{number}", turns, taxonomy="cso")


def quality(path: Sequence[Turn]) -> float:
    """True quality of a path's last reply, -3 to 1."""
    return _quality(
        *((each.strategy, each.text, each.source == "human") for each in path if each.speaker == "supporter")
    )


@cache
def _quality(*said: tuple[str | None, str | None, bool]) -> float:
    excess = _quality(*said[:-1]) - MEAN if len(said) > 1 else 0.0
    key = [(strategy, text) for strategy, text, _ in said]
    mean = PEOPLE if said[-1][2] else MEAN
    return float(np.clip(_random("quality", key).normal(mean, DEVIATION) + KEPT * excess, -3, 1))


class Toy:
    """Plays all four roles; ``calls`` counts what each was asked, ``log`` has every question in its order.

    Args:
        strategies: how many calls one answer of the strategy role takes: 1 of a chat model, 0 of a planner.
        faults: share of answers that do not come.
    """

    def __init__(self, strategies: int = 1, faults: float = 0.0) -> None:
        self.faults = faults
        self.log: list[tuple[str, tuple[str | None, ...], str | None]] = []
        self.roles = Roles(
            _Speaker(self, "seeker"), _Speaker(self, "supporter"), _Strategies(self, strategies), _Judge(self)
        )

    async def asked(self, role: str, talk: Talk, label: str | None = None) -> np.random.Generator | None:
        """Write down a question; the random numbers of its answer, None where none comes."""
        self.log.append((role, tuple(turn.text for turn in talk.path), label))
        said = [(turn.strategy, turn.text) for turn in talk.path]
        draw = _random(role, talk.seed.id, said, label, talk.sample)
        await asyncio.sleep(0)
        return None if draw.random() < self.faults else draw


class _Speaker:
    calls = 1

    def __init__(self, toy: Toy, role: str) -> None:
        self.toy, self.name = toy, f"toy-{role}"

    async def say(self, talk: Talk, strategy: str | None = None) -> str | None:
        draw = await self.toy.asked(self.name.removeprefix("toy-"), talk, strategy)
        if draw is None:
            return None
        if strategy is not None:
            return f"{strategy} {draw.integers(1 << 60):x}"
        depth = sum(turn.speaker == "supporter" for turn in talk.path)
        ends = draw.random() < (0.01 if depth < 5 else 0.08 * (depth - 4))
        return END if ends else f"hm {draw.integers(1 << 60):x}"


class _Strategies:
    name = "toy-strategies"

    def __init__(self, toy: Toy, calls: int) -> None:
        self.toy, self.calls = toy, calls

    async def rate(self, talk: Talk) -> dict[str, Scored] | None:
        draw = await self.toy.asked("strategy", talk)
        if draw is None:
            return None
        scores = {}
        for label in CSO.labels:
            true = quality([*talk.path, Turn("?", None, "supporter", "?", label, "toy")])
            score = 6 + 2.2 * (true - MEAN) / DEVIATION + draw.normal(0, SCORE_NOISE)
            scores[label] = float(np.clip(round(score), 0, 10))
        weights = {label: exp(score / 5) for label, score in scores.items()}
        return {label: Scored(scores[label], weights[label] / sum(weights.values())) for label in scores}


class _Judge:
    name = "toy-judge"
    calls = 1
    lowest, highest, theta = -3.0, 1.0, 0.5
    deterministic = False

    def __init__(self, toy: Toy) -> None:
        self.toy = toy

    async def judge(self, talk: Talk) -> Judged | None:
        draw = await self.toy.asked("reward", talk)
        if draw is None:
            return None
        seen = round(float(np.clip(quality(talk.path) + draw.normal(0, NOISE), -3, 1)), 1)
        return Judged(seen, {"seen": seen})


def options(**given: object) -> SearchOptions:
    """Options of a search by the toy's roles."""
    return SearchOptions.model_validate({"strategy": {"model": "toy"}, **given})
