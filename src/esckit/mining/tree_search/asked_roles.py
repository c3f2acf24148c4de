"""The roles of a search that a chat model plays in words: its prompts, and how its answers are read.

Seeker and supporter speak in chat messages, as a chat model was trained to; who scores is shown the talk as quoted
data. Every question goes through the ledger. An answer that is not there or cannot be read is None.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from pydantic import BaseModel, Field

from esckit.chat_models.json_replies import schema_text
from esckit.chat_models.ledger import Outcome
from esckit.chat_models.live import LiveAsker
from esckit.chat_models.protocol import ChatRequest
from esckit.conversation import Turn
from esckit.conversation.turn_rule import Message, to_messages
from esckit.decoding import Decoding
from esckit.mining.pairs import normalise
from esckit.mining.tree_search.options import RewardOptions, RoleOptions, StrategyOptions
from esckit.mining.tree_search.roles import END, Judged, Scored, Talk
from esckit.mining.tree_search.said import clean_reply, ends_the_talk
from esckit.prompts.transcript import quote, transcript
from esckit.strategy import Taxonomy, fold_label

__all__ = ["QUALITIES", "AskedReward", "AskedSeeker", "AskedStrategies", "AskedSupporter", "DigitScores"]

QUALITIES: Final = ("empathy", "information", "humanlikeness", "strategy")
"""What a chat model scores a reply for, each from 0 to 4 (CSO, table 13)."""

_HIGHEST: Final = 4
_THETA: Final = 0.5  # CSO, section 3.2
_KNOWN: Final = ("situation", "problem_type", "emotion_type")
_ONE_DIGIT: Final = Decoding(greedy=True, max_new_tokens=1)  # nothing is drawn


class _StrategyScore(BaseModel):
    strategy: str
    score: int = Field(ge=0, le=10)


class _StrategyScores(BaseModel):
    """What a chat model says of the strategies: a list, so that one may be missing."""

    scores: list[_StrategyScore]


class _WordScores(BaseModel):
    """What a chat model says of a reply; the explanation comes first, so that it is not made up for the scores."""

    explanation: str
    empathy: int = Field(ge=0, le=_HIGHEST)
    information: int = Field(ge=0, le=_HIGHEST)
    humanlikeness: int = Field(ge=0, le=_HIGHEST)
    strategy: int = Field(ge=0, le=_HIGHEST)


class DigitScores(BaseModel):
    """The same as expected values (`digits.DigitsModel`)."""

    empathy: float = Field(ge=0, le=_HIGHEST)
    information: float = Field(ge=0, le=_HIGHEST)
    humanlikeness: float = Field(ge=0, le=_HIGHEST)
    strategy: float = Field(ge=0, le=_HIGHEST)


class AskedSeeker:
    """The person who came for support, from what the seed dialogue tells of situation, problem and emotion."""

    calls = 1

    def __init__(self, live: LiveAsker, name: str, options: RoleOptions, taxonomy: Taxonomy) -> None:
        self.name = name
        self._live, self._decoding, self._taxonomy = live, options.decoding, taxonomy
        self._prompts = options.read_prompts()

    async def say(self, talk: Talk, strategy: str | None = None) -> str | None:
        """The seeker's next turn; `END` where the end mark stands anywhere in the answer. ``strategy`` is not read.

        Words that were said before are no answer: a small model repeats what it reads, and then goes on so.
        """
        system = self._prompts.fill("seeker", person=_person(talk))
        last = self._prompts.fill("seeker_turn")
        messages = _spoken([_turned(turn) for turn in talk.path], {}, system, last)
        outcome = await self._live.ask(ChatRequest(messages, self._decoding, sample=talk.sample))
        if outcome.state == "done" and ends_the_talk(outcome.text):
            return END
        text = _said(outcome, self._taxonomy, last)
        said = {normalise(turn.text or "") for turn in talk.path}
        return None if text is not None and normalise(text) in said else text


class AskedSupporter:
    """Words a reply under a strategy. What siblings share stands first in the prompt, their strategy last."""

    calls = 1

    def __init__(self, live: LiveAsker, name: str, options: RoleOptions, taxonomy: Taxonomy) -> None:
        self.name = name
        self._live, self._decoding, self._taxonomy = live, options.decoding, taxonomy
        self._prompts = options.read_prompts()
        self._definitions = {each.label: each.definition for each in taxonomy.strategies}

    async def say(self, talk: Talk, strategy: str | None = None) -> str | None:
        """A reply to the talk under a strategy of the taxonomy; past replies show theirs."""
        assert strategy is not None, "a supporter is told its strategy"
        shown = {turn.id: turn.strategy for turn in talk.path if turn.strategy}
        last = self._prompts.fill("supporter_turn", strategy=strategy, definition=self._definitions[strategy])
        messages = _spoken(talk.path, shown, self._prompts.fill("supporter"), last)
        outcome = await self._live.ask(ChatRequest(messages, self._decoding, sample=talk.sample))
        return _said(outcome, self._taxonomy, last)


class AskedStrategies:
    """Scores each strategy of the taxonomy from 0 to 10; P is the softmax of score / ``prior_temperature``."""

    calls = 1

    def __init__(
        self, live: LiveAsker, name: str, options: StrategyOptions, taxonomy: Taxonomy, prior_temperature: float
    ) -> None:
        self.name = name
        self._live, self._decoding, self._temperature = live, options.decoding, prior_temperature
        self._prompts = options.read_prompts()
        self._labels = {fold_label(label): label for label in taxonomy.labels}
        definitions = "\n".join(f"- {each.label}: {each.definition}" for each in taxonomy.strategies)
        self._system = Message("system", self._prompts.fill("strategy", strategies=definitions))

    async def rate(self, talk: Talk) -> dict[str, Scored] | None:
        """See `StrategyRole.rate`; a name that is no label is passed over, of a label's scores the first counts."""
        asked = self._prompts.fill("strategy_turn", transcript=_talk(talk.path), schema=schema_text(_StrategyScores))
        messages = (self._system, Message("user", asked))
        outcome = await self._live.ask(ChatRequest(messages, self._decoding, _StrategyScores, talk.sample))
        if outcome.state != "done":
            return None
        scores: dict[str, int] = {}
        for each in outcome.value(_StrategyScores).scores:
            if label := self._labels.get(fold_label(each.strategy)):
                scores.setdefault(label, each.score)
        return self._scored({label: scores[label] for label in self._labels.values() if label in scores}) or None

    def _scored(self, scores: Mapping[str, int]) -> dict[str, Scored]:
        weights = {label: math.exp(score / self._temperature) for label, score in scores.items()}
        return {label: Scored(score, weights[label] / sum(weights.values())) for label, score in scores.items()}


