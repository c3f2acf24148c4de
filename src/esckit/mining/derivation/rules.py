"""The lists by which the rules of a derivation go (``rules.yaml``), by language."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from random import Random
from typing import Any, NamedTuple

import yaml

from esckit.errors import EsckitError
from esckit.roles.bank import Experience, Role

__all__ = ["Rules", "rules_in"]


class Rules(NamedTuple):
    """What the rules say and look for in a language; ``rules.yaml`` says what each list is."""

    story: str
    mark: str
    itself: re.Pattern[str]
    explore: tuple[str, ...]
    seeker: Mapping[str, tuple[str, ...]]
    cues: Mapping[str, re.Pattern[str]]
    otherwise: str
    blank: str  # between two sentences

    def tell(self, role: Role, experience: Experience, language: str) -> str:
        """An experience as a story of the role."""
        return self.story.format(name=role.titles[language], text=experience.text(language).strip())

    def is_story(self, text: str, role: Role, language: str) -> bool:
        """Whether a text says that it tells a story of the role."""
        return self.mark.format(name=role.titles[language].casefold()) in " ".join(text.casefold().split())

    def strategy_of(self, text: str) -> str:
        """The strategy that a reply's words point to."""
        return next((label for label, cue in self.cues.items() if cue.search(text)), self.otherwise)

    def seeker_turn(self, before: str, strategy: str, used: Sequence[str], random: Random) -> str:
        """A stock turn between a reply and the next one, which follows a strategy; none twice while others are left."""
        asked = before.rstrip().endswith(("?", "？"))
        for kind in (["question"] if asked else [strategy]) + ["any"]:
            left = [text for text in self.seeker.get(kind, ()) if text not in used]
            if left:
                return random.choice(left)
        return random.choice(self.seeker["any"])


@cache
def rules_in(language: str) -> Rules:
    """The rules of a language.

    Raises:
        EsckitError: there are none.
    """
    every = _read()
    if language not in every:
        raise EsckitError(
            f"there are no rules of derivation in {language!r}: take dialogues in {' or '.join(every)} (key language)."
        )
    own = every[language]
    cues = {label: _joined(patterns) for label, patterns in own["cues"].items() if label != "otherwise"}
    return Rules(
        own["story"],
        own["mark"],
        _joined(own["itself"]),
        tuple(own["explore"]),
        {kind: tuple(texts) for kind, texts in own["seeker"].items()},
        cues,
        own["cues"]["otherwise"],
        "" if language == "zh" else " ",
    )


def _joined(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


@cache
def _read() -> Any:
    return yaml.safe_load((resources.files(__package__) / "rules.yaml").read_text(encoding="utf-8"))
