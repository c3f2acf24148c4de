"""How strategies and words are drawn, and where the seeds of these draws come from."""

import hashlib
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

__all__ = ["Decoding", "choose_strategies", "completed", "seed_of"]


@dataclass(frozen=True)
class Decoding:
    """How replies are drawn; the defaults are the paper's (DecoupledESC, section 5.1).

    Attributes:
        greedy: take the most likely token; temperature and top_p are then unused.
        temperature: above 0.
        top_p: nucleus, in (0, 1].
        max_new_tokens: the longest reply, in tokens.
    """

    # A recipe's block of these keys becomes one; pydantic checks their ranges there.
    __pydantic_config__: ClassVar[Any] = ConfigDict(extra="forbid")

    greedy: bool = False
    temperature: Annotated[float, Field(gt=0)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    max_new_tokens: Annotated[int, Field(ge=1)] = 128


def completed(given: Any, usual: Decoding) -> Any:
    """Keys of a decoding as ``usual`` has them where they are not given; who sets how to draw wants draws.

    Anything but a mapping comes back as it is.
    """
    if not isinstance(given, dict):
        return given
    drawn = {"greedy": False} if given.keys() - {"greedy", "max_new_tokens"} else {}
    return {**asdict(usual), **drawn, **given}


def seed_of(*parts: object) -> int:
    """A seed, in 0..2^32-1, from the SHA-256 of the parts."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:4], "big")


def choose_strategies(log_probabilities: NDArray[np.float64], decoding: Decoding, n: int, seed: int) -> list[int]:
    """Choose n label indices from log-probabilities (K,).

    Greedy takes the n most likely ones, each once; else each is a draw of its own, by temperature and nucleus. Labels
    of probability 0 (minus infinity) are never chosen: there are fewer than n, or none, where too few are left.
    """
    order = np.argsort(-log_probabilities, kind="stable")
    possible = int(np.isfinite(log_probabilities).sum())
    if decoding.greedy or not possible:
        return [int(index) for index in order[: min(n, possible)]]
    scaled = log_probabilities / decoding.temperature
    probabilities = np.exp(scaled - scaled.max())
    probabilities /= probabilities.sum()
    before = np.cumsum(probabilities[order]) - probabilities[order]
    kept = order[:possible][before[:possible] < decoding.top_p]
    random = np.random.default_rng(seed)
    return [int(i) for i in random.choice(kept, n, p=probabilities[kept] / probabilities[kept].sum())]
