"""Where words of danger stop a talk: the fixed text that answers them, and what lets the talk go on."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple

import yaml

from esckit.safety.risk import Danger, Language, languages_of_risk, normal_forms, risk_of

SOURCE: Final = "safety"
"""The source of a turn that holds the fixed text."""

_HAN: Final = re.compile("[\u4e00-\u9fff]")
_ONLY_SPANISH: Final = re.compile("[ñ¿¡]")


class Stop(NamedTuple):
    """A talk that has stopped: the last message with a danger, its kind, and the latest one where another has come."""

    danger: Danger
    message: str
    latest: str | None = None

    @property
    def language(self) -> Language:
        """What to answer in: the last message's, or where that looks English, that of the one with the danger."""
        latest = language_of(self.latest or "")
        return language_of(self.message) if latest == "en" else latest

    @property
    def text(self) -> str:
        """What to answer: all of it to the message with the danger, in short to those that come after it."""
        texts = _texts()[self.language]
        if self.latest is not None:
            return str(texts["short"]).strip()
        return str(texts["full"]).replace("{kind}", texts["kinds"][self.danger]).strip()

    @property
    def seen(self) -> str:
        """What a model is shown in place of the fixed text, which is long and not its own."""
        return str(_texts()[self.language]["seen"])

    @property
    def words_to_go_on(self) -> str:
        """A phrase that says to go on, in this language."""
        return str(_texts()[self.language]["go_on"])


def stop_after(messages: Sequence[str], recorded: Mapping[int, Danger] | None = None) -> Stop | None:
    """What has stopped a talk: the last danger in the person's messages after which they have not said to go on.

    The messages are the person's alone, oldest first. ``recorded`` are places of messages that the fixed text has
    answered, and the danger: these stop whatever they say, so that a saved talk stays as it was where the words have
    changed since.
    """
    stop: Stop | None = None
    for place, message in enumerate(messages):
        danger = risk_of(message)
        if danger is None and stop is not None:
            stop = None if wants_to_go_on(message) else stop._replace(latest=message)
        elif danger := danger or (recorded or {}).get(place):
            stop = Stop(danger, message)
    return stop


def wants_to_go_on(text: str) -> bool:
    """True where a message says in so many words that the talk shall go on; never where it speaks of danger."""
    if risk_of(text) is not None:
        return False
    said = " ".join(normal_forms(text)[0].replace(".", " ").split())
    return any(re.fullmatch(phrase, form) for phrase in _phrases() for form in (said, said.replace(" ", "")))


def language_of(text: str) -> Language:
    """English, Chinese or Spanish, by script and common words; what is none of them is taken for English."""
    if _HAN.search(text):
        return "zh"
    small = unicodedata.normalize("NFKC", text).casefold()
    words = normal_forms(text)[0].split()
    counts = {language: sum(word in known for word in words) for language, known in _common().items()}
    spanish = counts["es"] > counts["en"] or languages_of_risk(text) == {"es"}
    return "es" if spanish or _ONLY_SPANISH.search(small) else "en"


@cache
def _texts() -> Any:
    return yaml.safe_load((resources.files("esckit.safety") / "texts.yaml").read_text(encoding="utf-8"))


@cache
def _phrases() -> tuple[str, ...]:
    return tuple(_texts()["go_on"].splitlines())


@cache
def _common() -> dict[str, frozenset[str]]:
    return {language: frozenset(words.split()) for language, words in _texts()["words"].items()}
