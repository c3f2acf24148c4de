"""``--role`` of chat and predict, and ``/role`` in a chat: list, choose, none, nobody; both languages."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from esckit.conversation import write_conversations
from esckit.measures import read_predictions
from tests.cli.test_entry import call
from tests.cli.test_terminal_chat import chat, saved
from tests.supporters.empath_folder import write_whole_empath
from tests.supporters.test_empath import WORK, ZH
from tests.tiny import one_thread, write_supporter

SHORT = ("--max-new-tokens", "4")


@pytest.fixture(scope="module", autouse=True)
def models_on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def empath(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whole_empath(tmp_path_factory.mktemp("empath"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_supporter(tmp_path_factory.mktemp("plain") / "decoupled", max_context=512)


def test_a_chat_lists_roles_and_takes_one(
    empath: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["/role", "/role  miller ", "The boss and the office.", "/role king", "/role none", "/other"]
    lines += ["/role captain", "/strategy self-d", "/other", f"/save {tmp_path / 'chat.jsonl'}", "/quit"]
    assert chat(monkeypatch, "\n".join(lines) + "\n", empath, *SHORT) == 0
    printed = capsys.readouterr().out
    assert "captain      captain\ngardener     gardener\nmiller       miller\n" in printed
    assert "From now on speaks: miller." in printed
    assert "From now on speaks: no role." in printed
    assert "there is no role 'king': choose one of captain, gardener, miller, or none." in printed
    assert "It may speak in the voice of a story's character" in printed
    turns = [turn for turn in saved(tmp_path / "chat.jsonl").turns if turn.speaker == "supporter"]
    assert [turn.extra["role"] for turn in turns] == ["miller", "", "captain"]
    assert f"as captain, with the story {turns[-1].extra['experience']}" in printed


def test_a_chat_begins_in_a_role(
    empath: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "The boss and the office.\n/quit\n/quit\n"
    for how, told in ((("--role", "gardener"), ", as gardener"), ((), ", as captain")):
        assert chat(monkeypatch, lines, empath, *SHORT, *how) == 0
        assert told in capsys.readouterr().out
    assert chat(monkeypatch, lines, empath, *SHORT, "--role", "none") == 0
    assert ", as " not in capsys.readouterr().out.partition("you> ")[2]


@pytest.mark.parametrize("arguments", [("--role", "king"), ("--role", "")])
def test_a_role_that_nobody_has_is_one_sentence(
    arguments: tuple[str, str], empath: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(monkeypatch, "/quit\n", empath, *arguments) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.endswith("choose one of captain, gardener, miller, or none.")


def test_a_supporter_without_roles_says_so(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(monkeypatch, "/role\n/role captain\n/role none\n/quit\n", plain) == 0
    printed = capsys.readouterr().out
    assert "This supporter has no roles." in printed
    assert printed.count("this supporter has no roles: only one of kind empath has.") == 2
    write_conversations(tmp_path / "talks.jsonl", [WORK])
    assert chat(monkeypatch, "/quit\n", plain, "--role", "captain") == 2
    assert call(monkeypatch, "predict", plain, tmp_path / "talks.jsonl", tmp_path / "out.jsonl", "--role", "none") == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[2].strip().startswith("this supporter has no roles") for line in told] == [True] * 2
    assert not (tmp_path / "out.jsonl").exists()


def test_predictions_in_a_role_and_in_both_languages(
    empath: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_conversations(tmp_path / "talks.jsonl", [WORK, ZH])
    for role, wanted in (("miller", "miller"), ("none", ""), (None, "captain")):
        out = tmp_path / f"{role}.jsonl"
        how = ("--role", role) if role else ()
        assert call(monkeypatch, "predict", empath, tmp_path / "talks.jsonl", out, *SHORT, *how) == 0
        assert [row.extra["role"] for row in read_predictions(out)] == [wanted] * 3
    capsys.readouterr()
    out = tmp_path / "king.jsonl"
    assert call(monkeypatch, "predict", empath, tmp_path / "talks.jsonl", out, "--role", "king") == 2
    assert "has no role 'king': take one of captain, gardener, miller." in capsys.readouterr().err
    assert not out.exists()
