"""A judge that also mined is recognised by what preferences and verdicts record."""

from typing import Any

import pytest

from esckit.conversation import Conversation, Preference, Turn, Verdict
from esckit.judging.plan import also_mined, mining_judges


def test_everyone_who_had_a_say_in_a_preference_is_found() -> None:
    verdict = Verdict("gpt-9@00ff00ff", "psychological-errors/1", "lack_of_empathy")
    unused = Verdict("nobody", "psychological-errors/1")
    turns = [
        Turn("s", None, "seeker", "I am sad."),
        Turn("a", "s", "supporter", "Why?", "Question"),
        Turn("b", "s", "supporter", "Oh.", "Question", source="model", verdicts=[verdict]),
        Turn("c", "s", "supporter", "Ah.", "Question", source="model", verdicts=[unused]),
    ]
    preferences = [Preference("a", "b", "response", judge="rule:unequal")]
    tree = Conversation(id="d", turns=turns, preferences=preferences)
    assert mining_judges([tree]) == ["gpt-9@00ff00ff", "rule:unequal"]
    assert mining_judges([Conversation(id="d", turns=turns)]) == []


@pytest.mark.parametrize(
    ("judge", "identity", "miner", "same"),
    [
        ("gpt-9", {"url": "u", "model": "gpt-9"}, "gpt-9@00ff00ff", True),
        ("openai/GPT-9", {"url": "u", "model": "openai/GPT-9"}, "gpt-9", True),
        ("gpt-9-mini", {"url": "u", "model": "gpt-9-mini"}, "gpt-9@00ff00ff", False),
        ("gpt-9", {"url": "u", "model": "gpt-9"}, "rule:unequal", False),
        ("gpt-9", {"url": "u", "model": "gpt-9"}, "embedded@00ff00ff", False),
        ("model", {"weights": "ABC", "template": "t"}, "another@abc", True),
        ("model", {"weights": "abc", "template": "t"}, "another@abd", False),
    ],
)
def test_a_model_is_the_same_under_another_prefix_and_with_another_prompt(
    judge: str, identity: Any, miner: str, same: bool
) -> None:
    assert also_mined(judge, identity, [miner]) == ([miner] if same else [])
