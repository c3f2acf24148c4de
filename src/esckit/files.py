"""Reading that takes nothing on trust, and writing that never leaves half a file behind."""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any, Final, TextIO

from esckit.errors import CorpusError, EsckitError
from esckit.memory import check_fits

_DECODER: Final = json.JSONDecoder()
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_NEW: Final = ".esckit-new"  # what is being written; hidden, beside its place
_OLD: Final = ".esckit-old"  # what is being removed
_CANNOT: Final = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}  # a file system that has no such thing
_NO_LOCKS: Final = {errno.ENOLCK, *_CANNOT}
_NO_FOLDER_SYNC: Final = {errno.EINVAL, errno.EBADF, errno.EACCES, *_CANNOT}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around all that writes ``path``, esckit's own code or a library's.

    Raises:
        EsckitError: the system refused to write (no space, read-only, no such folder).
    """
    try:
        yield
    except Exception as error:  # tokenizers raises nothing narrower
        reason = refusal(error)
        if reason is None:
            raise
        message = f"{path} cannot be written ({reason}): free space or choose another place, then run again."
        raise EsckitError(message) from error


def refusal(error: Exception) -> str | None:
    """Why the system refused to write, in its words; None where the error is another one."""
    if isinstance(error, shutil.Error):  # of copytree: source, copy and "[Errno 28] No space left on device: …"
        return re.sub(r"\[Errno \d+\] ([^:]+).*", r"\1", str(error.args[0][0][2]))
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if rust := re.search(r"([^:]+) \(os error \d+\)", str(error)):  # safetensors, tokenizers
        return rust[1].strip()
    return "the file came out too short" if "inline_container" in str(error) else None  # torch.save


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a path to write a file or a folder at, which then appears under ``path`` complete or not at all.

    It is on the disk when the block has ended, so that what is written later is never there without it.

    Raises:
        EsckitError: it cannot be written; what stood there still stands.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}{_NEW}"
    try:
        with writing(path):
            make_folder(path.parent)
            yield temporary
            _sync_whole(temporary)
            _replace(temporary, path)
    finally:
        with suppress(OSError):  # a folder that cannot even be searched must not hide the first error
            _remove(temporary)


def _replace(temporary: Path, path: Path) -> None:
    """Put a file or folder in the place of another; a folder that is replaced is away for a moment."""
    old = None
    if temporary.is_dir() and path.is_dir():
        old = path.rename(temporary.with_suffix(_OLD))
    temporary.replace(path)
    _sync_one(path.parent)
    if old:
        shutil.rmtree(old)


def remove_folder(path: Path) -> None:
    """Remove a folder at once: where this is stopped on the way, `remove_leftovers` removes the rest.

    Raises:
        EsckitError: it cannot be removed.
    """
    with writing(path):
        shutil.rmtree(path.rename(path.with_name(f".{path.name}{_OLD}")))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the system put a file, or a folder with all that is in it, on the disk, and its name in the folder above.

    What a library wrote is on the disk only after this; what `atomic` wrote is there already.
    """
    _sync_whole(path)
    _sync_one(path.parent)


def _sync_whole(path: Path) -> None:
    """A folder's name stands in the folder above: what is inside comes first."""
    for each in [*reversed([*path.rglob("*")]), path]:
        _sync_one(each)


def _sync_one(path: Path) -> None:
    """A file, or a folder's names where the system can sync these."""
    folder, windows = path.is_dir(), os.name == "nt"
    if folder and windows:
        return
    try:
        handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)  # Windows syncs only what is open for writing
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if not (folder and error.errno in _NO_FOLDER_SYNC):
            raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and have their names on the disk."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        _sync_one(each.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process was writing in a folder, at any depth; nobody else may write there (`alone`)."""
    with writing(folder):
        for left in [*folder.rglob(f".*{_NEW}"), *folder.rglob(f".*{_OLD}")]:
            _remove(left)


@contextmanager
def alone(place: Path, lock: Path) -> Iterator[None]:
    """Refuse to work where another process does.

    The system releases the lock however a process ends, so there are no stale ones. Where the file system (or
    Windows) has no such locks, this is said on standard error, and the block runs.

    Args:
        place: what is worked on, for the message.
        lock: a file, made for this and removed at the end.

    Raises:
        EsckitError: another process works there, or the file cannot be written.
    """
    with writing(place):
        make_folder(lock.parent)
        file = _lock(place, lock)
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink(missing_ok=True)
        file.close()


