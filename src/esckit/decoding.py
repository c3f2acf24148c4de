"""How strategies and words are drawn, and where the seeds of these draws come from."""

import hashlib
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_serializer

__all__ = ["Decoding", "choose_strategies", "completed", "seed_of"]


_LATER: Final = {"top_k", "repetition_penalty"}  # no part of records and keys where they change nothing


@dataclass(frozen=True, repr=False)
class Decoding:
    """How replies are drawn; the defaults are the paper's (DecoupledESC, section 5.1).

    As transformers' `generate` has them, in this order: repetition_penalty, temperature, top_k, top_p.

    Attributes:
        greedy: take the most likely token; temperature, top_k and top_p are then unused.
        temperature: above 0.
        top_p: nucleus, in (0, 1], of what top_k leaves.
        max_new_tokens: the longest reply, in tokens.
        top_k: draw among so many likeliest tokens, and those as likely as the last of them; 1 or more, None is all.
        repetition_penalty: above 0: logits of tokens that the prompt has, or the reply so far, are divided by it where
            they are positive, else multiplied (CTRL, Keskar et al. 2019, section 4.1). 1 is none.
    """

    # A recipe's block of these keys becomes one; pydantic checks their ranges there.
    __pydantic_config__: ClassVar[Any] = ConfigDict(extra="forbid")

    greedy: bool = False
    temperature: Annotated[float, Field(gt=0)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    max_new_tokens: Annotated[int, Field(ge=1)] = 128
    top_k: Annotated[int | None, Field(ge=1)] = None
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0

    @model_serializer
    def record(self) -> dict[str, Any]:
        """By name, JSON-ready; top_k and repetition_penalty where they are set, so that older keys stay."""
        default = {field.name: field.default for field in fields(self) if field.name in _LATER}
        return {name: value for name, value in asdict(self).items() if name not in default or value != default[name]}

    def __repr__(self) -> str:
        return f"Decoding({', '.join(f'{name}={value!r}' for name, value in self.record().items())})"


def completed(given: Any, usual: Decoding) -> Any:
    """Keys of a decoding as ``usual`` has them where they are not given; who sets how to draw wants draws.

    Anything but a mapping comes back as it is.
    """
    if not isinstance(given, dict):
        return given
    drawn = {"greedy": False} if {"temperature", "top_p", "top_k"} & given.keys() else {}
    return {**asdict(usual), **drawn, **given}


def seed_of(*parts: object) -> int:
    """A seed, in 0..2^32-1, from the SHA-256 of the parts."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:4], "big")


def choose_strategies(log_probabilities: NDArray[np.float64], decoding: Decoding, n: int, seed: int) -> list[int]:
    """Choose n label indices from log-probabilities (K,).

    Greedy takes the n most likely ones, each once; else each is a draw of its own, by temperature, top_k and nucleus;
    a label is no text that could repeat another, so there is no penalty. Labels of probability 0 (minus infinity) are
    never chosen: there are fewer than n, or none, where too few are left.
    """
    order = np.argsort(-log_probabilities, kind="stable")
    possible = int(np.isfinite(log_probabilities).sum())
    if decoding.greedy or not possible:
        return [int(index) for index in order[: min(n, possible)]]
    scaled = log_probabilities / decoding.temperature
    if decoding.top_k is not None:
        scaled = np.where(scaled < scaled[order[:possible][: decoding.top_k][-1]], -np.inf, scaled)
        possible = int(np.isfinite(scaled).sum())
    probabilities = np.exp(scaled - scaled.max())
    probabilities /= probabilities.sum()
    before = np.cumsum(probabilities[order]) - probabilities[order]
    kept = order[:possible][before[:possible] < decoding.top_p]
    random = np.random.default_rng(seed)
    return [int(i) for i in random.choice(kept, n, p=probabilities[kept] / probabilities[kept].sum())]
