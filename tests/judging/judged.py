"""Dialogues, predictions and a judge for tests of judging."""

import json
import re
from collections.abc import Callable
from typing import Any

from esckit.chat_models.protocol import CallFailure, ChatReply
from esckit.conversation import Conversation, Turn
from esckit.judging.rubric import Rubric
from esckit.measures import Prediction
from tests.chat_models.scripted import Script

EMPATHY = Rubric(name="empathy", version=1, question="Is it warm?", scale={0: "Cold.", 1: "Mild.", 2: "Warm."})
FLUENCY = Rubric(
    name="fluency", version=1, question="Is it clear?", scale={0: "No.", 1: "Partly.", 2: "Yes."}, known_groups=()
)


def dialogues(number: int = 6, turns: int = 2) -> list[Conversation]:
    """Each with so many supporter turns, whose human replies name their dialogue."""
    return [_dialogue(f"d{place}", turns) for place in range(number)]


def _dialogue(name: str, turns: int) -> Conversation:
    said = [
        turn
        for place in range(turns)
        for turn in (
            Turn(f"s{place}", f"h{place - 1}" if place else None, "seeker", f"I am sad about {name}, part {place}."),
            Turn(f"h{place}", f"s{place}", "supporter", f"Gold for {name}, part {place}.", "Question"),
        )
    ]
    return Conversation(id=name, turns=said)


def predicted(conversations: list[Conversation], say: Callable[[str, str], str | None]) -> list[Prediction]:
    """A system that says ``say(conversation id, turn id)`` at each supporter turn."""
    return [
        Prediction(
            conversation_id=conversation.id,
            turn_id=turn.id,
            gold_strategy="Question",
            predicted_strategy="Question",
            gold_text=turn.text or "",
            predicted_text=say(conversation.id, turn.id),
        )
        for conversation in conversations
        for turn in conversation.turns
        if turn.speaker == "supporter"
    ]


def part(question: str, title: str) -> Any:
    """What stands in a prompt behind a title line: the JSON string of a reply."""
    found = re.search(rf"^{re.escape(title)}\n(.*)$", question, re.MULTILINE)
    assert found, question
    return json.loads(found[1])


def quality(question: str) -> str:
    """The quality that a prompt asks about."""
    found = re.search(r"^The quality to score, ([\w-]+):", question, re.MULTILINE)
    assert found, question
    return found[1]


def judge_by(score: Callable[[str, str], int], better: Callable[[str, str], str] | None = None) -> Script:
    """A judge that scores by (quality, reply), and picks A, B or tie by (reply A, reply B)."""

    def script(question: str, before: int) -> ChatReply | CallFailure:
        if "Reply A:" in question:
            assert better is not None
            answer: dict[str, Any] = {"better": better(part(question, "Reply A:"), part(question, "Reply B:"))}
        else:
            answer = {"score": score(quality(question), part(question, "The reply to score:"))}
        return ChatReply(json.dumps({"explanation": "so it is", **answer}), "stop")

    return script
