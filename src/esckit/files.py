"""Reading that takes nothing on trust, and writing that never leaves half a file behind."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TextIO

from esckit.errors import CorpusError, EsckitError
from esckit.memory import check_fits

__all__ = [
    "Resumed",
    "after_space",
    "atomic_write",
    "decode_json",
    "decode_json_at",
    "hash_file",
    "read_lines",
    "read_text",
    "resume_jsonl",
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


class Resumed:
    """Rows being written in groups of a known size; a stop loses at most the group at hand.

    Attributes:
        done: groups that were there before.
    """

    def __init__(self, file: TextIO, done: int) -> None:
        self._file = file
        self.done = done

    def append(self, rows: Iterable[Any]) -> None:
        """Write one group, a compact JSON value a line."""
        self._file.write("".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
        self._file.flush()


@contextmanager
def resume_jsonl(path: Path, key: Any, sizes: Sequence[int]) -> Iterator[Resumed]:
    """Write a JSON Lines file in groups of rows; it appears when the block ends, and a stopped block can be continued.

    Rows are kept in a partial file beside it.

    Args:
        path: the file.
        key: JSON-ready; all that the rows depend on. Another key continues nothing of this one's.
        sizes: rows of each group, in order.

    Raises:
        EsckitError: the file cannot be written; what was written so far is kept.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    partial = path.with_name(f".{path.name}.{digest}.partial")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        done = _keep_whole_groups(partial, sizes) if partial.exists() else 0
        with partial.open("a", encoding="utf-8", newline="\n") as file:
            yield Resumed(file, done)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise EsckitError(
            f"{path} cannot be written ({error.strerror}): free space, then run the same again."
        ) from error


def _keep_whole_groups(partial: Path, sizes: Sequence[int]) -> int:
    """Cut a partial file back to whole groups; return how many it holds."""
    lines = partial.read_bytes().splitlines(keepends=True)
    whole = sum(line.endswith(b"\n") for line in lines)
    rows, done = 0, 0
    while done < len(sizes) and rows + sizes[done] <= whole:
        rows, done = rows + sizes[done], done + 1
    with partial.open("r+b") as file:
        file.truncate(sum(map(len, lines[:rows])))
    return done


def read_text(path: Path, *, what: str, error: type[EsckitError] = CorpusError) -> str:
    """Read a UTF-8 file that a user named.

    Args:
        path: the file.
        what: what the file should have been, for the message ("a dialogue file").
        error: the class to raise.

    Raises:
        EsckitError: of the class asked for, where the file is missing, is a folder, is not UTF-8, or is larger than
            memory.
    """
    with _readable(path, what, error):
        try:
            return path.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte order mark
        except UnicodeDecodeError as cause:
            raise error(f"{path} is not UTF-8 text (byte {cause.start}): save it as UTF-8.") from cause


def read_lines(path: Path, *, what: str, error: type[EsckitError] = CorpusError) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file that a user named, each with its number from 1 and without its end.

    One line is in memory at a time: records made of them need half of what they would beside the whole text.

    Args:
        path, what, error: as of `read_text`.

    Raises:
        EsckitError: as `read_text`.
    """
    with _readable(path, what, error), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as cause:
                raise error(f"{path}:{number}: this line is not UTF-8 text: save the file as UTF-8.") from cause
            yield number, text.rstrip("\r\n")


@contextmanager
def _readable(path: Path, what: str, error: type[EsckitError]) -> Iterator[None]:
    """Name a file that cannot be read, or does not fit into memory."""
    try:
        check_fits(path, error)
        yield
    except FileNotFoundError as cause:
        raise error(f"{path} does not exist: give the path of {what}.") from cause
    except (IsADirectoryError, NotADirectoryError) as cause:
        raise error(f"{path} is not a file: give the path of {what}.") from cause
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
