"""Rows of different files that stand for one turn: by their ids, else by the gold text and the order.

Other programs' files name no dialogue; `importers` numbers their rows. Such rows take the ids of the turns that they
stand for, in another file or in dialogues, so that everything else may go by ids.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from esckit.measures.predictions import Prediction

Key = tuple[str, str]
"""A dialogue's id and a turn's."""


class GoldTurn(NamedTuple):
    """A turn that rows may stand for."""

    conversation_id: str | int
    turn_id: str | int
    strategy: str | None
    text: str


def key_of(turn: Prediction | GoldTurn) -> Key:
    """What names a turn, whether its ids are written as numbers or as texts."""
    return str(turn.conversation_id), str(turn.turn_id)


def is_numbered(rows: Sequence[Prediction]) -> bool:
    """Whether ids are mere numbers of rows, as `importers` gives them."""
    return all(row.conversation_id == row.turn_id == number for number, row in enumerate(rows, 1))


def align(files: Mapping[str, Sequence[Prediction]]) -> tuple[dict[str, Sequence[Prediction]], list[str]]:
    """Give files that name no dialogue, or none of the first one's, the ids of the turns of the first that does.

    Returns:
        The files, and a sentence for each that got ids.
    """
    first = next((name for name, rows in files.items() if not is_numbered(rows)), next(iter(files)))
    turns = [GoldTurn(row.conversation_id, row.turn_id, row.gold_strategy, row.gold_text) for row in files[first]]
    known, aligned, told = {key_of(turn) for turn in turns}, dict(files), []
    for name, rows in files.items():
        foreign = is_numbered(rows) or known.isdisjoint(map(key_of, rows))
        if name != first and foreign and (found := with_ids_of(rows, turns)):
            aligned[name] = found
            if list(map(key_of, found)) != list(map(key_of, rows)):
                told.append(f"{name} has no ids of {first}: its rows are taken for turns of the same gold text there.")
    return aligned, told


def with_ids_of(rows: Sequence[Prediction], turns: Sequence[GoldTurn]) -> list[Prediction] | None:
    """Return the rows under the ids of the turns that they stand for; None where no row stands for any.

    All in their order, where there are as many and nothing speaks against it; else by the gold text, and the gold
    strategy where all have one: the k-th row with these is the k-th turn with these, if both sides have them equally
    often. A row without a turn has ids that no turn has.
    """
    if len(rows) == len(turns) and _agree(rows, turns):
        return [_renamed(row, turn) for row, turn in zip(rows, turns, strict=True)]
    labelled = all(row.gold_strategy for row in rows) and all(turn.strategy for turn in turns)

    def gold(text: str, strategy: str | None) -> tuple[str, str]:
        return _plain(text), _plain(strategy or "") if labelled else ""

    here = Counter(gold(row.gold_text, row.gold_strategy) for row in rows)
    there: dict[tuple[str, str], list[GoldTurn]] = defaultdict(list)
    for turn in turns:
        there[gold(turn.text, turn.strategy)].append(turn)
    free = {key: iter(there[key]) for key, number in here.items() if key[0] and len(there[key]) == number}
    found = [next(free.get(gold(row.gold_text, row.gold_strategy), iter(())), None) for row in rows]
    return [_renamed(row, turn) for row, turn in zip(rows, found, strict=True)] if free else None


def _agree(rows: Sequence[Prediction], turns: Sequence[GoldTurn]) -> bool:
    """Whether texts and strategies are the same one by one, as far as both sides have them, and some are."""
    pairs = [(row.gold_text, turn.text) for row, turn in zip(rows, turns, strict=True)]
    pairs += [(row.gold_strategy or "", turn.strategy or "") for row, turn in zip(rows, turns, strict=True)]
    told = [(_plain(one), _plain(other)) for one, other in pairs if one.strip() and other.strip()]
    return bool(told) and all(one == other for one, other in told)


def _renamed(row: Prediction, turn: GoldTurn | None) -> Prediction:
    if turn is None:
        return replace(row, conversation_id=f"row {row.conversation_id}", turn_id=f"row {row.turn_id}")
    return replace(row, conversation_id=turn.conversation_id, turn_id=turn.turn_id)


def _plain(text: str) -> str:
    """A text without what programs change as they pass it on: its case and its blanks."""
    return " ".join(text.split()).casefold()
