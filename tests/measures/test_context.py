"""What a predictions file takes from its dialogues."""

import pytest

from esckit.conversation import Conversation, Turn
from esckit.errors import PredictionsError
from esckit.measures import add_context

from .rows import row

DIALOGUE = Conversation(
    id="d",
    turns=[
        Turn("a", None, "supporter", "Hello.", "Question"),
        Turn("b", "a", "seeker", "I am sad."),
        Turn("c", "b", "seeker", "Very."),
        Turn("d", "c", "supporter", "Why?", "Question"),
        Turn("m", "c", "supporter", "I see.", "Others", source="model"),
        Turn("e", "d", "seeker", "Work."),
    ],
)


def test_position_and_seeker_turns() -> None:
    rows = [row("Question", None, dialogue="d", turn=turn) for turn in ("a", "d", "m")]
    opening, reply, sibling = add_context(rows, [DIALOGUE])
    assert (opening.position, opening.seeker_turns) == ([1, 5], [])
    assert (reply.position, reply.seeker_turns) == ([4, 5], ["I am sad.", "Very."])
    assert (sibling.position, sibling.seeker_turns) == ([4, 5], ["I am sad.", "Very."])


@pytest.mark.parametrize(("dialogue", "turn"), [("other", "a"), ("d", "z")])
def test_a_turn_that_no_dialogue_has(dialogue: str, turn: str) -> None:
    with pytest.raises(
        PredictionsError, match=f"conversation '{dialogue}', turn '{turn}' is in none of the dialogues: "
    ):
        add_context([row("Question", None, dialogue=dialogue, turn=turn)], [DIALOGUE])