class AskedReward:
    """Scores a reply for four qualities; R = (E + I + H + alpha S) / 10 + bias (CSO, equation 2).

    ``deterministic`` says that another sample gives the same answer, as the expected values of digits do.
    """

    calls = 1
    theta = _THETA

    def __init__(self, live: LiveAsker, name: str, options: RewardOptions) -> None:
        self.name = name
        self.deterministic = options.by == "digits"
        self._live, self._options = live, options
        self._prompts = options.read_prompts()
        self._system = Message("system", self._prompts.fill("reward"))
        self.lowest, self.highest = (self._reward(dict.fromkeys(QUALITIES, score)) for score in (0, _HIGHEST))

    async def judge(self, talk: Talk) -> Judged | None:
        """See `RewardRole.judge`."""
        outcome = await self._live.ask(self._request(talk))
        if outcome.state != "done":
            return None
        schema: type[BaseModel] = DigitScores if self.deterministic else _WordScores
        answer = outcome.value(schema).model_dump()
        scores = {quality: float(answer[quality]) for quality in QUALITIES}
        return Judged(self._reward(scores), scores)

    def _request(self, talk: Talk) -> ChatRequest:
        reply = talk.path[-1]
        case = self._prompts.fill(
            "reward_case", transcript=_talk(talk.path[:-1]), reply=transcript([reply], strategies=True)
        )
        if self.deterministic:
            return ChatRequest((self._system, Message("user", case)), _ONE_DIGIT, DigitScores)
        words = self._prompts.fill("reward_words", schema=schema_text(_WordScores))
        messages = (self._system, Message("user", f"{case}\n\n{words}"))
        return ChatRequest(messages, self._options.decoding, _WordScores, talk.sample)

    def _reward(self, scores: Mapping[str, float]) -> float:
        empathy, information, humanlikeness, strategy = (scores[quality] for quality in QUALITIES)
        return (empathy + information + humanlikeness + self._options.alpha * strategy) / 10 + self._options.bias


def _person(talk: Talk) -> str:
    """What is known of the seeker, as quoted data."""
    known = {"situation": talk.seed.situation, **talk.seed.labels}
    lines = [f"{name.removesuffix('_type')}: {quote(str(known[name]).strip())}" for name in _KNOWN if known.get(name)]
    return "\n".join(lines) or "nothing but what you have said in the talk"


def _turned(turn: Turn) -> Turn:
    """The turn as the seeker's model sees it, to whom the supporter is the user."""
    return replace(turn, speaker="seeker" if turn.speaker == "supporter" else "supporter")


def _spoken(path: Sequence[Turn], shown: Mapping[str, str], system: str, last: str) -> tuple[Message, ...]:
    """System text, the talk as chat messages, and at the end of the last one what is asked now."""
    *before, end = to_messages(path, shown)
    return (Message("system", system), *before, Message("user", f"{end.content.strip()}\n\n{last}".strip()))


def _talk(path: Sequence[Turn]) -> str:
    return transcript(path, strategies=True) or "(nothing was said before)"


def _said(outcome: Outcome, taxonomy: Taxonomy, asked: str) -> str | None:
    if outcome.state != "done":
        return None
    return clean_reply(outcome.text, taxonomy, asked=asked, cut=outcome.finish == "length")
