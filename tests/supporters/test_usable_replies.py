"""Replies that a program may say again."""

from collections import Counter

import pytest

from esckit.supporters.retrieval import explicit_risk, names_of, unusable, usable_replies
from tests.tiny import talk

LIVED = "self-disclosure of lived experience"


@pytest.mark.parametrize(
    "text",
    [
        "That sounds really hard. What happened then?",
        "I'm so sorry to hear that, and I really do understand why it hurts.",
        "I hope tomorrow is a little lighter for you!",
        "I would suggest writing down what you feel before you go to sleep.",
        "You could try a short walk; many people find that it helps.",
        "It sounds as if you have been carrying this alone for a long time.",
    ],
)
def test_listening_may_be_said_again(text: str) -> None:
    assert unusable(text, frozenset()) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Call 555-0199 at any hour.", "phone numbers, links and helplines"),
        ("You can ring 0800 123 4567.", "phone numbers, links and helplines"),
        ("Have a look at www.example.org", "phone numbers, links and helplines"),
        ("There is a helpline for this.", "phone numbers, links and helplines"),
        ("Please remember to fill in the survey.", "talk of the survey or the chat"),
        ("You can end the chat now.", "talk of the survey or the chat"),
        ("I don't get the bonus for this hit is that so", "talk of the survey or the chat"),
        ("I went through a divorce too.", LIVED),
        ("I have struggled with sleep for years", LIVED),
        ("My sister was in the same situation.", LIVED),
        ("I'm a nurse, and it is the same here.", LIVED),
        ("I love chocolate as well", LIVED),
        ("Have you been to Leeds?", "names and places"),
        ("have you told leeds council", "names and places"),
        ("Did you ever think of suicide?", "risk"),
        ("?!", "no words"),
    ],
)
def test_what_is_left_out_and_why(text: str, reason: str) -> None:
    assert unusable(text, frozenset({"leeds"})) == reason


def test_names_are_the_words_that_a_corpus_writes_with_a_capital_inside_sentences() -> None:
    dialogue = talk(
        ("seeker", "We moved to Leeds. Nobody knows us there, and I'm tired"),
        ("supporter", "So Leeds is new. What does a day there look like? NOBODY AROUND?", "Question"),
        ("seeker", "In leeds it rains. So So much."),
        ("supporter", "so much so", "Others"),
    )
    assert names_of([dialogue]) == {"leeds"}


@pytest.mark.parametrize(
    "text",
    [
        "I want to die",
        "sometimes I think about killing myself",
        "I don't want to live anymore",
        "he said I'd be better off dead",
        "I have been cutting myself",
        "there is no reason to live",
        "I tried to overdose last year",
    ],
)
def test_a_dialogue_with_explicit_risk_is_left_out_whole(text: str) -> None:
    lines = [("seeker", text), ("supporter", "That sounds hard.", "Reflection of feelings")]
    risky = talk(*lines)  # type: ignore[arg-type]
    left_out: Counter[str] = Counter()
    assert explicit_risk(risky)
    assert list(usable_replies([risky], left_out)) == []
    assert left_out == {"dialogues with explicit risk": 1}


@pytest.mark.parametrize("text", ["I am dying to know", "my plant died", "it is killing time", "I cut my finger"])
def test_everyday_words_are_no_risk(text: str) -> None:
    assert not explicit_risk(talk(("seeker", text)))


def test_no_reply_under_self_disclosure_is_said_again() -> None:
    dialogue = talk(
        ("seeker", "it is hard"),
        ("supporter", "That is very human.", "Self-disclosure"),
        ("supporter", "What is hardest?", "Question"),
        ("supporter", "unlabelled"),
    )
    left_out: Counter[str] = Counter()
    assert [turn.text for _, turn in usable_replies([dialogue], left_out)] == ["What is hardest?"]
    assert left_out == {LIVED: 1}