def _lock(place: Path, path: Path) -> TextIO:
    while True:
        file = path.open("a", encoding="utf-8")
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise EsckitError(
                f"another esckit is at work on {place}: wait until it is done, or choose another place."
            ) from error
        except (OSError, ImportError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise
            print(f"esckit: {place} cannot be locked here: let no second esckit work on it.", file=sys.stderr)
            return file
        with suppress(FileNotFoundError):  # its owner may have removed it after we had opened it
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        file.close()


@contextmanager
def atomic_write(path: Path) -> Iterator[TextIO]:
    """Open a text file that appears under ``path`` complete or not at all; it raises what `atomic` raises."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield file


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
    """Rows being written in groups; a stop loses at most the group at hand. ``done`` groups were there before."""

    def __init__(self, path: Path, file: TextIO, done: int) -> None:
        self._path = path
        self._file = file
        self.done = done

    def append(self, rows: Iterable[Any]) -> None:
        """Write one group, a compact JSON value a line."""
        lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        with writing(self._path):
            self._file.write(lines)
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
        EsckitError: the file cannot be written, then what was written so far is kept; or another process writes it.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    partial = path.with_name(f".{path.name}.{digest}.partial")
    with alone(path, path.with_name(f".{path.name}.lock")):
        with writing(path):
            done = _keep_whole_groups(partial, sizes) if partial.exists() else 0
            file = partial.open("a", encoding="utf-8", newline="\n")
        try:
            yield Resumed(path, file, done)
        finally:
            with writing(path):
                file.close()
        with writing(path):
            _sync_whole(partial)
            _replace(partial, path)


def _keep_whole_groups(partial: Path, sizes: Sequence[int]) -> int:
    """Cut a partial file back to whole groups of whole rows; return how many groups it holds.

    After a power cut a file can end in zeros, or in zeros where a row was.
    """
    rows = list(takewhile(_is_row, partial.read_bytes().split(b"\n")[:-1]))
    ends = [*takewhile(lambda end: end <= len(rows), accumulate(sizes))]
    with partial.open("r+b") as file:
        file.truncate(sum(len(row) + 1 for row in rows[: ends[-1] if ends else 0]))
    return len(ends)


def _is_row(line: bytes) -> bool:
    with suppress(ValueError):
        json.loads(line.decode())
        return True
    return False


def read_text(path: Path, *, what: str, error: type[EsckitError] = CorpusError) -> str:
    """Read a UTF-8 file that a user named; ``what`` it should have been stands in the message ("a dialogue file").

    Raises:
        EsckitError: of the class asked for, where the file is missing, is a folder, is not UTF-8, or is larger than
            memory.
    """
    with readable(path, what, error):
        try:
            return path.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte order mark
        except UnicodeDecodeError as cause:
            raise error(f"{path} is not UTF-8 text (byte {cause.start}): save it as UTF-8.") from cause


def read_lines(path: Path, *, what: str, error: type[EsckitError] = CorpusError) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file that a user named, each with its number from 1 and without its end.

    One line is in memory at a time: records made of them need half of what they would beside the whole text. Arguments
    and errors are those of `read_text`.
    """
    with readable(path, what, error), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as cause:
                raise error(f"{path}:{number}: this line is not UTF-8 text: save the file as UTF-8.") from cause
            yield number, text.rstrip("\r\n")


@contextmanager
def readable(path: Path, what: str, error: type[EsckitError]) -> Iterator[None]:
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


_IDEOGRAPH: Final = re.compile(r"[\u4e00-\u9fff]")
# Some of the most frequent characters of written Chinese: a tenth of a text and more. Korean or Japanese bytes that are
# read as GBK give rare ones.
_FREQUENT: Final = frozenset("的一是不了在人有我他这个们来到时大地为子你说就那和要会也得着下想没么自好很过心")
_LEAST_FREQUENT: Final = 0.05


def reads_like_chinese(text: str) -> bool:
    """Whether a text that was decoded as Chinese looks like it: enough of its ideographs are frequent ones."""
    ideographs = _IDEOGRAPH.findall(text)
    return sum(one in _FREQUENT for one in ideographs) >= _LEAST_FREQUENT * max(1, len(ideographs))
