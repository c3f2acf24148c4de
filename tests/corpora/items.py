"""Dialogues in the form of each corpus for tests, made by hand."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from esckit.conversation import Conversation
from esckit.corpora.esconv import read_esconv_item
from esckit.corpora.records import Reading
from esckit.errors import CorpusError


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


def strictly(reading: Reading) -> Conversation:
    """The conversation of a record that has to be right."""
    for problem in (*reading.problems, *reading.dropped):
        raise CorpusError(problem.text)
    assert reading.conversation is not None
    return reading.conversation


def esconv_conversation(source: Any, position: int, file: str = "ESConv.json") -> Conversation:
    """A dialogue of ESConv or FailedESConv, read."""
    return strictly(read_esconv_item(source, position, file))


def conversations(count: int) -> list[Conversation]:
    """``esconv-0``, ``esconv-1``, ..."""
    return [esconv_conversation(item(id=number), number) for number in range(count)]


def write_items(path: Path, items: Any) -> Path:
    path.write_text(json.dumps(items), encoding="utf-8")
    return path


def extes_item(*replies: tuple[str | None, str], **changes: Any) -> dict[str, Any]:
    """A dialogue of ExTES: before each reply (its strategy and text) the user says something."""
    content: list[dict[str, Any]] = []
    for number, (strategy, text) in enumerate(replies or [("Offer Hope", "It will pass.")]):
        content.append({"User": f"I feel bad, {number}."})
        content.append({"AI": text, "AI Strategy": strategy} if strategy is not None else {"AI": text})
    return {"scene": "Grief", "description": "I lost my cat.", "content": content, **changes}


def counselling_item(**changes: Any) -> dict[str, Any]:
    """A dialogue of CPsyCoun or SMILE."""
    dialog = [{"speaker": "client", "content": "我很难过。"}, {"speaker": "counselor", "content": "发生了什么？"}]
    return {"id": 3, "dialog": dialog, **changes}


ANNOMI_COLUMNS = (
    *("mi_quality", "transcript_id", "video_title", "video_url", "topic", "utterance_id", "interlocutor", "timestamp"),
    *("utterance_text", "annotator_id", "therapist_input_exists", "main_therapist_behaviour", "client_talk_type"),
)


def annomi_row(**changes: str) -> dict[str, str]:
    """A therapist's utterance in AnnoMI, as one annotator labelled it."""
    row = dict.fromkeys(ANNOMI_COLUMNS, "n/a") | {
        "mi_quality": "high",
        "transcript_id": "5",
        "video_title": 'A "title", with a comma',
        "video_url": "https://example.org/5",
        "topic": "smoking cessation ",
        "utterance_id": "0",
        "interlocutor": "therapist",
        "timestamp": "00:00:13",
        "utterance_text": "How are you?",
        "annotator_id": "3",
        "therapist_input_exists": "False",
        "main_therapist_behaviour": "question",
    }
    return row | changes


def write_annomi(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ANNOMI_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_lines(path: Path, items: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path
