"""The turn rule ``merged``: utterances of one speaker in a row are one turn."""

from collections.abc import Callable

import pytest

from esckit.conversation import Conversation, Preference, Turn, Verdict, check_conversation
from esckit.conversation.turn_rule import MergedLabel, dialogue_messages, merge_turns
from esckit.errors import CorpusError
from tests.tiny import talk

TALK = talk(
    ("supporter", " Hello! \n", "Others"),
    ("supporter", "What worries you most about it?", "Question"),
    ("seeker", "The canteen."),
    ("seeker", " Everybody. "),
    ("supporter", "I see.", "Reflection of feelings"),
    conversation_id="talk",
)


@pytest.mark.parametrize(("label", "strategy"), [("first", "Others"), ("last", "Question"), ("longest", "Question")])
def test_a_run_is_one_turn_with_the_label_asked_for(label: MergedLabel, strategy: str) -> None:
    merged = merge_turns(TALK, label)
    check_conversation(merged)
    assert [(turn.id, turn.parent, turn.speaker, turn.text, turn.strategy) for turn in merged.turns] == [
        ("0", None, "supporter", "Hello!\nWhat worries you most about it?", strategy),
        ("2", "0", "seeker", "The canteen.\nEverybody.", None),
        ("4", "2", "supporter", "I see.", "Reflection of feelings"),
    ]
    assert merged.provenance["turn_rule"] == f"merged, {label} label"
    assert merged.turns[2].extra == {}


def test_nothing_of_a_run_is_lost() -> None:
    assert merge_turns(TALK).turns[0].extra["merged"] == [
        {"id": "0", "text": " Hello! \n", "strategy": "Others"},
        {"id": "1", "text": "What worries you most about it?", "strategy": "Question"},
    ]


def test_a_label_is_taken_from_those_who_have_one() -> None:
    plain = talk(("supporter", "Hm."), ("supporter", "Ok.", "Question"), ("supporter", "Well then."))
    labels: tuple[MergedLabel, ...] = ("first", "last", "longest")
    assert [merge_turns(plain, label).turns[0].strategy for label in labels] == ["Question"] * 3
    assert merge_turns(talk(("supporter", "Hm."), ("supporter", "Ok."))).turns[0].strategy is None


def test_of_equally_long_ones_the_first_counts() -> None:
    even = talk(("supporter", "Yes.", "Question"), ("supporter", "Oh..", "Others"))
    assert merge_turns(even, "longest").turns[0].strategy == "Question"


def test_merging_twice_changes_nothing_more_and_needs_no_blank_message() -> None:
    merged = merge_turns(TALK)
    assert merge_turns(merged) == merged
    assert [message.filler for message in dialogue_messages(merged)] == [True, False, False, False]


GROWN: tuple[Callable[[Conversation], Conversation], ...] = (
    lambda tree: tree.grow([Turn("x", "3", "supporter", "Hm.")]),
    lambda tree: tree.grow([Turn("x", "3", "supporter", "Hm.", "Others")], [Preference("4", "x", "turn")]),
    lambda tree: Conversation("c", [Turn("0", None, "supporter", "Hm.", scores={"value": 1.0})]),
    lambda tree: Conversation("c", [Turn("0", None, "supporter", "Hm.", verdicts=[Verdict("j", "r")])]),
    lambda tree: Conversation("c", [Turn("0", None, "supporter", None, "Others")]),
)


@pytest.mark.parametrize("grow", GROWN)
def test_what_belongs_to_single_utterances_is_not_merged(grow: Callable[[Conversation], Conversation]) -> None:
    with pytest.raises(CorpusError, match="its turns cannot be merged: merge the dialogues before"):
        merge_turns(grow(TALK))
