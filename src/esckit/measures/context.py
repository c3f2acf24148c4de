"""Predictions in their dialogues: what the talk says of a row, and rows as siblings of the turns they stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from esckit.conversation import Conversation, Turn, mined_id
from esckit.errors import PredictionsError
from esckit.measures.matching import GoldTurn, is_numbered, with_ids_of
from esckit.measures.predictions import Prediction, collect, prediction_to_json
from esckit.strategy import ESCONV, TAXONOMIES, Taxonomy


def add_context(predictions: Sequence[Prediction], conversations: Sequence[Conversation]) -> list[Prediction]:
    """Return the predictions with ``position`` and ``seeker_turns`` taken from their dialogues.

    Rows are matched to turns by their ids, or where no row has an id of these dialogues, by gold text and order
    (`matching`), and then have these ids. Utterances are counted on the path to the turn, N on the trunk.

    Raises:
        PredictionsError: a predicted turn is in none of the dialogues.
    """
    by_id = {conversation.id: conversation for conversation in conversations}
    rows = in_dialogues(predictions, conversations)
    return [replace(row, **_context(*gold_turn(by_id, row))) for row in rows]


def in_dialogues(predictions: Sequence[Prediction], conversations: Sequence[Conversation]) -> list[Prediction]:
    """Return the predictions under the ids of their dialogues, if they have none of these: see `add_context`."""
    known = {conversation.id for conversation in conversations}
    if is_numbered(predictions) or known.isdisjoint(str(row.conversation_id) for row in predictions):
        return with_ids_of(predictions, _gold_turns(conversations)) or [*predictions]
    return [*predictions]


def _gold_turns(conversations: Sequence[Conversation]) -> list[GoldTurn]:
    return [
        GoldTurn(conversation.id, turn.id, turn.strategy, turn.text or "")
        for conversation in conversations
        for turn in conversation.trunk
        if turn.speaker == "supporter"
    ]


def add_predictions(
    conversations: Sequence[Conversation], predictions: Sequence[Prediction], source: str
) -> list[Conversation]:
    """Return the dialogues with each prediction beside the turn that it stands for, as mined turns stand there.

    Such a turn's ``extra`` holds what the row says and the tree does not, under the row's own names: always
    ``turn_id``, which names the turn that it stands for, and mostly ``strategy_probabilities``, ``finish`` and
    ``past_strategies``. So `predictions_in` gives the same rows again.

    Args:
        conversations: the dialogues that were predicted, and others, which are returned as they are.
        predictions: of one system.
        source: its name.

    Raises:
        PredictionsError: a row's turn is in none of the dialogues, or the reply stands there under this name already.
    """
    by_id = {conversation.id: conversation for conversation in conversations}
    said: dict[str, dict[str, Turn]] = {}
    for row in predictions:
        conversation, gold = gold_turn(by_id, row)
        turn = _as_turn(conversation, gold, row, source)
        own = said.setdefault(conversation.id, {})
        if turn.id in own or any(turn.id == other.id for other in conversation.children(gold.parent)):
            raise PredictionsError(
                f"conversation {row.conversation_id!r} has the reply of {source} to turn {row.turn_id!r} already: add "
                "a system's predictions once, under a name of its own."
            )
        own[turn.id] = turn
    return [each.grow(said[each.id].values()) if each.id in said else each for each in conversations]


def predictions_in(conversations: Sequence[Conversation], taxonomy: Taxonomy = ESCONV) -> dict[str, list[Prediction]]:
    """Return each system's predictions that `add_predictions` put into dialogues: source to rows, dialogue by dialogue.

    Raises:
        PredictionsError: a turn's ``extra`` breaks a rule of the predictions file, or names no turn.
    """
    said = (turn for conversation in conversations for turn in conversation.turns if "turn_id" in turn.extra)
    names = dict.fromkeys(turn.source for turn in said)
    return {name: predictions_of(conversations, name, taxonomy) for name in names}


def predictions_of(conversations: Sequence[Conversation], source: str, taxonomy: Taxonomy = ESCONV) -> list[Prediction]:
    """Return the predictions of one system, as `predictions_in` does."""
    own = (
        _record(conversation, turn)
        for conversation in conversations
        for turn in conversation.turns
        if turn.source == source and "turn_id" in turn.extra
    )
    return collect(own, taxonomy)


def _record(conversation: Conversation, turn: Turn) -> tuple[str, dict[str, Any]]:
    place = f"conversation {conversation.id!r}, turn {turn.id!r}"
    try:
        gold = conversation.turn(str(turn.extra["turn_id"]))
    except KeyError as error:
        raise PredictionsError(f"{place} stands for {error}, which is no turn: add the predictions again.") from error
    return place, _told(conversation, gold, turn) | turn.extra


def gold_turn(by_id: Mapping[str, Conversation], row: Prediction) -> tuple[Conversation, Turn]:
    """Return the dialogue of a row and the turn that it stands for.

    Raises:
        PredictionsError: it is in none of the dialogues.
    """
    try:
        conversation = by_id[str(row.conversation_id)]
        return conversation, conversation.turn(str(row.turn_id))
    except KeyError as error:
        first = next(iter(by_id), None)
        raise PredictionsError(
            f"conversation {row.conversation_id!r}, turn {row.turn_id!r} is in none of the dialogues: give the file of "
            f"dialogues that the predictions were made from (the first here is {first!r}, and gold texts fit none)."
        ) from error


def _as_turn(conversation: Conversation, gold: Turn, row: Prediction, source: str) -> Turn:
    strategy = TAXONOMIES[conversation.taxonomy].match(row.predicted_strategy) if conversation.taxonomy else None
    text = "" if row.predicted_text is None and strategy is None else row.predicted_text  # a turn has one of the two
    turn = Turn(mined_id(gold.parent, source, strategy, text), gold.parent, "supporter", text, strategy, source=source)
    told = _told(conversation, gold, turn)
    record = dict.fromkeys(told) | prediction_to_json(row)
    return replace(
        turn,
        extra={
            name: value
            for name, value in record.items()
            if name == "turn_id" or name not in told or told[name] != value
        },
    )


def _told(conversation: Conversation, gold: Turn, turn: Turn) -> dict[str, Any]:
    """What the tree says of a predicted turn, as fields of a row."""
    return {
        "conversation_id": conversation.id,
        "turn_id": gold.id,
        "gold_strategy": gold.strategy,
        "predicted_strategy": turn.strategy,
        "gold_text": gold.text or "",
        "predicted_text": turn.text,
        **_context(conversation, gold),
    }


def _context(conversation: Conversation, gold: Turn) -> dict[str, Any]:
    path = conversation.path(gold.id)
    said = [turn.text for turn in path if turn.speaker == "seeker" and turn.text]
    return {"position": [len(path), max(len(path), len(conversation.trunk))], "seeker_turns": said}
