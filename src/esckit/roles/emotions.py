"""Eight emotions, and how alike two patterns of them are."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["EMOTIONS", "HIGHEST", "LOWEST", "centred_cosine"]

EMOTIONS: Final = ("joy", "acceptance", "fear", "surprise", "sadness", "disgust", "anger", "anticipation")
"""Plutchik's eight, the order of every vector of scores (Empath, appendix F)."""

LOWEST: Final = 1
HIGHEST: Final = 10
"""Ends of a score's range; a score is an integer."""


def centred_cosine(one: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Cosine of patterns of emotions, each less its own mean: Pearson's correlation.

    Scores are all positive, so plain cosines crowd near 1 and the order hangs on small differences. Without its mean, a
    pattern says which emotions stand out, not how high its scores are altogether.

    Args:
        one: scores of one text, shape (8,), in the order of `EMOTIONS`; any range.
        others: scores of n texts, shape (n, 8).

    Returns:
        Shape (n,), each in -1 to 1; 0 where a pattern is flat, which is like nothing in particular.
    """
    wanted = np.asarray(one, np.float64)
    found = np.asarray(others, np.float64).reshape(-1, len(EMOTIONS))
    wanted = wanted - wanted.mean()
    found = found - found.mean(axis=1, keepdims=True)
    sizes = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted)
    flat = sizes < 1e-12
    return np.where(flat, 0.0, np.clip(found @ wanted / np.where(flat, 1.0, sizes), -1.0, 1.0))
