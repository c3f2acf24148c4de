"""Texts to rows of numbers: an encoder's vectors, or, where it does not know the language, characters or words."""

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from esckit.planning.encoder import EMBEDDED, Encoder
from esckit.planning.turn_batches import TextVectors

HASHED: Final = 1 << 14
"""Columns that characters and words are hashed into."""

_TOKEN: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")


class TextReader(Protocol):
    """Reads texts of one language."""

    @property
    def width(self) -> int:
        """F, the columns of a row."""
        ...

    def rows(self, texts: Sequence[str]) -> Any:
        """Rows (N, F) of length 1, dense or (scipy) sparse; of a text without letters 0."""
        ...


class VectorReader:
    """An encoder's vectors, remembered."""

    def __init__(self, encoder: Encoder) -> None:
        self._embed = TextVectors(encoder)
        self.width = encoder.width

    def rows(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """See `TextReader.rows`."""
        return self._embed(texts).astype(np.float64)


class TokenReader:
    """Characters (words, in a script with blanks), hashed and weighed by rarity (F,).

    Not n-grams: with few texts to learn from they cost accuracy, as each text is then mostly what no other has
    (PsyQA's sample, nine roles, unseen: 35% right by characters, 29% with pairs of them, 26% with triples too).
    """

    width = HASHED

    def __init__(self, rarity: NDArray[np.float64]) -> None:
        self.rarity = rarity

    @classmethod
    def learn(cls, texts: Sequence[str]) -> "TokenReader":
        """Rarity: the logarithm of one over the share of texts that hold a token."""
        held = Counter(column for text in texts for column in _tokens(text))
        counts = np.zeros(HASHED)
        counts[list(held)] = list(held.values())
        return cls(np.log((1 + len(texts)) / (1 + counts)))

    def rows(self, texts: Sequence[str]) -> Any:
        """See `TextReader.rows`."""
        from scipy.sparse import csr_matrix

        values, columns, ends = list[float](), list[int](), [0]
        for text in texts:
            tokens = _tokens(text)
            weights = self.rarity[list(tokens)] * (1 + np.log(np.array(list(tokens.values()), dtype=np.float64)))
            values += (weights / max(float(np.linalg.norm(weights)), 1e-12)).tolist()
            columns += list(tokens)
            ends.append(len(columns))
        return csr_matrix((values, columns, ends), shape=(len(texts), HASHED))


def _tokens(text: str) -> Counter[int]:
    """How often each token's column occurs."""
    tokens = _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())
    return Counter(zlib.crc32(token.encode()) % HASHED for token in tokens)


def reads_vectors(encoder: Encoder | None, language: str) -> bool:
    """Whether an encoder reads a language: the embedded one English alone, one that is named whatever it is given."""
    return encoder is not None and (encoder.source != EMBEDDED or language == "en")


def likeness(rows: Any, others: Any) -> NDArray[np.float64]:
    """Cosines (N, M) of rows (N, F) with others (M, F)."""
    product = rows @ others.T
    return np.asarray(product.toarray() if hasattr(product, "toarray") else product)
