"""Reading that takes nothing on trust, and writing that never leaves half a file behind."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TextIO

from esckit.errors import CorpusError, EsckitError

__all__ = [
    "after_space",
    "atomic_write",
    "decode_json",
    "decode_json_at",
    "hash_file",
    "read_text",
    "write_json",
    "write_jsonl",
]

_DECODER: Final = json.JSONDecoder()
_SPACE: Final = re.compile(r"[ \t\r\n]*")


@contextmanager
def atomic_write(path: Path) -> Iterator[TextIO]:
    """Open a text file that appears under ``path`` complete or not at all.

    Raises:
        EsckitError: the folder cannot be written (no space, read-only, no such folder); what stood there still stands.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        message = f"{path} cannot be written ({error.strerror}): free space or choose another place, then run again."
        raise EsckitError(message) from error
    finally:
        with suppress(OSError):  # a folder that cannot even be searched must not hide the first error
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value, indented, atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=1, allow_nan=False)
        file.write("\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one compact JSON value a line, atomically."""
    with atomic_write(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(path: Path, *, what: str, error: type[EsckitError] = CorpusError) -> str:
    """Read a UTF-8 file that a user named.

    Args:
        path: the file.
        what: what the file should have been, for the message ("a dialogue file").
        error: the class to raise.

    Raises:
        EsckitError: of the class asked for, where the file is missing, is a folder, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte order mark
    except FileNotFoundError as cause:
        raise error(f"{path} does not exist: give the path of {what}.") from cause
    except (IsADirectoryError, NotADirectoryError) as cause:
        raise error(f"{path} is not a file: give the path of {what}.") from cause
    except UnicodeDecodeError as cause:
        raise error(f"{path} is not UTF-8 text (byte {cause.start}): save it as UTF-8.") from cause
    except OSError as cause:
        raise error(f"{path} cannot be read ({cause.strerror}): give a readable path of {what}.") from cause


def decode_json(text: str) -> Any:
    """Decode a JSON value.

    Raises:
        json.JSONDecodeError: as in `decode_json_at`, or more follows the value.
    """
    value, end = decode_json_at(text, after_space(text, 0))
    if after_space(text, end) != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


def decode_json_at(text: str, at: int) -> tuple[Any, int]:
    """Decode the JSON value that begins at a place; return it and where it ends.

    Raises:
        json.JSONDecodeError: there is none, or one that is JSON and that Python cannot read: it is nested too deeply or
            has a number of thousands of digits.
    """
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise json.JSONDecodeError("Nested too deeply", text, at) from error
    except ValueError as error:
        raise json.JSONDecodeError("A number has too many digits", text, at) from error


def after_space(text: str, at: int) -> int:
    """Where the white space that JSON allows between tokens ends."""
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
