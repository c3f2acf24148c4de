"""A role matcher that goes by single words, so that a test knows what it will say."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from esckit.planning.role_matcher import Matched
from esckit.roles import EMOTIONS
from tests.roles.little import little_bank

SUITS: Final = {"job": "captain", "love": "gardener", "sleep": "miller"}


class StubMatcher:
    """The first of `SUITS` that is read; a person feels the emotions that are named, and nothing is alike."""

    identity = "stub"

    def __init__(self, counts: Mapping[str, int] | None = None) -> None:
        self.bank = little_bank()
        self.card = SimpleNamespace(facts={"roles": dict(counts or {"captain": 1, "gardener": 1, "miller": 2})})
        self.read: list[list[str]] = []

    def match(self, situation: str | None, said: Sequence[str], language: str, keywords: Sequence[str] = ()) -> Matched:
        self.bank.refuse_language(language)
        self.read.append([situation or "", *said])
        text = " ".join([situation or "", *said])
        role = next((role for word, role in SUITS.items() if word in text), None)
        names = sorted(self.bank.names, key=lambda name: name != role)
        return Matched(role, {name: 1 / len(names) for name in names})

    def feelings(self, texts: Sequence[str], language: str) -> NDArray[np.float64]:
        self.read.append(list(texts))
        return np.array([[9.0 if emotion in text else 2.0 for emotion in EMOTIONS] for text in texts])

    def likeness(self, text: str, others: Sequence[str], language: str) -> NDArray[np.float64]:
        return np.zeros(len(others))


def stub(counts: Mapping[str, int] | None = None) -> Any:
    """One that passes for a `RoleMatcher`."""
    return StubMatcher(counts)
