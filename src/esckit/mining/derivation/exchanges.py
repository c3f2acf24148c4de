"""A talk as exchanges: what the seeker says, and what the supporter answers. All steps read and make these."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from esckit.conversation import Conversation, Turn
from esckit.conversation.turn_rule import merge_turns

__all__ = ["PHASES", "Exchange", "Talk", "exchanges_of", "supporter_text", "turns_of"]

PHASES: Final = ("exploration", "comforting", "action")
"""Of a talk, in this order (Empath, section 4.2, after Hill's helping skills)."""


class Exchange(NamedTuple):
    """One exchange.

    Attributes:
        seeker: text.
        supporter: text.
        strategy: label of the supporter's, as it was written; None where there is none.
        phase: of `PHASES`, where it is known.
        experience: id of the experience that the supporter tells.
        stock: the seeker's words are stock phrases of the rules.
    """

    seeker: str
    supporter: str
    strategy: str | None = None
    phase: str | None = None
    experience: str | None = None
    stock: bool = False


Talk = tuple[Exchange, ...]


def exchanges_of(tree: Conversation) -> Talk:
    """The trunk as exchanges: one speaker's utterances in a row are joined, under the first one's strategy.

    What the supporter says before the seeker, and what the seeker says last, belongs to no exchange.
    """
    said = [turn for turn in tree.trunk if (turn.text or "").strip()]
    plain = [replace(turn, parent=None, scores={}, verdicts=[]) for turn in said]
    line = [replace(turn, parent=plain[place - 1].id if place else None) for place, turn in enumerate(plain)]
    turns = merge_turns(replace(tree, turns=line, preferences=[])).turns
    turns = turns[turns[0].speaker == "supporter" :] if turns else []
    pairs = zip(turns[::2], turns[1::2], strict=False)
    return tuple(Exchange(one.text or "", other.text or "", other.strategy) for one, other in pairs)


def supporter_text(talk: Sequence[Exchange]) -> str:
    """All that the supporter says, a line an exchange."""
    return "\n".join(each.supporter for each in talk)


def turns_of(talk: Talk, seekers: str, supporters: str) -> Iterator[Turn]:
    """The talk as turns of a tree, in a line.

    Args:
        talk: with labels of a taxonomy.
        seekers: source of the seeker's turns; of stock phrases it is the supporter's.
        supporters: source of the supporter's.
    """
    for place, each in enumerate(talk):
        before = str(2 * place - 1) if place else None
        stock = {"stock": True} if each.stock else {}
        yield Turn(str(2 * place), before, "seeker", each.seeker, None, supporters if stock else seekers, extra=stock)
        extra = {name: value for name in ("phase", "experience") if (value := getattr(each, name))}
        own, said = str(2 * place + 1), each.supporter
        yield Turn(own, str(2 * place), "supporter", said, each.strategy, supporters, extra=extra)
