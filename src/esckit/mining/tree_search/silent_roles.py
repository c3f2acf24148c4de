"""The roles of a search without words: a planner's probabilities, an annotator's probability of no error, patterns."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from esckit.conversation import Conversation, Turn
from esckit.judging.embedded_annotator import EmbeddedAnnotator
from esckit.judging.error_model import NONE
from esckit.judging.evidence import Case
from esckit.measures.patterns import TEXT_PATTERNS, patterns_of
from esckit.mining.tree_search.options import PATTERNS
from esckit.mining.tree_search.roles import Judged, Scored, Talk
from esckit.strategy import Taxonomy
from esckit.supporters.parts import Planner

__all__ = ["USUAL_NONE", "AnnotatorReward", "PatternsReward", "PlannerStrategies"]

USUAL_NONE: Final = 0.156
"""The embedded annotator's probability of no error: the median over the supporter turns with a strategy in the starter
corpus's training part. `tests/mining/tree_search/test_silent_roles.py` computes it again."""


class PlannerStrategies:
    """A planner's probabilities as P, and their logarithms as scores; every label of its taxonomy has one.

    ``hidden``: the history shows no past strategies, as planners want them in a chat (`Supporter.past_in_chat`).
    """

    calls = 0

    def __init__(self, planner: Planner, name: str, taxonomy: Taxonomy, *, hidden: bool) -> None:
        self.name = name
        self._planner, self._labels, self._hidden = planner, taxonomy.labels, hidden

    async def rate(self, talk: Talk) -> dict[str, Scored] | None:
        """See `StrategyRole.rate`; the event loop waits."""
        path = _from_its_first(talk.path)
        probe = Turn("next", path[-1].id if path else None, "supporter", None)
        shown = {} if self._hidden else {turn.id: turn.strategy for turn in path if turn.strategy}
        conversation = Conversation(talk.seed.id, [*path, probe], talk.seed.language, talk.seed.taxonomy)
        scores = self._planner.score(conversation, [probe], shown)[0]  # (K,)
        each = zip(self._labels, scores.tolist(), np.exp(scores).tolist(), strict=True)
        return {label: Scored(score, prior) for label, score, prior in each}


def _from_its_first(path: Sequence[Turn]) -> list[Turn]:
    """A path that lost its beginning begins with its first turn."""
    return [replace(turn, parent=None) if place == 0 else turn for place, turn in enumerate(path)]


class AnnotatorReward:
    """The probability that a reply has no psychological error, by an annotator that asks nobody."""

    calls = 0
    deterministic = True
    lowest = 0.0
    highest = 1.0
    theta = USUAL_NONE

    def __init__(self, annotator: EmbeddedAnnotator) -> None:
        self.name = annotator.judge
        self._annotator = annotator

    async def judge(self, talk: Talk) -> Judged | None:
        """See `RewardRole.judge`; the event loop waits."""
        *before, reply = talk.path
        (decision,) = self._annotator.decisions([Case(tuple(before), reply.strategy, reply.text or "")])
        probability = decision.probabilities[NONE]
        return Judged(probability, {NONE: probability})


class PatternsReward:
    """1 less the share of the patterns over a dialogue (`TEXT_PATTERNS`) that a reply completes: 1, 2/3, 1/3 or 0.

    It says nothing of what a reply is worth besides: ``theta`` lies between a reply that completes none and any other.
    """

    name = PATTERNS
    calls = 0
    deterministic = True
    lowest = 0.0
    highest = 1.0
    theta = 1 - 0.5 / len(TEXT_PATTERNS)

    async def judge(self, talk: Talk) -> Judged | None:
        """See `RewardRole.judge`."""
        *before, reply = talk.path
        said = [turn.text or "" for turn in before if turn.speaker == "supporter"]
        found = patterns_of(reply.text or "", said)
        return Judged(1 - len(found) / len(TEXT_PATTERNS), {name: float(name in found) for name in TEXT_PATTERNS})
