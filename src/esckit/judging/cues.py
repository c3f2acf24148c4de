"""The words that the embedded annotator looks for (``cues.yaml``), compiled once."""

import re
from functools import cache
from importlib.resources import files
from typing import Any, Final

__all__ = ["content_words", "families", "find", "lists_text", "normal", "stock_sentences"]

_WORD: Final = re.compile(r"[a-z']+")
_WILDCARD: Final = re.compile(r"(?<=\w)\*")
_STEM: Final = 5  # letters by which two content words are taken for the same


def normal(text: str) -> str:
    """Lower case, straight apostrophes, single spaces."""
    return " ".join(text.lower().replace("’", "'").replace("`", "'").split())


def find(kind: str, text: str) -> list[tuple[int, str]]:
    """Where the phrases of one kind stand in a normal text, longest first at each place, and their words."""
    return [(match.start(), match[0].strip()) for match in _pattern(kind).finditer(text)]


@cache
def families() -> tuple[str, ...]:
    """Names of the families of feelings."""
    return tuple(_lists()["families"])


def content_words(text: str) -> dict[str, str]:
    """The words of a normal text that carry its matter: beginnings, by which words are compared, to the words."""
    words = (word.strip("'") for word in _WORD.findall(text))
    return {word[:_STEM]: word for word in words if len(word) > 2 and word not in _stopwords()}


@cache
def stock_sentences() -> list[str]:
    """Sentences that could be said to anyone."""
    return list(_lists()["stock_sentences"])


@cache
def lists_text() -> str:
    """The lists as they are written: what is found depends on them."""
    return (files("esckit.judging") / "cues.yaml").read_text(encoding="utf-8")


@cache
def _lists() -> Any:
    import yaml

    return yaml.safe_load(lists_text())


@cache
def _stopwords() -> frozenset[str]:
    return frozenset(_lists()["stopwords"].split())


@cache
def _pattern(kind: str) -> re.Pattern[str]:
    phrases = _lists()["families"][kind] if kind in families() else _lists()[kind]
    whole = "|".join(_WILDCARD.sub(r"\\w*", phrase) for phrase in phrases)
    return re.compile(rf"(?<![\w'])(?:{whole})(?!\w)")
