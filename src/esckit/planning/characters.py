"""Vectors of texts in scripts without blanks from their characters alone, for want of an encoder that knows them."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from esckit.measures.scripts import MOST, share_of

_PLAIN: Final = re.compile(r"[\W_]+")
_LONGEST: Final = 2  # characters of a run; chosen by cross-validation (docs/planner.md)


def is_read_by_characters(text: str) -> bool:
    """Whether most of a text's letters are of a script without blanks, such as Chinese."""
    return share_of("without blanks", [text]) > MOST


def character_vectors(texts: Sequence[str], width: int) -> NDArray[np.float32]:
    """Vectors (N, width) of length 1 from hashed runs of one and two characters; of a text without letters 0.

    A run adds 1 + log(its count) at the place, and with the sign, that its CRC-32 says (Weinberger et al. 2009).
    """
    vectors = np.zeros((len(texts), width), dtype=np.float32)
    for row, text in zip(vectors, texts, strict=True):
        letters = _PLAIN.sub(" ", text.casefold())
        runs = Counter(
            letters[start : start + length]
            for length in range(1, _LONGEST + 1)
            for start in range(len(letters) - length + 1)
        )
        for run, count in runs.items():
            if " " not in run:
                code = crc32(run.encode("utf-8", "replace"))
                row[(code >> 1) % width] += (1 - 2 * (code & 1)) * (1 + np.log(count))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
