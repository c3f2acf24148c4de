"""One reply, streamed: never a text that is there already, and nothing told that does not stand."""

from collections.abc import Callable
from typing import Any

import pytest
from esckit.supporters.generator import stream_reply

from esckit.conversation import Turn
from esckit.decoding import Decoding
from esckit.language_models.backbone import Reply
from esckit.supporters import generator
from tests.tiny import talk, tiny_renderer


def streamed(
    monkeypatch: pytest.MonkeyPatch, samples: list[str], other_than: set[str]
) -> tuple[str | None, list[str], int]:
    """The reply's text, what was told, and how many samples were drawn, from a model that says these in order."""
    drawn: list[str] = []

    def say(_m: Any, _t: Any, _p: Any, _e: int, _d: Decoding, on_text: Callable[[str], None]) -> list[Reply]:
        drawn.append(samples[len(drawn)])
        for character in drawn[-1]:
            on_text(character)
        return [Reply(drawn[-1], "stop")]

    monkeypatch.setattr(generator, "generate", say)
    told: list[str] = []
    dialogue, turn = talk(("seeker", "Hello")), Turn("next", "0", "supporter", None)
    renderer, how = tiny_renderer(), Decoding()
    reply = stream_reply(None, renderer, dialogue, turn, "Question", {}, how, "generator", other_than, told.append)
    return reply and reply.text, told, len(drawn)


def test_a_text_is_told_from_where_it_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert streamed(monkeypatch, ["Why?"], set()) == ("Why?", ["W", "h", "y", "?"], 1)
    assert streamed(monkeypatch, ["Why?"], {"Who?", "Yes"}) == ("Why?", ["Why", "?"], 1)
    assert streamed(monkeypatch, ["Why"], {"Why not?"}) == ("Why", ["Why"], 1)


def test_a_text_that_is_there_is_never_told_and_another_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert streamed(monkeypatch, ["Why?", "", "Who?"], {"Why?"}) == ("Who?", ["Who", "?"], 3)
    assert streamed(monkeypatch, ["Why?"] * 9, {"Why?"}) == (None, [], 4)
