"""The turn rule ``decoupled-esc``."""

import pytest

from esckit.conversation import Conversation, Turn
from esckit.conversation.turn_rule import Message, dialogue_messages, reply_text, to_messages


def path(*said: str) -> list[Turn]:
    """``s: text`` is the seeker's, ``h: text`` the helper's."""
    return [
        Turn(str(n), str(n - 1) if n else None, "seeker" if each[0] == "s" else "supporter", each[3:])
        for n, each in enumerate(said)
    ]


@pytest.mark.parametrize(
    ("said", "contents"),
    [
        ([], ["Hi"]),
        (["s: a"], ["a"]),
        (["s:  a \n", "s: b", "h:  c "], ["a\nb", "c", " "]),
        (["h: a"], ["Hi", "a", " "]),
        (["h: a", "h: b", "s: c"], ["Hi", "a", " ", "b", "c"]),
    ],
)
def test_users_and_assistants_alternate_and_the_last_message_is_a_users(said: list[str], contents: list[str]) -> None:
    messages = to_messages(path(*said), {})
    assert [message.content for message in messages] == contents
    assert [message.role for message in messages] == ["user", "assistant"] * (len(contents) // 2) + ["user"]


def test_the_filler_before_a_supporter_who_opens_is_in_the_dialogues_language() -> None:
    said = path("h: 你好", "h: 最近怎么样？")
    chinese = Conversation("c", said, language="zh")
    assert [message.content for message in to_messages(said, {}, "zh")] == ["你好", "你好", " ", "最近怎么样？", " "]
    assert to_messages([], {}, "zh") == [Message("user", "你好", filler=True)]
    assert dialogue_messages(chinese)[0].content == "你好"
    assert to_messages(said, {}, "fr")[0].content == to_messages(said, {})[0].content == "Hi"


def test_fillers_are_marked_and_words_that_look_like_one_are_not() -> None:
    assert to_messages(path("h: a", "h: b", "s: Hi", "h: c"), {"1": "Question"}) == [
        Message("user", "Hi", filler=True),
        Message("assistant", "a"),
        Message("user", " ", filler=True),
        Message("assistant", "[Question] b"),
        Message("user", "Hi"),
        Message("assistant", "c"),
        Message("user", " ", filler=True),
    ]


def test_a_reply_shows_its_strategy_in_brackets() -> None:
    assert (reply_text("Question", " Why? "), reply_text(None, " Why? ")) == ("[Question] Why?", "Why?")
