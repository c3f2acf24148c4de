"""Examples of psychological errors: the shipped ones, and the checks on a file of one's own."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import PSYCHOLOGICAL_ERRORS
from esckit.corpora.error_labels import ContextTurn, ErrorExample, read_chat_examples, read_error_examples
from esckit.errors import CorpusError
from esckit.strategy import ESCONV

EXAMPLE: dict[str, Any] = {
    "id": "mine-001",
    "language": "en",
    "context": [{"speaker": "seeker", "text": "I burned the soup."}],
    "strategy": "Question",
    "response": "Which soup?",
    "error": "lack_of_empathy",
    "reason": "Asks about the soup.",
}


def write(path: Path, *examples: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(example) for example in examples) + "\n", encoding="utf-8")
    return path


def test_there_are_enough_of_each_error_and_clean_ones() -> None:
    counts = Counter(example.error for example in read_error_examples())
    types = [error for error in PSYCHOLOGICAL_ERRORS if error != "other"]
    assert set(counts) == {*types, None}
    assert min(counts[error] for error in types) >= 7
    assert sum(counts[error] for error in types) >= 40
    assert counts[None] >= 5


def test_the_shipped_examples_are_complete_and_differ() -> None:
    examples = read_error_examples()
    for example in examples:
        assert example.language == "en"
        assert 1 <= len(example.context) <= 4
        assert example.strategy in ESCONV.labels
    assert (
        len({example.context for example in examples})
        == len({example.response for example in examples})
        == len(examples)
    )


def test_no_error_is_told_by_its_strategy_or_its_length_alone() -> None:
    """A judge that reads neither context nor words must not score on them."""
    by_error: dict[str | None, list[ErrorExample]] = {}
    for example in read_error_examples():
        by_error.setdefault(example.error, []).append(example)
    for examples in by_error.values():
        assert len({example.strategy for example in examples}) >= 5
        assert 20 <= sum(len(example.response.split()) for example in examples) / len(examples) <= 30


def test_chat_examples_hold_every_error_are_short_and_none_occurs_twice() -> None:
    examples = read_chat_examples()
    counts = Counter(example.error for example in examples)
    assert set(counts) == {*PSYCHOLOGICAL_ERRORS, None}
    assert min(counts.values()) >= 5
    for error in counts:
        assert len({example.strategy for example in examples if example.error == error}) >= 3
    assert sum(len(example.response.split()) for example in examples) / len(examples) < 15
    everything = [*examples, *read_error_examples()]
    for key in ("id", "context", "response"):
        assert len({getattr(example, key) for example in everything}) == len(everything)


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", EXAMPLE, {**EXAMPLE, "id": "mine-002", "error": None, "strategy": None})
    first, second = read_error_examples(path)
    assert first == ErrorExample(**{**EXAMPLE, "context": (ContextTurn("seeker", "I burned the soup."),)})
    assert (second.error, second.strategy) == (None, None)


SUPPORTER = {"speaker": "supporter", "text": "Hello"}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown error": ({"error": "coldness"}, "error: unknown 'coldness'; allowed are strategy_mismatch, "),
    "unknown strategy": ({"strategy": "Advice"}, "strategy: unknown 'Advice'; allowed are Question, "),
    "ends with the supporter": (
        {"context": [*EXAMPLE["context"], SUPPORTER]},
        "context: it does not end with the seeker",
    ),
    "no context": ({"context": []}, "context: it does not end with the seeker"),
    "unknown speaker": (
        {"context": [{**SUPPORTER, "speaker": "user"}]},
        "context.0.speaker: input should be 'seeker' or",
    ),
    "empty utterance": ({"context": [{"speaker": "seeker", "text": " "}]}, "context.0.text: it is empty"),
    "empty response": ({"response": ""}, "response: it is empty; write a text."),
    "two-line reason": ({"reason": "a\nb"}, "reason: it has more than one line"),
    "number for a text": ({"response": 3}, "response: input should be a valid string"),
    "own field": ({"clinic": "x"}, "unknown field 'clinic'; see docs/error-examples.md."),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_said_with_file_line_and_field(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", EXAMPLE, {**EXAMPLE, "id": "mine-002", **change})
    with pytest.raises(CorpusError) as error:
        read_error_examples(path)
    assert str(error.value).startswith(f"{path}:2: {message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", EXAMPLE)
def test_every_field_is_required(field: str, tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", {name: value for name, value in EXAMPLE.items() if name != field})
    with pytest.raises(CorpusError, match=f"own.jsonl:1: {field}: "):
        read_error_examples(path)


def test_ids_are_unique_and_a_file_holds_something(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"own.jsonl:2: id: 'mine-001' occurs twice"):
        read_error_examples(write(tmp_path / "own.jsonl", EXAMPLE, EXAMPLE))
    with pytest.raises(CorpusError, match=r"empty.jsonl holds no examples"):
        read_error_examples(write(tmp_path / "empty.jsonl"))


@pytest.mark.parametrize("line", ["{", "[]", "3", "null", '"text"'])
def test_lines_that_are_no_examples_are_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(CorpusError, match=r"own.jsonl:1: "):
        read_error_examples(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"none.jsonl does not exist"):
        read_error_examples(tmp_path / "none.jsonl")
