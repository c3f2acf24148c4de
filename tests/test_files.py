"""Files appear complete or not at all, and a file that cannot be read is named."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from esckit.errors import CorpusError, EsckitError, PredictionsError
from esckit.files import atomic_write, decode_json, hash_file, read_lines, read_text, write_json, write_jsonl


def failing(code: int) -> Callable[..., Any]:
    """A system call that fails with this error number."""

    def fail(*args: object, **keywords: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    path = tmp_path / "file.txt"
    path.write_text("old", encoding="utf-8")
    return path


def assert_untouched(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == "old"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "no temporary file stays behind"


def test_a_file_is_replaced_whole_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/file.txt"
    for text in ("one\n", "two é\n"):
        with atomic_write(path) as file:
            file.write(text)
            assert not path.exists() or path.read_text(encoding="utf-8") == "one\n"
        assert path.read_bytes() == text.encode()


@pytest.mark.parametrize(
    ("code", "call"),
    [
        (errno.ENOSPC, "esckit.files.os.fsync"),
        (errno.ENOSPC, "pathlib.Path.replace"),
        (errno.EROFS, "pathlib.Path.open"),
        (errno.EROFS, "pathlib.Path.mkdir"),
    ],
)
def test_a_write_that_fails_leaves_the_old_file(
    code: int, call: str, old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, failing(code))
    with pytest.raises(EsckitError) as error, atomic_write(old_file) as file:
        file.write("new")
    monkeypatch.undo()
    reason = f"{old_file} cannot be written ({os.strerror(code)})"
    assert str(error.value) == f"{reason}: free space or choose another place, then run again."
    assert_untouched(old_file)


def test_an_error_of_the_writer_passes_through_and_leaves_the_old_file(old_file: Path) -> None:
    def rows() -> Iterator[str]:
        yield "half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(old_file, rows())
    assert_untouched(old_file)


def test_a_failure_to_clean_up_does_not_hide_the_first_error(old_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathlib.Path.open", failing(errno.EROFS))
    monkeypatch.setattr("pathlib.Path.unlink", failing(errno.EACCES))
    with pytest.raises(EsckitError, match="Read-only file system"), atomic_write(old_file):
        pass


def test_a_folder_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with (
        pytest.raises(EsckitError, match=r"file/below\.txt cannot be written"),
        atomic_write(tmp_path / "file/below.txt"),
    ):
        pass


def test_json_is_written_readably_and_never_with_nan(old_file: Path) -> None:
    write_json(old_file, {"é": [1]})
    assert old_file.read_text(encoding="utf-8") == '{\n "é": [\n  1\n ]\n}\n'
    before = old_file.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(old_file, float("nan"))
    assert old_file.read_bytes() == before


def test_json_lines_hold_one_value_a_line(tmp_path: Path) -> None:
    rows = [{"text": "two\nlines \u2028 é"}, [1], None]
    write_jsonl(tmp_path / "rows.jsonl", iter(rows))
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == rows
    assert lines[-1] == ""


def test_a_text_that_cannot_be_read_is_named_in_the_callers_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tmp_path / "good.txt"
    good.write_text("é", encoding="utf-8")
    assert read_text(good, what="a file") == "é"
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for path, message in [
        (tmp_path / "none.txt", f"{tmp_path / 'none.txt'} does not exist: give the path of a poem."),
        (tmp_path, f"{tmp_path} is not a file: give the path of a poem."),
        (good / "below", f"{good / 'below'} is not a file: give the path of a poem."),
        (tmp_path / "latin.txt", f"{tmp_path / 'latin.txt'} is not UTF-8 text (byte 3): save it as UTF-8."),
    ]:
        with pytest.raises(PredictionsError) as error:
            read_text(path, what="a poem", error=PredictionsError)
        assert str(error.value) == message
    monkeypatch.setattr("pathlib.Path.read_text", failing(errno.EIO))
    with pytest.raises(CorpusError, match=r"cannot be read \(Input/output error\): give a readable path of a poem\."):
        read_text(good, what="a poem")


def test_lines_are_numbered_and_end_only_where_the_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffa\u2028b\r\n\n é\n".encode())
    assert list(read_lines(path, what="a file")) == [(1, "a\u2028b"), (2, ""), (3, " é")]


def test_lines_that_cannot_be_read_are_named_in_the_callers_error(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"good\ncaf\xe9\n")
    for path, message in [
        (tmp_path / "none.txt", f"{tmp_path / 'none.txt'} does not exist: give the path of a poem."),
        (tmp_path, f"{tmp_path} is not a file: give the path of a poem."),
        (tmp_path / "latin.txt", f"{tmp_path / 'latin.txt'}:2: this line is not UTF-8 text: save the file as UTF-8."),
    ]:
        with pytest.raises(PredictionsError) as error:
            list(read_lines(path, what="a poem", error=PredictionsError))
        assert str(error.value) == message


def test_a_hash_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert hash_file(tmp_path / "file").startswith("ba7816bf8f01cfea")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "bom.json").write_text("{}", encoding="utf-8-sig")
    assert read_text(tmp_path / "bom.json", what="a file") == "{}"


def test_the_folder_one_stands_in_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EsckitError, match=r"^\. cannot be written"):
        write_json(Path(), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ['{"a": [1, "\\ud83d\\ude42"]}', " 1\n", '"\\\\ud800"', "null"])
def test_json_is_decoded_as_everywhere(text: str) -> None:
    assert decode_json(text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "Nested too deeply"),
        ("9" * 5000, "too many digits"),
        ("{} {}", "Extra data"),
        ("", "Expecting value"),
        ("{", "Expecting"),
    ],
    ids=lambda value: value[:12],
)
def test_json_that_cannot_be_read_or_written_again_is_refused(text: str, words: str) -> None:
    with pytest.raises(json.JSONDecodeError, match=words):
        decode_json(text)
