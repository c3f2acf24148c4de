"""The text of a dialogue file, in whichever of the field's encodings it was saved.

UTF-8, with or without a byte-order mark; UTF-16 and UTF-32 by their mark; UTF-16 also by the zeros of its first
character; GB18030 (which holds GBK and GB2312) and UTF-16 where the outcome reads like Chinese. Other encodings of one
or two bytes a character cannot be told from each other, so they are refused.
"""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from esckit.errors import CorpusError
from esckit.files import read_lines, readable, reads_like_chinese

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16's, which it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHINESE: Final = ("gb18030", "utf-16-le", "utf-16-be")
_CHUNK: Final = 1 << 20


def text_of(path: Path, what: str = "a dialogue file") -> str:
    """The whole text of a file, line ends as they stand in it.

    Raises:
        CorpusError: it cannot be read, or it is text in none of the encodings above.
    """
    encoding = _encoding_of(path, what)
    with readable(path, what, CorpusError):
        return path.read_bytes().decode(encoding)


def lines_of(path: Path, what: str = "a dialogue file") -> Iterator[tuple[int, str]]:
    """The lines of a file without their ends, numbered from 1; of UTF-8 one at a time is in memory.

    Raises:
        CorpusError: as `text_of`.
    """
    if _encoding_of(path, what).startswith("utf-8"):
        return read_lines(path, what=what)
    text = text_of(path, what)
    return ((number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1))


def _encoding_of(path: Path, what: str) -> str:
    with readable(path, what, CorpusError):
        with path.open("rb") as file:
            start = file.read(4)
        for mark, name in _MARKS:
            if start.startswith(mark):
                return _checked(path, name)
        if len(start) >= 2 and 0 in start[:2] and start[:2] != b"\0\0":
            return _checked(path, "utf-16-be" if start[0] == 0 else "utf-16-le")
        bad = _undecodable(path, "utf-8")
        if bad is None:
            return "utf-8-sig"
        for name in _CHINESE:
            if _undecodable(path, name) is None and reads_like_chinese(path.read_bytes().decode(name)):
                return name
    raise CorpusError(
        f"{path} is not UTF-8 text (byte {bad}), and neither UTF-16 nor GB18030 (GBK) makes text of it: save it as "
        "UTF-8."
    )


def _checked(path: Path, encoding: str) -> str:
    bad = _undecodable(path, encoding)
    if bad is None:
        return encoding
    raise CorpusError(f"{path} begins like {encoding.upper()} and is none (byte {bad}): save it as UTF-8.")


def _undecodable(path: Path, encoding: str) -> int | None:
    """The first byte (from 0) that cannot be decoded; None where all can."""
    decoder = codecs.getincrementaldecoder(encoding)()
    read = 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            kept = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                return read - kept + error.start
            if not chunk:
                return None
            read += len(chunk)
