"""Which replies of a dialogue are drafted anew: dialogues by hand, and what is kept and left out of each, by hand."""

from typing import Any, Final, NamedTuple

import pytest

from esckit.conversation import Conversation, Turn
from esckit.errors import CorpusError
from esckit.mining.self_refinement.contexts import choose_contexts, within_budget
from esckit.mining.self_refinement.options import RefinementOptions
from esckit.rendering import Part
from tests.tiny import talk

TEXTS: Final[dict[str, tuple[Any, ...]]] = {
    "u": ("seeker", "I failed my exam again."),
    "d": ("seeker", "I want to kill myself."),
    "g": ("seeker", "I am safe, let us go on."),
    "S": ("supporter", "What happened?", "Question"),
    "N": ("supporter", "What happened?"),
    "B": ("supporter", "  ", "Question"),
    "K": ("supporter", "Do you want to kill yourself?", "Question"),
}
"""Turns by letter: seekers are small; N names no strategy, B says nothing, d is danger, after g the talk goes on."""

BARE: Final = {"skip_first": 0, "skip_last": 0}
PAPER: Final = {"mode": "paper"}


class Case(NamedTuple):
    """A dialogue; ids of turns count from 0."""

    dialogue: str
    options: dict[str, Any]
    kept: list[int]
    left_out: dict[str, int]
    part: Part = "coupled"


CASES: Final = [
    # ends of a dialogue: one supporter turn there, two here
    Case("uSuSuSuS", {}, [3], {"first turn": 1, "last turns": 2}),
    Case("uSuSuS", {}, [], {"first turn": 1, "last turns": 2}),
    Case("uSuS", {}, [], {"first turn": 1, "last turns": 1}),
    Case("uS", {}, [], {"first turn": 1}),
    Case("uSuSuSu", {"skip_first": 2, "skip_last": 0}, [5], {"first turn": 2}),
    Case("uSuS", BARE, [1, 3], {}),
    Case("", {}, [], {}),
    Case("uuu", {}, [], {}),
    # who begins
    Case("SuSuS", BARE, [2, 4], {"not after the seeker": 1}),
    Case("SuSuS", {**PAPER, **BARE}, [1, 3], {"swapped": 1}),
    Case("SuSuS", {**PAPER, **BARE}, [], {"swapped": 1, "no strategy": 2}, "generator"),
    Case("uSuS", {**PAPER, **BARE}, [1, 3], {}),
    # runs of one speaker
    Case("uuSSuS", BARE, [2, 5], {"not after the seeker": 1}),
    Case("uuSSuS", {**BARE, "merge": True}, [2, 5], {"merged": 2}),
    Case("SSuuS", {**PAPER, **BARE}, [2], {"swapped": 1, "merged": 2}),
    Case("uSSSuSuSuS", {}, [5], {"first turn": 1, "not after the seeker": 2, "last turns": 2}),
    Case("uSSSuSuSuS", {"merge": True}, [5], {"first turn": 1, "last turns": 2, "merged": 2}),
    # danger: what the seeker says before the reply counts until they say to go on
    Case("uSdSuS", BARE, [1], {"danger": 2}),
    Case("uSdSgSuS", BARE, [1, 5, 7], {"danger": 1}),
    Case("dSuSuSuS", {}, [], {"first turn": 1, "danger": 1, "last turns": 2}),
    Case("uKuS", BARE, [1, 3], {}),
    Case("uSuSd", BARE, [1, 3], {}),
    # replies without words are none, so the second is the first
    Case("uBuS", BARE, [3], {}),
    Case("uBuSuS", {"skip_first": 1, "skip_last": 0}, [5], {"first turn": 1}),
    # a generator drafts under the strategy of people
    Case("uNuS", BARE, [1, 3], {}),
    Case("uNuS", BARE, [3], {"no strategy": 1}, "generator"),
]


def dialogue(letters: str, conversation_id: str = "talk") -> Conversation:
    return talk(*(TEXTS[letter] for letter in letters), conversation_id=conversation_id)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.dialogue or 'nothing'} {case.part} {case.options}")
def test_a_dialogue_s_replies(case: Case) -> None:
    chosen = choose_contexts(dialogue(case.dialogue), RefinementOptions(**case.options), case.part)
    assert [int(turn.id) for turn in chosen.turns] == case.kept
    assert dict(chosen.counts) == case.left_out


