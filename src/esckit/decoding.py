"""How strategies and words are drawn."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

__all__ = ["Decoding", "choose_strategy"]


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


def choose_strategy(log_probabilities: NDArray[np.float64], decoding: Decoding, random: np.random.Generator) -> int:
    """Choose a label index from log-probabilities (K,): the largest, or a draw by temperature and nucleus."""
    if decoding.greedy:
        return int(log_probabilities.argmax())
    scaled = log_probabilities / decoding.temperature
    probabilities = np.exp(scaled - scaled.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    before = np.cumsum(probabilities[order]) - probabilities[order]
    kept = order[before < decoding.top_p]
    return int(random.choice(kept, p=probabilities[kept] / probabilities[kept].sum()))
