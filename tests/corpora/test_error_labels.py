"""Published labels of psychological errors: every variant, and the place of a reply in its dialogue."""

import json
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import Conversation, Turn
from esckit.corpora import read_corpus
from esckit.corpora.error_labels import parse_error_label, read_error_labels
from esckit.errors import CorpusError


def record(**changes: Any) -> dict[str, Any]:
    plain = {
        "Contains Empathy Error": "Yes",
        "Error Type": "Mismatched Strategy",
        "Brief Explanation": "Why.",
        "user_input": "I lost my job.",
        "strategy": "Question",
        "response": "Why is that?",
        "dialogue": 0,
    }
    return {**plain, **changes}


def write(path: Path, *records: Any) -> Path:
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("contains", "kind", "error"),
    [
        ("Yes", "Mismatched Strategy", "strategy_mismatch"),
        ("Yes", "Lack Empathy", "lack_of_empathy"),
        ("Yes", "Premature Early Emotion Shift", "early_emotion_shift"),
        ("Yes", "Premature Emotional Transition", "early_emotion_shift"),
        ("Yes", "Template Response / Lack of Empathy", "template_response"),
        ("Yes", " Emotional Misunderstanding ", "emotion_misread"),
        ("Yes", "Others", "other"),
        ("Repetitive or Template-like Response", "", "template_response"),
        ("No", "Others", None),
        ("No", "N/A", None),
        ("Yes", "None", None),
    ],
)
def test_every_variant_means_one_error(contains: str, kind: str, error: str | None) -> None:
    assert parse_error_label(contains, kind) == error


def test_a_reply_finds_its_place_once_and_gets_all_that_was_said(tmp_path: Path) -> None:
    said = [
        ("seeker", "Hi"),
        ("seeker", "I lost  my job."),
        ("supporter", "Why is that?"),
        ("seeker", "I lost my job."),
    ]
    turns = [
        Turn(str(i), str(i - 1) if i else None, who, text)  # type: ignore[arg-type]
        for i, (who, text) in enumerate([*said, ("supporter", "Why is that?")])
    ]
    found = read_error_labels(write(tmp_path / "l.json", record(), record(), record()), [Conversation("c", turns)])
    assert [len(reply.context) for reply in found.replies] == [2, 4, 1]
    assert found.placed == 2
    assert {reply.group for reply in found.replies} == {"dialogue 0"}


def test_a_reply_of_no_known_dialogue_is_grouped_with_its_like(tmp_path: Path) -> None:
    path = write(tmp_path / "l.json", record(dialogue=None), record(dialogue=None), record(dialogue=3, user_input=""))
    replies = read_error_labels(path).replies
    assert [reply.group for reply in replies] == ["reply Why is that?", "reply Why is that?", "dialogue 3"]
    assert [[turn.text for turn in reply.context] for reply in replies] == [["I lost my job."]] * 2 + [[]]


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        (
            [record(), record(**{"Error Type": "Rudeness"})],
            "record 1: the error type 'Rudeness' is unknown: use one of",
        ),
        ([{"response": "x"}], "record 0: has no text under 'Contains Empathy Error'"),
        ([record(strategy="Joke")], "record 0: has the unknown strategy 'Joke'"),
        ([], "holds no records: give labelled replies."),
    ],
)
def test_what_is_wrong_is_one_sentence(records: list[Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError) as error:
        read_error_labels(write(tmp_path / "l.json", *records))
    assert sentence in str(error.value)


@pytest.mark.corpus
def test_published_labels_find_their_places(data_dir: Path) -> None:
    dialogues = read_corpus(data_dir / "failed_esconv/FailedESConv.json")
    found = read_error_labels(data_dir / "error_annotations/Statistic_FailedESConv.json", dialogues)
    assert (len(found.replies), found.placed) == (1500, 1471)
    assert sum(reply.error is None for reply in found.replies) == 166
