"""Which turns are judged: a fixed sample of those that every system answered, each in the same context."""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from hashlib import sha256
from typing import NamedTuple

from esckit.conversation import Conversation, Turn
from esckit.errors import EsckitError, PredictionsError
from esckit.measures import Prediction
from esckit.measures.context import gold_turn

__all__ = ["JudgedTurn", "SampledTurns", "draw_first", "sample_turns", "sample_written"]


class JudgedTurn(NamedTuple):
    """A place in a dialogue that a reply is judged at.

    Attributes:
        conversation_id, turn_id: the supporter turn.
        context: everything said before it, from the tree: the same for every system.
        reference: what the human supporter said there.
        language: of the dialogue.
        role: the one that the supporter of the dialogue has there; None for a plain counsellor.
    """

    conversation_id: str
    turn_id: str
    context: tuple[Turn, ...]
    reference: str
    language: str = "en"
    role: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What names it."""
        return self.conversation_id, self.turn_id


class SampledTurns(NamedTuple):
    """The sample, and every system's replies to it.

    Attributes:
        turns: in the dialogues' order.
        replies: system to turn to text; a null prediction is an empty text.
        shared: turns that all systems answered, of which these were drawn.
        left_out: turns that some systems answered and others did not.
        roles: system to turn to the role that the reply was made in; a turn that is not there has the dialogue's.
    """

    turns: list[JudgedTurn]
    replies: dict[str, dict[tuple[str, str], str]]
    shared: int
    left_out: int
    roles: dict[str, dict[tuple[str, str], str | None]]


def sample_turns(
    files: Mapping[str, Sequence[Prediction]], conversations: Sequence[Conversation], number: int, seed: int
) -> SampledTurns:
    """Draw turns by a hash of their ids, so that they depend on no order, and a larger sample holds the smaller one.

    Args:
        files: system to predictions.
        conversations: the dialogues predicted.
        number: how many turns; all where there are fewer.
        seed: of the draw.

    Raises:
        PredictionsError: two systems share no turn or disagree about gold, or a turn is in none of the dialogues.
    """
    by_key = {name: {_key(row): row for row in rows} for name, rows in files.items()}
    shared = reduce(frozenset.intersection, (frozenset(rows) for rows in by_key.values()))
    if not shared:
        raise PredictionsError(
            f"{', '.join(files)} share no turn (conversation_id and turn_id): judge predictions of the same dialogues."
        )
    drawn = set(draw_first(shared, number, seed))
    _check_gold(by_key, drawn)
    trees = {conversation.id: conversation for conversation in conversations}
    gold = next(iter(by_key.values()))
    turns = [_judged(key, row.gold_text, *gold_turn(trees, row)) for key, row in gold.items() if key in drawn]
    every = frozenset().union(*by_key.values())
    replies = {name: {key: rows[key].predicted_text or "" for key in drawn} for name, rows in by_key.items()}
    told = {name: {key: row.extra for key, row in rows.items() if key in drawn} for name, rows in by_key.items()}
    roles = {name: {key: extra["role"] for key, extra in own.items() if "role" in extra} for name, own in told.items()}
    return SampledTurns(turns, replies, len(shared), len(every) - len(shared), roles)


def sample_written(
    conversations: Sequence[Conversation], number: int, seed: int
) -> tuple[list[JudgedTurn], dict[tuple[str, str], str]]:
    """Draw supporter turns as they stand in dialogues, each in its own context, and their texts.

    Raises:
        EsckitError: there is none.
    """
    trees = {conversation.id: conversation for conversation in conversations}
    written = {
        (conversation.id, turn.id): turn
        for conversation in conversations
        for turn in conversation.trunk
        if turn.speaker == "supporter" and (turn.text or "").strip()
    }
    if not written:
        raise EsckitError("the file of failed replies has no supporter turn: give dialogues with replies.")
    drawn = draw_first(written, number, seed)
    turns = [_judged(key, "", trees[key[0]], written[key]) for key in drawn]
    return turns, {key: written[key].text or "" for key in drawn}


def draw_first(keys: Iterable[tuple[str, str]], number: int, seed: int) -> list[tuple[str, str]]:
    """The first keys in the order of their hashes."""
    return sorted(keys, key=lambda key: sha256(f"{seed}\x1f{key[0]}\x1f{key[1]}".encode("utf-8", "replace")).digest())[
        :number
    ]


def _key(row: Prediction) -> tuple[str, str]:
    return str(row.conversation_id), str(row.turn_id)


def _check_gold(by_key: Mapping[str, Mapping[tuple[str, str], Prediction]], drawn: Iterable[tuple[str, str]]) -> None:
    (name, rows), *others = by_key.items()
    for key in drawn:
        for other, theirs in others:
            if rows[key].gold_text.strip() != theirs[key].gold_text.strip():
                raise PredictionsError(
                    f"{name} and {other} differ in the gold_text of conversation {key[0]!r}, turn {key[1]!r}: judge "
                    "predictions of the same dialogues."
                )


def _judged(key: tuple[str, str], reference: str, conversation: Conversation, turn: Turn) -> JudgedTurn:
    role = turn.extra.get("role", conversation.labels.get("role"))
    return JudgedTurn(*key, tuple(conversation.path(turn.parent)), reference, conversation.language, role)
