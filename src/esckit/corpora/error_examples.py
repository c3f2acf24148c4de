"""Single replies, each labelled with the psychological error it shows: ours, or a clinic's own in the same format.

Ours are *author-written examples*; docs/error-examples.md says how they were made and documents the format.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from esckit.conversation import PSYCHOLOGICAL_ERRORS, Speaker
from esckit.conversation.records import STRICT
from esckit.errors import CorpusError
from esckit.files import read_lines
from esckit.strategy import ESCONV

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["ContextTurn", "ErrorExample", "read_chat_examples", "read_error_examples"]

_DOCUMENTED: Final = "see docs/error-examples.md."


@dataclass(frozen=True, slots=True)
class ContextTurn:
    """One utterance of a context."""

    __pydantic_config__ = STRICT

    speaker: Speaker
    text: str


@dataclass(frozen=True, slots=True)
class ErrorExample:
    """A supporter's reply to a context that ends with the seeker, and the error that a person saw in it (or None)."""

    __pydantic_config__ = STRICT

    id: str
    language: str
    context: tuple[ContextTurn, ...]
    strategy: str | None
    response: str
    error: str | None
    reason: str


def read_error_examples(path: Path | None = None) -> list[ErrorExample]:
    """Read and check examples of psychological errors: a JSON Lines file's, or those that the package ships.

    Raises:
        CorpusError: one sentence that names the file, the line and the field.
    """
    if path is None:
        return _read_shipped("error_examples.jsonl")
    examples: dict[str, ErrorExample] = {}
    for number, line in read_lines(path, what="a file of error examples (JSON Lines)"):
        if not line.strip():
            continue
        try:
            example = _parse(line)
        except CorpusError as error:
            raise CorpusError(f"{path}:{number}: {error}") from error
        if example.id in examples:
            raise CorpusError(f"{path}:{number}: id: {example.id!r} occurs twice; ids are unique in a file.")
        examples[example.id] = example
    if not examples:
        raise CorpusError(f"{path} holds no examples: write one JSON object a line, {_DOCUMENTED}")
    return list(examples.values())


def read_chat_examples() -> list[ErrorExample]:
    """Read the author-written examples that are as short and plain as replies in a chat are."""
    return _read_shipped("chat_examples.jsonl")


def _read_shipped(name: str) -> list[ErrorExample]:
    with as_file(files("esckit.corpora") / "starter" / name) as path:
        return read_error_examples(path)


@cache
def _adapter() -> "TypeAdapter[ErrorExample]":
    """The validator of an example's JSON, built once; pydantic is imported only where something is read."""
    from pydantic import TypeAdapter

    return TypeAdapter(ErrorExample)


def _parse(line: str) -> ErrorExample:
    """Build and check an example from one line of JSON."""
    from pydantic import ValidationError

    try:
        example = _adapter().validate_json(line)
    except ValidationError as error:
        raise CorpusError(_sentence(error.errors(include_url=False)[0])) from error
    if problem := _problem(example):
        raise CorpusError(problem)
    return example


def _sentence(problem: Any) -> str:
    """One sentence from pydantic's first error, beginning with the field."""
    if problem["type"] == "json_invalid":
        return f"not valid JSON ({problem['ctx']['error']}); mend that line."
    field = ".".join(map(str, problem["loc"])) or "the example"
    if problem["type"] == "unexpected_keyword_argument":
        return f"unknown field {field!r}; {_DOCUMENTED}"
    message = problem["msg"]
    return f"{field}: {message[:1].lower()}{message[1:]}; {_DOCUMENTED}"


def _problem(example: ErrorExample) -> str | None:
    """What is wrong with an example beyond the types, beginning with the field; None where nothing is."""
    texts = {
        "id": example.id,
        "language": example.language,
        **{f"context.{index}.text": utterance.text for index, utterance in enumerate(example.context)},
        "response": example.response,
        "reason": example.reason,
    }
    empty = next((field for field, text in texts.items() if not text.strip()), None)
    if empty:
        return f"{empty}: it is empty; write a text."
    if not example.context or example.context[-1].speaker != "seeker":
        return "context: it does not end with the seeker; end it with the utterance that the response answers."
    if example.strategy is not None and example.strategy not in ESCONV.labels:
        return f"strategy: unknown {example.strategy!r}; allowed are {', '.join(ESCONV.labels)}, or null."
    if example.error is not None and example.error not in PSYCHOLOGICAL_ERRORS:
        return f"error: unknown {example.error!r}; allowed are {', '.join(PSYCHOLOGICAL_ERRORS)}, or null."
    if len(example.reason.splitlines()) > 1:
        return "reason: it has more than one line; write one line."
    return None
