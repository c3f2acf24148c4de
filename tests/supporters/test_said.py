"""Words, messages and trees as places where a reply is wanted."""

import pytest

from esckit.supporters.said import place_of


@pytest.mark.parametrize(
    ("said", "language"),
    [
        ("I cannot sleep.", "en"),
        ("我最近总是睡不着。", "zh"),
        (["我睡不着", "从什么时候开始的？", "I think since 三月"], "zh"),
        ([{"role": "user", "content": "My name is 王, and I cannot sleep at all since March."}], "en"),
        ("1234", "en"),
    ],
)
def test_a_talk_is_in_the_language_of_most_of_its_letters(said: object, language: str) -> None:
    assert place_of(said).conversation.language == language  # type: ignore[arg-type]
