"""``esckit chat`` as a newcomer meets it: scripted input, garbage, end of input, Ctrl-C; both kinds of supporters."""

import builtins
import io
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from esckit.cache import cache_folder
from esckit.cli import main
from esckit.conversation import Conversation, Turn, read_conversations, write_conversations
from esckit.corpora import Corpus, load_corpus, read_corpus
from esckit.corpora.linter import check_files
from esckit.corpora.starter import read_starter
from esckit.errors import EsckitError, ModelError
from esckit.supporters import embedded
from esckit.supporters.chat import STATEMENT, STATEMENTS, Chat
from tests.server import KEY, MODEL, ChatServer
from tests.tiny import TINY_PLANNER, first_turns, one_thread, save_base, write_supporter


@pytest.fixture(scope="module", autouse=True)
def models_on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_supporter(tmp_path_factory.mktemp("chat") / "decoupled", max_context=512)


def few_dialogues() -> Corpus:
    """The beginnings of some of the starter corpus's dialogues."""
    corpus = read_starter()
    return replace(corpus, train=[first_turns(dialogue, 14) for dialogue in corpus.train[:14]], valid=[], test=[])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the embedded supporter, made tiny."""
    folder = tmp_path_factory.mktemp("cache") / "esckit"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESCKIT_CACHE", str(folder))
        patch.setattr(embedded, "read_starter", few_dialogues)
        embedded.embedded_supporter(options=TINY_PLANNER)
    return folder


@pytest.fixture
def with_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESCKIT_CACHE", str(cache))
    monkeypatch.setattr(embedded, "read_starter", few_dialogues)
    small = partial(embedded.embedded_supporter, options=TINY_PLANNER)
    monkeypatch.setattr(embedded, "embedded_supporter", small)
    monkeypatch.setattr(embedded, "RANKER", "no/such/model")


def chat(monkeypatch: pytest.MonkeyPatch, lines: str | bytes, *arguments: str | Path) -> int:
    """Run ``esckit chat`` on this input; return its exit code."""
    typed = lines if isinstance(lines, bytes) else lines.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed), encoding="utf-8"))
    monkeypatch.setattr(sys, "argv", ["esckit", "chat", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def saved(path: Path) -> Conversation:
    (conversation,) = read_conversations(path)
    return conversation


def test_a_language_model_chooses_where_it_can_be_had(
    with_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_base(tmp_path / "model")
    monkeypatch.setattr(embedded, "RANKER", str(model))
    assert chat(monkeypatch, "I failed my exam.\n/other\n/quit\ny\n") == 0
    printed = capsys.readouterr().out
    assert "A small language model chooses among them" in printed
    assert "[2] " in printed
    assert "[3] " in printed


def test_without_the_language_model_the_nearest_reply_is_taken_and_it_is_said_why(
    with_cache: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(monkeypatch, "/quit\n") == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("The nearest reply is taken, not the one that a language model would choose: no/such")
    assert "chooses among them" not in printed.out


def test_a_chinese_chat_is_told_in_chinese_and_names_strategies_in_both(
    with_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "chat.jsonl"
    assert chat(monkeypatch, f"/strategy 提问\n我又没考上\n/strategy\n/save {file}\n/quit\n", "--language", "zh") == 0
    printed = capsys.readouterr().out
    assert STATEMENTS["zh"] in printed
    assert STATEMENT not in printed
    assert "The next reply's strategy is Question（提问）." in printed
    assert "[2] Question（提问） (asked for)" in printed
    assert "Que  Question（提问）: 询问情况" in printed
    assert read_conversations(file)[0].language == "zh"
    assert chat(monkeypatch, "/quit\n", "--open", str(file)) == 0
    assert STATEMENTS["zh"] in capsys.readouterr().out
    for arguments, sentence in (
        (("--language", "fr"), "--language 'fr' is unknown in a chat: use en or zh."),
        (("--open", str(file), "--language", "zh"), "a saved chat has its language: leave --language out."),
    ):
        assert chat(monkeypatch, "/quit\n", *arguments) == 2
        assert sentence in capsys.readouterr().err


def test_a_newcomers_chat_with_the_embedded_supporter(
    with_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my chat.jsonl"
    script = f"I failed my exam\n/other\n/strategy ref\nIt hurts\n/go 2\nThank you\n/tree\n/save {file}\n/quit\n"
    assert chat(monkeypatch, script) == 0
    printed = capsys.readouterr().out
    assert STATEMENT in printed
    assert "starter (invented dialogues) (licence: CC0-1.0)" in printed
    assert "past strategies hidden" in printed
    assert "[5] Reflection of feelings (asked for); planner: " in printed
    assert "\n*   7 " in printed
    assert "\n    4 " in printed
    assert f"The chat is in {file} (7 turns)." in printed
    tree = saved(file)
    assert [turn.parent for turn in tree.turns] == [None, "1", "1", "3", "4", "2", "6"]
    texts = [turn.text for turn in tree.turns if turn.speaker == "supporter"]
    assert len(set(texts)) == len(texts)
    assert read_corpus(file)[0].id == tree.id
    assert {finding.kind for finding in check_files([file]).findings} == {"licence"}, "whose words these are, we ask"


def test_a_saved_chat_is_opened_and_goes_on_in_its_file(
    with_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "chat.jsonl"
    assert chat(monkeypatch, "I failed my exam\n/other\n", "--save", file) == 0
    before = saved(file)
    assert chat(monkeypatch, "It hurts\n", "--open", file) == 0
    assert "You go on after turn 3, embedded: " in capsys.readouterr().out
    after = saved(file)
    assert after.id == before.id
    assert after.turns[:3] == before.turns
    assert [turn.parent for turn in after.turns[3:]] == ["3", "4"]
    assert chat(monkeypatch, "/quit\n", "--open", file) == 0  # nothing new, so nothing is unsaved
    assert "not saved" not in capsys.readouterr().out
    assert saved(file) == after


def test_what_is_no_saved_chat_is_refused(
    language: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk, talks = tmp_path / "talk.jsonl", tmp_path / "talks.jsonl"
    dialogues = read_starter().train[:2]
    write_conversations(talk, dialogues[:1])
    write_conversations(talks, dialogues)
    other = replace(first_turns(dialogues[0], 1), taxonomy="cso", turns=[Turn("1", None, "seeker", "Hello.")])
    write_conversations(tmp_path / "other.jsonl", [other])
    refused: list[tuple[list[str | Path], str]] = [
        (["--open", talk], "is no saved chat: open a file that a chat has written."),
        (["--open", talks], "holds 2 conversations and no chat"),
        (["--open", tmp_path / "other.jsonl"], "held with strategies of cso and this supporter knows esconv"),
        (["--open", tmp_path / "none.jsonl"], "does not exist"),
        (["--open", talk, "--save", tmp_path / "new.jsonl"], "--open goes on in the chat's own file"),
    ]
    for arguments, sentence in refused:
        assert chat(monkeypatch, "Hello\n", language, *arguments) == 2
        assert sentence in (error := capsys.readouterr().err)
        assert error.count("\n") == 1
    assert saved(talk) == dialogues[0]


def test_a_language_models_reply_is_shown_while_it_is_written(
    language: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    flushed: list[str] = []
    plain = builtins.print

    def listen(*words: object, **how: object) -> None:
        if how.get("flush"):
            flushed.append(str(words[0]))
        plain(*words, **how)  # type: ignore[call-overload]

    monkeypatch.setattr(builtins, "print", listen)
    assert chat(monkeypatch, "Hello\n", language, "--save", tmp_path / "c.jsonl", "--past-strategies", "predicted") == 0
    assert "past strategies predicted" in capsys.readouterr().out
    assert len(flushed) > 3
    said = saved(tmp_path / "c.jsonl").turns[1]
    assert "".join(flushed).removeprefix("decoupled> ") == "".join(c for c in said.text or "" if c.isprintable())
    assert said.source == "decoupled"


@pytest.mark.parametrize(
    "line",
    [
        *("/frob", "/", "/other", "/go", "/go 99", "/go \ud800", "/tree", "/save", "/save /", "/save ~nobody-here/x"),
        *("/strategy hug", "/strategy r", "/save " + "a" * 300, "a" * 30_000, "/go " + "9" * 5000),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_the_chat_goes_on(
    line: str, language: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = line.encode("utf-8", "surrogatepass") + b"\n/help\n"
    assert chat(monkeypatch, script, language) == 0
    answer = capsys.readouterr().out.split("you> ")[1].strip()
    assert answer.count("\n") == 0
    assert answer.endswith(".")
    assert len(answer) < 300


def test_garbage_is_answered_and_kept(
    language: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "c.jsonl"
    script = b"\n  \x00\x07 \n\xff\xfe \xed\xa0\x80 \x1b[31mred\n /tree is what I say\n"
    assert chat(monkeypatch, script, language, "--save", file) == 0
    seekers = [turn.text or "" for turn in saved(file).turns if turn.speaker == "seeker"]
    assert [text[-7:] for text in seekers] == ["[31mred", "t I say"]
    assert "\x1b" not in capsys.readouterr().out


def test_words_that_do_not_fit_the_model_stay_in_the_tree_and_the_chat_goes_on_before_them(
    language: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "c.jsonl"
    assert chat(monkeypatch, f"Hello\n{'word ' * 2000}\nWell\n", language, "--save", file) == 0
    assert "you are back at turn 2, and your words stay in the tree as turn 3." in capsys.readouterr().out
    assert [turn.parent for turn in saved(file).turns] == [None, "1", "2", "2", "4"]


def test_the_end_of_the_input_says_what_is_not_saved(
    language: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert chat(monkeypatch, "Hello\n", language) == 0
    assert "2 turns are not saved: /save FILE keeps the chat" in capsys.readouterr().out
    assert chat(monkeypatch, f"Hello\n/quit\n/save {tmp_path / 'c.jsonl'}\n/quit\nnever said\n", language) == 0
    assert len(saved(tmp_path / "c.jsonl").turns) == 2


def test_ctrl_c_stops_a_reply_and_keeps_the_chat(
    language: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    reply, calls = Chat.reply, [0]

    def interrupted(self: Chat, on_text: object) -> object:
        calls[0] += 1
        if calls[0] == 1:
            raise KeyboardInterrupt
        return reply(self, on_text)  # type: ignore[arg-type]

    monkeypatch.setattr(Chat, "reply", interrupted)
    assert chat(monkeypatch, "Hello\n/other\n", language, "--save", tmp_path / "c.jsonl") == 0
    assert "Stopped. /other answers" in capsys.readouterr().out
    assert [turn.speaker for turn in saved(tmp_path / "c.jsonl").turns] == ["seeker", "supporter"]


def test_a_model_that_fails_does_not_take_the_chat_with_it(
    language: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no memory\nat all")

    monkeypatch.setattr(Chat, "reply", fail)
    assert chat(monkeypatch, "Hello\n/tree\n", language, "--save", tmp_path / "c.jsonl") == 0
    assert "no reply came: the model failed (no memory): " in capsys.readouterr().out
    assert len(saved(tmp_path / "c.jsonl").turns) == 1


def test_a_disk_that_is_full_does_not_end_the_chat(
    language: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise EsckitError("c.jsonl cannot be written (No space left on device): free space.")

    monkeypatch.setattr("esckit.cli.terminal_chat.write_conversations", full)
    assert chat(monkeypatch, "Hello\n", language, "--save", tmp_path / "c.jsonl") == 0
    printed = capsys.readouterr().out
    assert printed.count("not saved: c.jsonl cannot be written") == 2
    assert "2 turns are not saved" in printed


def test_no_other_file_is_written_over(
    language: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = tmp_path / "precious.jsonl"
    other.write_text("mine")
    assert chat(monkeypatch, "Hello\n", language, "--save", other) == 2
    assert "exists already" in capsys.readouterr().err
    again = f"Hello\n/save {other}\n/save {tmp_path / 'c'}\nWell\n/save {tmp_path / 'c'}\n"
    assert chat(monkeypatch, again, language) == 0
    assert other.read_text() == "mine"
    assert len(saved(tmp_path / "c").turns) == 4


def test_bad_arguments_are_one_sentence(
    language: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for arguments, words in (
        ([tmp_path / "nobody"], "nobody is nothing here: give a supporter's folder, a model's, a Hub id"),
        ([language, "--past-strategies", "gold"], "use predicted or hidden"),
        (["--base-url", "http://x/v1"], "--base-url is of a model that is named: name it (esckit chat MODEL)"),
        (["--method", "base"], "--method is of a chat model that is prompted: give --model as well"),
        (["--model", "remote:m", "--system", "none"], "--system is of a model as it is: name it without --model"),
        ([language, "--planner", "embedded"], "is a supporter, whose parts and words are those that it was made of"),
        ([language, "--base-url", "http://x/v1"], "base_url is for a model behind a URL"),
        ([language, "--model", "remote:m"], "answers in a supporter's place: leave out"),
        (["--model", "remote:m", "--method", "nonsense"], "there is no baseline 'nonsense': use one of base, "),
        (["--model", "remote:"], "remote: names no model"),
    ):
        assert chat(monkeypatch, "", *arguments) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("esckit: ")
        assert words in error


def test_a_chat_model_behind_a_url_is_talked_to_and_leaves_nothing_on_the_disk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    lines = "Hello\n/strategy Question\n/save c\nI want to kill myself.\n/quit\n/quit\n"
    with ChatServer() as server:
        assert chat(monkeypatch, lines, "--model", f"remote:{MODEL}", "--base-url", server.url) == 0
        assert server.calls == 1
    told = capsys.readouterr().out
    assert "it is sent what you write" in told
    assert "[2] no strategy named\n" in told
    assert "this supporter chooses each strategy itself" in told
    assert "a fixed text; no model has answered" in told
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    _, supporter = saved(tmp_path / "c").turns
    assert (supporter.source, supporter.strategy) == (MODEL, None)
    assert supporter.text == supporter.extra["raw"]


def test_the_embedded_supporter_is_made_once_and_a_damaged_one_is_named(
    with_cache: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []
    folder = embedded.embedded_supporter(lambda: made.append("again"))
    assert made == []
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing else is left in the cache"
    weights = folder / "planner/weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:99])
    assert chat(monkeypatch, "") == 2
    assert f"{folder} is damaged: remove that folder" in capsys.readouterr().err
    weights.write_bytes(whole)


def test_a_cache_that_cannot_be_written_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ESCKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="set ESCKIT_CACHE"):
        embedded.embedded_supporter(options=TINY_PLANNER)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESCKIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/a")
    assert cache_folder() == Path("/a/esckit")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/b")
    assert cache_folder() == Path("/b/.cache/esckit")
    monkeypatch.setenv("ESCKIT_CACHE", "/c")
    assert cache_folder() == Path("/c")


def test_predict_says_where_retrieved_replies_come_from(
    with_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_conversations(tmp_path / "in.jsonl", [first_turns(load_corpus("starter").test[0], 4)])
    folder = embedded.embedded_supporter()
    files = [str(tmp_path / name) for name in ("in.jsonl", "out.jsonl")]
    monkeypatch.setattr(sys, "argv", ["esckit", "predict", str(folder), *files])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "not therapy: no reply is written for you" in capsys.readouterr().out
