"""Reads a run's files into records; a file that is missing or broken is one sentence that says what to do."""

import json
from pathlib import Path
from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from esckit.errors import RunError
from esckit.files import read_text
from esckit.measures.judging_results import Judging
from esckit.measures.results import Comparison
from esckit.measures.ways import Ways

Value = TypeVar("Value")
_FORMAT: Final = 1  # of figures


def read_record(path: Path, kind: type[Value], remedy: str | None = None) -> Value:
    """Read a JSON file; ``remedy`` says what makes it anew, None for a file of a run's folder, which the runner writes.

    Raises:
        RunError: the file is missing or broken, or a newer esckit wrote it.
    """
    remedy = remedy or _remedy(path)
    return _check(str(path), _text(path, remedy), kind, remedy)


def read_lines(path: Path, kind: type[Value]) -> list[Value]:
    """Read a JSON Lines file of a run's folder, as `read_record` does."""
    remedy = _remedy(path)
    lines = enumerate(_text(path, remedy).split("\n"), 1)
    return [_check(f"{path}, line {number}", line, kind, remedy) for number, line in lines if line.strip()]


def _text(path: Path, remedy: str) -> str:
    if not path.exists():
        raise RunError(f"{path} is missing: {remedy}.")
    return read_text(path, what="a file of a run", error=RunError)


def _check(where: str, text: str, kind: type[Value], remedy: str) -> Value:
    try:
        value = json.loads(text)
        if kind in (Comparison, Judging, Ways) and isinstance(value, dict) and value.get("format") != _FORMAT:
            found = f"{where} has format {value.get('format')!r} and this esckit reads {_FORMAT}"
            raise RunError(f"{found}: install the esckit that wrote it.")
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = "".join(f" {part}:" for part in [".".join(map(str, problem["loc"]))] if part)
        raise RunError(f"{where}:{field} {problem['msg'][:1].lower()}{problem['msg'][1:]}; {remedy}.") from error
    except ValueError as error:
        raise RunError(f"{where} is not JSON ({error}); {remedy}.") from error


def _remedy(path: Path) -> str:
    """What makes the runner write the file anew: these it always does, a stage's where the stage's record is gone."""
    if path.name in ("recipe.json", "corpus.json", "versions.json", "events.jsonl"):
        return "run the recipe again"
    stage = path.stem if path.parent.name == "stages" else path.parent.name
    return f"remove stages/{stage}.json and run the recipe again"
