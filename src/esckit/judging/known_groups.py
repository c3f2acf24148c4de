"""Replies whose order is known beforehand: a judge that does not find it out is not to be believed about others."""

from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import NamedTuple

import yaml

from esckit.conversation import Conversation
from esckit.errors import EsckitError
from esckit.judging.rubric import KnownGroup
from esckit.judging.sampling import JudgedTurn, draw_first, sample_written


class KnownReply(NamedTuple):
    """A reply of a known group at its turn."""

    group: KnownGroup
    turn: JudgedTurn
    text: str


def known_replies(turns: Sequence[JudgedTurn], failed: Sequence[Conversation] | None, seed: int) -> list[KnownReply]:
    """Make the groups: the human reply at each turn, that of a turn of another dialogue, one of our stock replies.

    Args:
        turns: of two dialogues or more.
        failed: dialogues in which the support failed; as many of their replies, in their own contexts, are the fourth.
        seed: of what is drawn.

    Raises:
        EsckitError: all turns are of one dialogue, or ``failed`` has no reply.
    """
    stock = stock_replies()
    found = [KnownReply("gold", turn, turn.reference) for turn in turns]
    found += [KnownReply("shuffled", turn, text) for turn, text in zip(turns, _others(turns, seed), strict=True)]
    found += [KnownReply("stock", turn, stock[_number(seed, *turn.key) % len(stock)]) for turn in turns]
    if failed is not None:
        places, texts = sample_written(failed, len(turns), seed)
        # Both corpora may count their dialogues from 0.
        found += [
            KnownReply("failed", place._replace(conversation_id=f"failed:{place.conversation_id}"), texts[place.key])
            for place in places
        ]
    return found


@cache
def stock_replies() -> tuple[str, ...]:
    """Ours, written to fit anyone."""
    text = (resources.files("esckit.judging") / "stock_replies.yaml").read_text(encoding="utf-8")
    return tuple(yaml.safe_load(text))


def _others(turns: Sequence[JudgedTurn], seed: int) -> list[str]:
    """For each turn the human reply of a turn of another dialogue; each turn's is drawn by itself."""
    by_key = {turn.key: turn for turn in turns}
    order = [by_key[key] for key in draw_first(by_key, len(by_key), seed)]
    if len({turn.conversation_id for turn in turns}) < 2:
        raise EsckitError("known groups need turns of two dialogues or more: judge a larger sample.")
    texts = []
    for turn in turns:
        start = _number(seed, *turn.key, "other") % len(order)
        turned = [*order[start:], *order[:start]]
        texts.append(next(other.reference for other in turned if other.conversation_id != turn.conversation_id))
    return texts


def _number(*parts: object) -> int:
    return int.from_bytes(sha256("\x1f".join(map(str, parts)).encode("utf-8", "replace")).digest()[:6], "big")
