"""Who takes part in a round without a model: a policy that drafts what is written down, a refiner and a judge by rule.

They are rule-made and stand in tests only: what they say shows how pairs are made and counted, and nothing else.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from esckit.chat_models.protocol import ChatReply
from esckit.conversation import Conversation
from esckit.mining.self_refinement.drafting import Policy
from esckit.rendering import Part
from esckit.strategy import ESCONV
from esckit.supporters.proposing import Candidate, TurnRequest
from tests.chat_models.scripted import Script, ScriptedModel

SEEN: Final = {
    "profile": "a student",
    "emotion": "ashamed",
    "personality": "strict with themselves",
    "intention": "to be heard",
    "weakness": "it could be said to anyone",
}
_DRAFT: Final = re.compile(r'\{"strategy": "([^"]*)", "text": ("(?:[^"\\]|\\.)*")\}\n')

Says = Callable[[TurnRequest], tuple[str | None, str | None]]
"""From the place of a draft to its strategy and text."""


class Drafts:
    """A policy whose drafts a test writes down; ``asked`` has the ids of what it answered, in order."""

    taxonomy = ESCONV
    identity = "drafts"

    def __init__(self, says: Says) -> None:
        self.says = says
        self.asked: list[tuple[str, str | None]] = []
        self.opened = 0

    def propose(self, requests: Sequence[TurnRequest], on_text: Any = None) -> list[list[Candidate]]:
        found = []
        for request in requests:
            self.asked.append((request.conversation.id, request.parent))
            strategy, text = self.says(request)
            found.append([Candidate(request.strategy or strategy, text, finish="stop")])
        return found

    def policy(self, source: str = "sft", part: Part = "coupled") -> Policy:
        def opened() -> Any:
            self.opened += 1
            return self

        return Policy(source, part, opened, _shown)


def _shown(conversation: Conversation) -> dict[str, str]:
    return {turn.id: turn.strategy for turn in conversation.turns if turn.strategy}


def refinement(reply: str, *, score: Any = 2, strategy: str | None = "Affirmation and Reassurance") -> str:
    """What a refiner answers that does all it is asked."""
    told = {**SEEN, "score": score, **({"strategy": strategy} if strategy else {}), "reply": reply}
    return json.dumps(told, ensure_ascii=False)


def draft_in(question: str) -> tuple[str, str]:
    """Strategy and text of the draft that a refiner is shown."""
    *_, (strategy, text) = _DRAFT.findall(question)
    return strategy, json.loads(text)


def refiner(says: Callable[[str], str | ChatReply]) -> ScriptedModel:
    """A refiner by rule, for tests: ``says`` makes its answer, or its reply alone, of a draft's text."""

    def script(question: str, before: int) -> ChatReply:
        said = says(draft_in(question)[1])
        return said if isinstance(said, ChatReply) else ChatReply(refinement(said), "stop")

    return ScriptedModel(script)


def judge(better: Callable[[str, str], str]) -> ScriptedModel:
    """A judge by rule, for tests: ``better`` says A, B or tie of two replies."""
    replies = re.compile(r"Reply A:\n(.*)\nReply B:\n(.*)\n")

    def script(question: str, before: int) -> ChatReply:
        found = replies.search(question)
        assert found
        one, other = map(json.loads, found.groups())
        return ChatReply(json.dumps({"explanation": "By rule.", "better": better(one, other)}), "stop")

    return ScriptedModel(script)


def always(script: Script) -> ScriptedModel:
    """A model that does not look at what it is asked."""
    return ScriptedModel(script)