def test_changed_roles_keep_what_was_said_and_who_was_told_to_say_it() -> None:
    """Strategies describe supporters' replies: the one who is now the seeker has none."""
    given = dialogue("SuS")
    tree = choose_contexts(given, RefinementOptions(first_speaker="seeker", **BARE), "coupled").tree
    assert [(turn.speaker, turn.text) for turn in tree.turns] == [
        ("seeker", "What happened?"),
        ("supporter", "I failed my exam again."),
        ("seeker", "What happened?"),
    ]
    assert [turn.strategy for turn in tree.turns] == [None] * 3
    assert [turn.extra for turn in tree.turns] == [{"strategy": "Question"}, {}, {"strategy": "Question"}]
    assert given == dialogue("SuS"), "what is given stays as it is"


def test_what_is_joined_is_one_context() -> None:
    chosen = choose_contexts(dialogue("uuSSuS"), RefinementOptions(merge=True, **BARE), "coupled")
    first = chosen.turns[0]
    assert first.text == "What happened?\nWhat happened?"
    assert [turn.text for turn in chosen.tree.path(first.parent)] == [
        "I failed my exam again.\nI failed my exam again.",
    ]


def test_trees_of_an_earlier_round_are_joined_already() -> None:
    options = RefinementOptions(merge=True, reuse=True, **BARE)
    once = choose_contexts(dialogue("uuSSuS"), options, "coupled")
    draft = Turn("d", once.turns[0].parent, "supporter", "Well.", "Others", "m")
    again = choose_contexts(once.tree.grow([draft]), options, "coupled")
    assert [turn.id for turn in again.turns] == [turn.id for turn in once.turns]
    assert again.counts == {}


def test_branches_cannot_be_joined() -> None:
    draft = Turn("d", "1", "supporter", "Well.", "Others", "m")
    with pytest.raises(CorpusError, match=r"'talk' has branches, .* its turns cannot be merged: merge the dialogues"):
        choose_contexts(dialogue("uuSSuS").grow([draft]), RefinementOptions(merge=True), "coupled")


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [["1", "3", "5"], ["1"], ["1", "3"]]),
        ({"budget_calls": 100}, [["1", "3", "5"], ["1"], ["1", "3"]]),
        ({"budget_calls": 10}, [["1", "3", "5"], ["1"], ["1"]]),
        ({"budget_calls": 9}, [["1", "3", "5"], ["1"]]),  # two questions a context: draft and refinement
        ({"budget_calls": 8}, [["1", "3", "5"], ["1"]]),
        ({"budget_calls": 5}, [["1", "3"]]),
        ({"budget_calls": 8, "refined_by": "people"}, [["1", "3", "5"], ["1"], ["1", "3"]]),
        ({"budget_calls": 5, "refined_by": "people"}, [["1", "3", "5"], ["1"], ["1"]]),
        ({"budget_calls": 8, "rejected_from": "first"}, [["1", "3"]]),
        ({"budget_calls": 8, "accept": {"model": "remote:judge"}}, [["1", "3"]]),
        ({"budget_calls": 8, "accept": {"model": "embedded"}}, [["1", "3", "5"], ["1"]]),
    ],
    ids=str,
)
def test_a_budget_takes_the_first_contexts(options: dict[str, Any], kept: list[list[str]]) -> None:
    """Dialogues to which it does not reach are left for a later round."""
    told = RefinementOptions(**options, **BARE)
    chosen = [choose_contexts(dialogue(letters), told, "coupled") for letters in ("uSuSuS", "uSu", "uSuS")]
    assert [[turn.id for turn in each.turns] for each in within_budget(chosen, told)] == kept


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"refined_by": "people"}, 1),
        ({}, 2),
        ({"rejected_from": "first"}, 3),
        ({"rejected_from": "first", "accept": {"model": "remote:judge"}}, 5),
    ],
)
def test_a_budget_is_at_least_one_context_s(options: dict[str, Any], least: int) -> None:
    RefinementOptions(budget_calls=least, **options)
    if least > 1:
        with pytest.raises(ValueError, match=f"a context takes {least} questions: raise budget_calls"):
            RefinementOptions(budget_calls=least - 1, **options)
