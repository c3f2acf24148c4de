"""The encodings in which dialogue files are saved, and those that cannot be told."""

import json
from pathlib import Path

import pytest

from esckit.corpora import read_corpus
from esckit.corpora.encodings import lines_of, text_of
from esckit.errors import CorpusError

from .items import item

CHINESE = [{"messages": [
    {"role": "user", "content": "我在这里不知道怎么办，一个人的时候总是想很多。"},
    {"role": "assistant", "content": "你说的我听见了，我们可以一起看看那是什么。"},
]}]  # fmt: skip
TEXT = json.dumps(CHINESE, ensure_ascii=False, indent=1)
ENGLISH = json.dumps([item()], indent=1)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("text", [TEXT, ENGLISH], ids=["Chinese", "English"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_unicode_is_read_with_and_without_its_mark(encoding: str, text: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_bytes(text.replace("\n", end).encode(encoding))
    (tmp_path / "plain.json").write_text(text, encoding="utf-8")
    assert [tree.turns for tree in read_corpus(path)] == [tree.turns for tree in read_corpus(tmp_path / "plain.json")]


@pytest.mark.parametrize("encoding", ["gbk", "gb18030", "gb2312"])
@pytest.mark.parametrize("lines", [False, True])
def test_chinese_encodings_are_read(encoding: str, lines: bool, tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    text = "\n".join(json.dumps(each, ensure_ascii=False) for each in CHINESE) if lines else TEXT
    path.write_bytes(text.encode(encoding))
    assert [turn.text for turn in read_corpus(path)[0].turns] == [each["content"] for each in CHINESE[0]["messages"]]


OTHERS = {
    "latin-1": "Un café déjà froid, et l'été est fini à Noël.",
    "cp1252": "It’s “over”, naïve as it sounds…",
    "euc-kr": "안녕하세요 저는 오늘 기분이 정말 안 좋아요",
    "shift_jis": "今日はとても悲しいです。友達と話せません。",
    "big5": "我在這裡不知道怎麼辦，一個人的時候總是想很多。",
}


@pytest.mark.parametrize(("encoding", "text"), OTHERS.items(), ids=OTHERS)
def test_what_cannot_be_told_is_refused_by_the_names_of_what_was_tried(
    encoding: str, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "d.json"
    path.write_bytes(
        json.dumps([{"messages": [{"role": "user", "content": text}]}], ensure_ascii=False).encode(encoding)
    )
    with pytest.raises(CorpusError) as error:
        read_corpus(path)
    sentence = str(error.value)
    assert sentence.startswith(f"{path} is not UTF-8 text (byte ")
    assert sentence.endswith("), and neither UTF-16 nor GB18030 (GBK) makes text of it: save it as UTF-8.")


def test_a_mark_that_lies_is_named(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_bytes(b"\xff\xfe[\x00]\x00\x00")
    with pytest.raises(CorpusError, match=r"d.json begins like UTF-16 and is none \(byte \d\): save it as UTF-8\."):
        read_corpus(tmp_path / "d.json")


def test_the_bad_byte_is_found_in_a_file_of_any_size(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_bytes(b"a" * (1 << 20) + "é".encode() + b"\xff")
    with pytest.raises(CorpusError, match=rf"byte {(1 << 20) + 2}\)"):
        text_of(path)
    path.write_bytes(b"a" * ((1 << 20) - 1) + "é".encode())
    assert len(text_of(path)) == 1 << 20


def test_lines_are_those_of_the_text(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "d").write_bytes("a\u2028b\r\n\nc".encode(encoding))
        assert list(lines_of(tmp_path / "d")) == [(1, "a\u2028b"), (2, ""), (3, "c")]
