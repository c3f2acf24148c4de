"""What a predictions file does not say and its dialogues do: where a turn stands, and what the seeker had said."""

from collections.abc import Sequence
from dataclasses import replace

from esckit.conversation import Conversation
from esckit.errors import PredictionsError
from esckit.measures.predictions import Prediction

__all__ = ["add_context"]


def add_context(predictions: Sequence[Prediction], conversations: Sequence[Conversation]) -> list[Prediction]:
    """Return the predictions with ``position`` and ``seeker_turns`` taken from their dialogues.

    Utterances are counted on the path to the turn, N on the trunk.

    Raises:
        PredictionsError: a predicted turn is in none of the dialogues.
    """
    by_id = {conversation.id: conversation for conversation in conversations}
    return [_with_context(row, by_id.get(str(row.conversation_id))) for row in predictions]


def _with_context(row: Prediction, conversation: Conversation | None) -> Prediction:
    turn_id = str(row.turn_id)
    if conversation is None or all(turn.id != turn_id for turn in conversation.turns):
        raise PredictionsError(
            f"conversation {row.conversation_id!r}, turn {row.turn_id!r} is in none of the dialogues: give the file of "
            "dialogues that the predictions were made from."
        )
    path = conversation.path(turn_id)
    said = [turn.text for turn in path if turn.speaker == "seeker" and turn.text]
    return replace(row, position=[len(path), max(len(path), len(conversation.trunk))], seeker_turns=said)
