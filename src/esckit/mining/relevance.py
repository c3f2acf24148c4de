"""How near the sides of preference pairs are to what the seeker said, and to each other. It needs no torch."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np

from esckit.measures.encoders import relevance_of
from esckit.measures.intervals import DRAWS, Draws, FloatArray, mean_intervals
from esckit.mining.pairs import Pair

__all__ = ["Embed", "pair_relevance"]

Embed = Callable[[Sequence[str]], Any]
"""From N texts to their vectors (N, D), of length 1: `planning.encoder.Encoder.embed`."""

_NAMES: Final = ("chosen", "rejected", "difference", "likeness")


def pair_relevance(pairs: Iterable[Pair], embed: Embed, draws: Draws = DRAWS) -> dict[str, Any] | None:
    """Return mean cosines of chosen and rejected replies with the seeker's words, and with each other.

    The seeker's words are all turns of the seeker before the reply: the relevance of a reply is the mean of its cosines
    with each of them, as in `measures.encoders.relevance_figures`. The paper does not say which words it takes, nor
    which model. Source: self-evolution, section 5.2, figure 5.

    Args:
        pairs: of any trees. Those of strategies alone, of a side without text, or before which the seeker said nothing
            are left out.
        embed: from texts to vectors of length 1.
        draws: of the bootstrap over dialogues.

    Returns:
        ``pairs``, how many are measured; ``chosen``, ``rejected``, ``difference`` (chosen less rejected) and
        ``likeness`` (of chosen with rejected), cosines of -1 to 1 (a difference: -2 to 2), each with its 95% interval
        ``..._interval``. None where no pair is measured.
    """
    known = [(pair, turns) for pair in pairs if _is_worded(pair) and (turns := _seeker_turns(pair))]
    if not known:
        return None
    unit = _vectors({text for pair, turns in known for text in (*turns, *_texts(pair))}, embed)
    rows = np.array([_cosines(unit, turns, *_texts(pair)) for pair, turns in known])  # (N, 4)
    each = dict(zip(_NAMES, rows.T, strict=True))
    intervals = mean_intervals(each, [pair.conversation.id for pair, _ in known], draws, high=np.inf)
    figures: dict[str, Any] = {"pairs": len(known)}
    for name, values in each.items():
        figures |= {name: float(values.mean()), f"{name}_interval": list(intervals[name] or ())}
    return figures


def _is_worded(pair: Pair) -> bool:
    return pair.preference.aspect != "strategy" and all(text.strip() for text in _texts(pair))


def _texts(pair: Pair) -> tuple[str, str]:
    return pair.chosen.text or "", pair.rejected.text or ""


def _seeker_turns(pair: Pair) -> list[str]:
    before = pair.conversation.path(pair.chosen.parent) if pair.chosen.parent is not None else []
    return [turn.text for turn in before if turn.speaker == "seeker" and turn.text and turn.text.strip()]


def _vectors(texts: set[str], embed: Embed) -> dict[str, FloatArray]:
    ordered = sorted(texts)
    return dict(zip(ordered, np.asarray(embed(ordered), dtype=np.float64), strict=True))


def _cosines(unit: dict[str, FloatArray], turns: Sequence[str], chosen: str, rejected: str) -> tuple[float, ...]:
    one, other = relevance_of(unit, turns, chosen), relevance_of(unit, turns, rejected)
    return one, other, one - other, float(unit[chosen] @ unit[rejected])
