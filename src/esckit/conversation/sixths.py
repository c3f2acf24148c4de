"""The sixth of a dialogue that an utterance stands in: the field shows how strategies change over them."""

from typing import Final

__all__ = ["SIXTHS", "sixth_of"]

SIXTHS: Final = 6


def sixth_of(position: int, length: int) -> int:
    """Return the sixth of a dialogue, 0 to 5, of utterance ``position`` (from 1) of ``length``: floor(6k/N), at most 5.

    DecoupledESC, figure 8, and CSO, section 4.3, call it a stage.
    """
    return min(SIXTHS * position // length, SIXTHS - 1)
