"""Held-out pairs: what a person writes, and the experience of a role whose feelings are the nearest to it.

Retrieval within a role is measured with them (hit@1). They were written before anyone measured, and no method may be
tuned to them; docs/roles.md tells how they were made.
"""

import json
from importlib import resources
from typing import NamedTuple

__all__ = ["Pair", "read_pairs"]


class Pair(NamedTuple):
    """``said`` is the person's text by language; ``experience`` is an id within ``role`` of the shipped bank."""

    role: str
    experience: str
    said: dict[str, str]


def read_pairs() -> tuple[Pair, ...]:
    """The shipped pairs, ten a role, each in English and Chinese."""
    lines = (resources.files("esckit.roles") / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return tuple(Pair(row.pop("role"), row.pop("experience"), row) for row in rows)
