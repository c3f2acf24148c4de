"""When a role tells an experience, and which."""

import numpy as np
import pytest
from pydantic import ValidationError

from esckit.conversation import Turn
from esckit.roles import EMOTIONS
from esckit.roles.telling import TELLING, TellingOptions, choose_experience, may_tell, told_on
from esckit.strategy import TAXONOMIES
from tests.roles.little import little_role, scores

ROLE = little_role("captain")
NEUTRAL = np.zeros(len(ROLE.experiences))


def path(*told: str | None) -> list[Turn]:
    """Seeker and supporter in turn; each entry is a supporter turn and what is told in it."""
    turns = []
    for number, experience in enumerate(told):
        turns.append(Turn(f"{number}s", None, "seeker", "x"))
        extra = {"experience": experience} if experience else {}
        turns.append(Turn(f"{number}", None, "supporter", "y", extra=extra))
    return turns


@pytest.mark.parametrize("emotion", ["joy", "fear", "sadness", "anger"])
def test_the_experience_with_the_same_emotions_is_chosen_whatever_the_level(emotion: str) -> None:
    felt = np.array(scores(emotion)) / 3 + 1
    chosen = choose_experience(ROLE, felt, NEUTRAL, ())
    assert chosen is not None
    assert chosen.id == f"captain-{emotion}"


def test_what_was_told_is_not_told_again_until_nothing_is_left() -> None:
    told: list[str] = []
    for _ in ROLE.experiences:
        chosen = choose_experience(ROLE, scores("fear"), NEUTRAL, told)
        assert chosen is not None
        told.append(chosen.id)
    assert told[0] == "captain-fear"
    assert sorted(told) == sorted(each.id for each in ROLE.experiences)
    assert choose_experience(ROLE, scores("fear"), NEUTRAL, told) is None


def test_words_decide_between_equal_emotions_and_only_there() -> None:
    both = [9 if each in ("fear", "anger") else 2 for each in EMOTIONS]
    words = [0.0, 0.1, 0.9, 0.2]  # joy, fear, sadness, anger
    chosen = choose_experience(ROLE, both, words, ())
    assert chosen is not None
    assert chosen.id == "captain-anger"
    chosen = choose_experience(ROLE, both, words, (), tolerance=2.0)
    assert chosen is not None
    assert chosen.id == "captain-sadness"
    unequal = [10 if each == "fear" else 8 if each == "anger" else 1 for each in EMOTIONS]
    chosen = choose_experience(ROLE, unequal, words, (), tolerance=0.01)
    assert chosen is not None
    assert chosen.id == "captain-fear"


def test_it_tells_only_under_strategies_that_tell_and_not_too_often() -> None:
    options = TellingOptions(every=3, most=2)
    assert may_tell(path(), "Self-disclosure", options)
    assert not may_tell(path(), "Question", options)
    assert not may_tell(path(), None, options)
    assert not may_tell(path("a"), "Information", options)
    assert not may_tell(path("a", None), "Information", options)
    assert may_tell(path("a", None, None), "Information", options)
    assert not may_tell(path("a", None, None, "b", None, None, None), "Information", options)
    assert may_tell(path("a"), "Information", TellingOptions(every=1))
    assert not may_tell(path(), "Information", TellingOptions(most=0))
    assert told_on(path("a", None, "b")) == ["a", "b"]


def test_options_are_checked_and_every_default_is_a_label() -> None:
    for wrong in ({"every": 0}, {"most": -1}, {"strategy": ()}):
        with pytest.raises(ValidationError):
            TellingOptions.model_validate(wrong)
    for name, strategies in TELLING.items():
        assert set(strategies) < set(TAXONOMIES[name].labels)
    assert TELLING.keys() == TAXONOMIES.keys()
