"""Evidence of psychological errors: what is seen in a reply, and what is not."""

import pytest

from esckit.conversation import Turn
from esckit.judging.evidence import EVIDENCE, Case, lexical_evidence

WORRY = ("I lost my job and I am so scared and sad.",)


def case(response: str, *said: str, strategy: str | None = None) -> Case:
    """What is said alternates, and ends with the seeker."""
    first = len(said) % 2
    turns = [
        Turn(str(i), str(i - 1) if i else None, "seeker" if i % 2 != first else "supporter", text)
        for i, text in enumerate(said)
    ]
    return Case(tuple(turns), strategy, response)


@pytest.mark.parametrize(
    ("response", "said", "strategy", "seen", "unseen"),
    [
        ("That must be frightening. Losing a job hurts.", WORRY, None, ["acknowledges", "particulars"], ["unheard"]),
        ("You should update your profile.", WORRY, None, ["advises", "advice_first", "unheard"], ["acknowledges"]),
        ("I’m so sorry. You could ask for a reference.", WORRY, None, ["acknowledges", "advises"], ["advice_first"]),
        ("Look on the bright side!", WORRY, None, ["turns_positive", "positive_unheard"], ["names_feeling"]),
        ("It's not a big deal.", WORRY, None, ["minimises"], ["turns_positive"]),
        ("I understand how you feel.", WORRY, None, ["stock_share", "stock_only", "no_particulars"], ["abuse"]),
        ("You sound furious.", WORRY, None, ["other_feeling"], ["clashing_feeling"]),
        ("You must be so happy!", WORRY, None, ["clashing_feeling"], ["other_feeling"]),
        ("Shut up, loser.", WORRY, None, ["abuse"], ["advises"]),
        ("I lost mine too.", WORRY, "Question", ["wording", "strategy: Question"], ["asks"]),
        ("How long ago was it?", WORRY, "Question", ["asks", "asks_only"], ["wording"]),
        ("There are offices for that.", WORRY, "Information", ["timing"], ["wording"]),
        ("And then?", ("a", "Why?", "b", "When?", "c"), None, ["asks_again"], ["feeling"]),
        ("Why is it so bad today?", ("a", "Why is it so bad?", "b"), None, ["repeats"], []),
        ("It sounds hard.", ("What should I do?",), "Reflection of feelings", ["ignores_request", "asks_help"], []),
        ("Hello!", ("Hi there",), None, ["social", "social_reply", "brief"], ["feeling", "unheard"]),
    ],
)
def test_evidence_is_seen_where_it_is(
    response: str, said: tuple[str, ...], strategy: str | None, seen: list[str], unseen: list[str]
) -> None:
    found = lexical_evidence(case(response, *said, strategy=strategy))
    assert [name for name in seen if found[name].value == 0] == []
    assert [name for name in unseen if found[name].value > 0] == []


def test_values_are_shares_and_words_stand_in_the_texts() -> None:
    reply = case("Don't worry, you should smile; I understand, everything will be fine!", *WORRY, strategy="Others")
    found = lexical_evidence(reply)
    assert set(found) == set(EVIDENCE) - {"stock_likeness", "relevance"}
    text = f"{reply.response} {WORRY[0]}".lower()
    assert all(0 <= piece.value <= 1 for piece in found.values())
    assert [word for piece in found.values() for word in piece.words if word.lower() not in text] == []
    assert found["advises"].words


def test_an_empty_context_and_an_unlabelled_strategy_are_no_error() -> None:
    found = lexical_evidence(Case((), None, "..."))
    assert found["no_seeker_turn"].value == 1
    assert found["wording"].value == 0
