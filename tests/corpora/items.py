"""ESConv dialogues for tests, made by hand."""

import json
from pathlib import Path
from typing import Any

from esckit.conversation import Conversation
from esckit.corpora.esconv import esconv_to_conversation


def utterance(speaker: str, content: str = "Hello.", strategy: str | None = None) -> dict[str, Any]:
    return {"speaker": speaker, "annotation": {"strategy": strategy} if strategy else {}, "content": content}


def item(**changes: Any) -> dict[str, Any]:
    """A dialogue of ESConv in four utterances."""
    return {
        "id": 7,
        "experience_type": "Current Experience",
        "emotion_type": "anxiety",
        "problem_type": "job crisis",
        "situation": "I may lose my job.",
        "survey_score": {"seeker": {"empathy": "5"}, "supporter": {}},
        "dialog": [
            utterance("supporter", "What brings you here?", "Question"),
            utterance("seeker", " My job. \n"),
            utterance("supporter", "You sound worried.", "Reflection of feelings"),
            utterance("supporter", "Since when?", "Question"),
        ],
        "seeker_question1": "",
        **changes,
    }


def failed_item(**changes: Any) -> dict[str, Any]:
    """A dialogue of FailedESConv, with one of its own labels and a feedback score."""
    return {
        "situation": "I am sad.",
        "dialog": [
            {"speaker": "speaker", "annotation": {"feedback": "2"}, "content": "Hey there\n"},
            utterance("listener", "Go for a run.", "Direct Guidance"),
        ],
        **changes,
    }


def conversations(count: int) -> list[Conversation]:
    """``esconv-0``, ``esconv-1``, ..."""
    return [esconv_to_conversation(item(id=number), number) for number in range(count)]


def write_items(path: Path, items: Any) -> Path:
    path.write_text(json.dumps(items), encoding="utf-8")
    return path
