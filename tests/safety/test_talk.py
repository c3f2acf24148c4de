"""Wherever someone talks with a supporter, words of danger stop it: no model is asked until they say to go on."""

import asyncio
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from esckit.chat_models.protocol import ChatReply, ChatRequest
from esckit.cli import main
from esckit.conversation import Conversation, check_conversation, read_conversations, write_conversations
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.errors import ModelError
from esckit.measures import read_predictions
from esckit.safety import stop_after
from esckit.supporters import Supporter, predict
from esckit.supporters.as_chat_model import SupporterChatModel
from esckit.supporters.chat import Chat
from esckit.supporters.prediction import stopped_turns
from tests.supporters.test_chat import Scripted, chat_with
from tests.tiny import one_thread, talk, write_supporter

DANGER = "I want to kill myself. I have pills next to me."
FULL = stop_after([DANGER])
assert FULL is not None


@pytest.fixture(scope="module", autouse=True)
def models_on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


class Watched(Scripted):
    """Raises where it is asked while it must not be; keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__(que=["Why?", "Since when?"], ref=["That hurts."], oth=["Hm."])
        self.silent = False
        self.last: Conversation | None = None

    def score(self, conversation: Conversation, *rest: Any) -> Any:
        assert not self.silent, "a model was asked"
        self.last = conversation
        return super().score(conversation, *rest)

    def write(self, *arguments: Any) -> Any:
        assert not self.silent, "a model was asked"
        return super().write(*arguments)


def exchange(chat: Chat, text: str) -> tuple[str, str]:
    chat.say(text)
    turn = chat.reply().turn
    return turn.source, turn.text or ""


def stopped_chat() -> tuple[Chat, Watched]:
    parts = Watched()
    chat = chat_with(parts)
    parts.silent = True
    assert exchange(chat, DANGER) == ("safety", FULL.text if FULL else "")
    return chat, parts


def test_the_fixed_text_is_the_reply_and_a_turn_of_the_tree() -> None:
    chat, _ = stopped_chat()
    turn = chat.conversation.turns[-1]
    assert (turn.id, turn.parent, turn.speaker, turn.strategy) == ("2", "1", "supporter", None)
    assert turn.extra == {"danger": "suicide"}
    check_conversation(chat.conversation)


def test_every_later_message_gets_the_fixed_text_until_the_person_says_to_go_on() -> None:
    chat, parts = stopped_chat()
    for text in ("ok", "What do you think of my job?", "I am safe"):
        source, reply = exchange(chat, text)
        assert source == "safety"
        assert "https://findahelpline.com" in reply
    parts.silent = False
    assert exchange(chat, "I am safe, go on") == ("tester", "Why?")
    assert exchange(chat, "My exam is tomorrow")[0] == "tester"
    parts.silent = True
    assert exchange(chat, "I don't want to live anymore")[0] == "safety"


def test_models_are_shown_a_short_line_in_place_of_the_fixed_text() -> None:
    chat, parts = stopped_chat()
    parts.silent = False
    exchange(chat, "go on")
    assert parts.last is not None
    assert parts.last.turn("2").text == "Are you safe right now? Please reach a person who can help."
    assert "988" in (chat.conversation.turn("2").text or "")


def test_neither_another_reply_nor_a_forced_strategy_gets_a_models_reply() -> None:
    chat, parts = stopped_chat()
    said: list[str] = []
    assert chat.reply(said.append).turn.id == "2", "the same turn, not a copy of it"
    assert said == [chat.conversation.turn("2").text]
    chat.force("Question")
    assert chat.reply().turn.source == "safety"
    assert chat.forced is None
    assert len(chat.conversation.turns) == 2
    chat.go("1")
    assert chat.reply().turn.id == "2"
    parts.silent = False
    exchange(chat, "go on")
    chat.go("1")
    parts.silent = True
    assert chat.reply().turn.source == "safety", "going back to the danger is stopped again"


def test_an_interrupted_fixed_text_leaves_the_chat_stopped() -> None:
    def interrupt(_: str) -> NoReturn:
        raise KeyboardInterrupt

    parts = Watched()
    parts.silent = True
    chat = chat_with(parts)
    chat.say(DANGER)
    with pytest.raises(KeyboardInterrupt):
        chat.reply(interrupt)
    assert exchange(chat, "hello?")[0] == "safety"


def test_another_branch_is_not_stopped_and_the_stopped_one_stays_so() -> None:
    parts = Watched()
    chat = chat_with(parts)
    exchange(chat, "Hello")
    exchange(chat, DANGER)
    chat.go("2")
    assert chat.stopped is None
    assert exchange(chat, "I failed my exam")[0] == "tester"
    chat.go("4")
    parts.silent = True
    assert chat.stopped is not None
    assert exchange(chat, "hm")[0] == "safety"


def test_a_saved_chat_is_opened_as_it_was_left(tmp_path: Path) -> None:
    chat, parts = stopped_chat()
    write_conversations(tmp_path / "c.jsonl", [chat.conversation])
    (opened,) = read_conversations(tmp_path / "c.jsonl")
    again = Chat(chat.supporter, "tester", opened=opened)
    assert again.stopped is not None
    assert exchange(again, "hello")[0] == "safety"
    parts.silent = False
    assert exchange(again, "/continue")[0] == "tester"
    write_conversations(tmp_path / "c.jsonl", [again.conversation])
    (opened,) = read_conversations(tmp_path / "c.jsonl")
    assert Chat(chat.supporter, "tester", opened=opened).stopped is None


def test_a_supporter_of_the_name_safety_does_not_stop_a_chat() -> None:
    chat = chat_with(Watched())
    chat.name = "safety"
    exchange(chat, "Hello")
    assert chat.stopped is None


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_supporter(tmp_path_factory.mktemp("safety") / "decoupled", max_context=512)


def terminal(monkeypatch: pytest.MonkeyPatch, lines: str, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode()), encoding="utf-8"))
    monkeypatch.setattr(sys, "argv", ["esckit", "chat", *map(str, arguments)])
    with pytest.raises(SystemExit, match="0"):
        main()


def test_the_terminal_stops_and_goes_on(
    language: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.jsonl"
    script = f"/continue\n{DANGER}\n/other\n/strategy que\nhm\n/help me, I want to die\n/tree\n"
    terminal(monkeypatch, script, language, "--save", file)
    printed = capsys.readouterr().out
    assert "nothing has stopped the chat" in printed
    assert "esckit> I am stopping here" in printed
    assert "decoupled> " not in printed
    assert "[2] a fixed text; no model has answered" in printed
    assert " safety: I am stopping here" in printed
    turns = read_conversations(file)[0].turns
    assert [turn.source for turn in turns if turn.speaker == "supporter"] == ["safety"] * 3
    terminal(monkeypatch, "/continue\n", language, "--open", file)
    printed = capsys.readouterr().out
    assert "You go on after turn 6, esckit: " in printed
    assert "No model answers yet." in printed
    turns = read_conversations(file)[0].turns
    assert [(turn.text, turn.source) for turn in turns[6:7]] == [("Please go on.", "human")]
    assert turns[7].source == "decoupled"


def refuse(*_: object, **__: object) -> NoReturn:
    raise AssertionError("a model was asked")


def test_a_supporter_as_a_chat_model_stops_too(language: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    supporter = Supporter.load(language)
    model = SupporterChatModel(supporter)

    def answer(*said: str) -> str:
        roles = ("user", "assistant")
        messages = tuple(Message(roles[place % 2], text) for place, text in enumerate(said))
        request = ChatRequest(messages, Decoding(greedy=True, max_new_tokens=4))

        async def first() -> ChatReply:
            (reply,) = [each async for _, each in model.answer([request])]
            assert isinstance(reply, ChatReply)
            return reply

        return asyncio.run(first()).text

    after = ("I want to die", "Are you safe?", "go on")
    assert "findahelpline" not in answer(*after)
    assert "findahelpline" not in answer("Hello", "I want to die", "Well"), "what the program says is no danger"
    monkeypatch.setattr(supporter, "propose", refuse)
    assert answer(DANGER) == (FULL.text if FULL else "")
    assert "No model answers yet." in answer(DANGER, "Are you safe?", "What is the weather?")
    assert "findahelpline" in answer(*after, "Why?", "I took 30 tablets")


def test_predict_stops_where_it_is_asked_to(
    language: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dialogue = talk(
        ("seeker", "Hello"),
        ("supporter", "Hi.", "Question"),
        ("seeker", DANGER),
        ("supporter", "Are you safe?", "Question"),
        ("seeker", "Please go on."),
        ("supporter", "Well.", "Others"),
    )
    assert len(stopped_turns(dialogue)) == 1
    write_conversations(tmp_path / "in.jsonl", [dialogue])
    rows = {}
    for name, option in (("plain", []), ("stopping", ["--stop-at-danger"])):
        files = [str(tmp_path / "in.jsonl"), str(tmp_path / f"{name}.jsonl")]
        monkeypatch.setattr(sys, "argv", ["esckit", "predict", str(language), *files, *option])
        with pytest.raises(SystemExit, match="0"):
            main()
        rows[name] = read_predictions(tmp_path / f"{name}.jsonl")
    assert "1 of 3 replies are the fixed text" in capsys.readouterr().out
    assert rows["stopping"][1].predicted_text == (FULL.text if FULL else "")
    assert rows["stopping"][1].extra["danger"] == "suicide"
    assert rows["stopping"][1].predicted_strategy == rows["plain"][1].predicted_strategy
    assert [rows["stopping"][place] for place in (0, 2)] == [rows["plain"][place] for place in (0, 2)]


def test_a_supporter_that_only_plans_has_no_replies_to_stop(language: Path, tmp_path: Path) -> None:
    supporter = Supporter.load(language)
    supporter.generator = None
    with pytest.raises(ModelError, match="only plans"):
        predict(
            supporter,
            [talk(("seeker", "a"), ("supporter", "b", "Question"))],
            tmp_path / "p.jsonl",
            stop_at_danger=True,
        )


def test_a_reply_asked_for_from_python_stops_too(language: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    supporter = Supporter.load(language)
    went_on = supporter.reply([DANGER, "Are you safe?", "I am safe, go on"], strategy="Question")
    assert went_on.strategy == "Question"
    monkeypatch.setattr(supporter, "propose", refuse)
    stopped = supporter.reply(["Hello", "Hi.", DANGER], strategy="Question")
    assert (stopped.strategy, stopped.text) == (None, FULL.text if FULL else "")
    assert stopped.extra == {"danger": "suicide"}
