"""A bank of roles, in memory: what a role is made of, and how one is found."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from esckit.errors import RoleError

__all__ = ["SHIPPED", "Experience", "Role", "RoleBank", "read_bank", "save_bank"]

SHIPPED: Final = "shipped"
"""Stands for the bank that comes with esckit; a user's folder of this name is ``./shipped``."""


@dataclass(frozen=True)
class Experience:
    """Something that happened in a role's story.

    Attributes:
        id: short, once in its role.
        texts: by language, told in the first person by the character.
        scores: integers 1 to 10, in the order of `EMOTIONS`: what the character feels in it.
    """

    id: str
    texts: Mapping[str, str]
    scores: tuple[int, ...]

    def text(self, language: str) -> str:
        """What happened, in a language that the role has."""
        return self.texts[language]


@dataclass(frozen=True)
class Role:
    """A character to speak as. Texts are mappings from a language ("en", "zh"); all have the same languages.

    Attributes:
        name: a short ASCII id.
        titles: what a person is shown.
        profile: who this is, in a sentence or two.
        background: the story that the experiences come from.
        style: how the role talks.
        guide: how a reply is rewritten in this voice, and what has to stay.
        topics: whatever a corpus may call the problems that suit this role, in any language.
        phrases: language, then strategy label, to short openers in the role's voice, usable before any reply.
        experiences: at least one.
    """

    name: str
    titles: Mapping[str, str]
    profile: Mapping[str, str]
    background: Mapping[str, str]
    style: Mapping[str, str]
    guide: Mapping[str, str]
    topics: tuple[str, ...]
    phrases: Mapping[str, Mapping[str, tuple[str, ...]]]
    experiences: tuple[Experience, ...]

    @property
    def languages(self) -> tuple[str, ...]:
        """In alphabetical order."""
        return tuple(sorted(self.titles))

    def experience(self, id: str) -> Experience:
        """The experience of an id.

        Raises:
            RoleError: there is none.
        """
        for each in self.experiences:
            if each.id == id:
                return each
        raise RoleError(f"role {self.name} has no experience {id!r}: take one of {_listed(self._ids)}.")

    @property
    def _ids(self) -> tuple[str, ...]:
        return tuple(each.id for each in self.experiences)


@dataclass(frozen=True)
class RoleBank:
    """Roles in alphabetical order of their names. ``source`` is where they were read, and no part of what they are."""

    roles: tuple[Role, ...]
    source: str = field(default=SHIPPED, compare=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that the roles say, in hex; the same wherever and however the files lie."""
        told = [asdict(role) for role in sorted(self.roles, key=lambda role: role.name)]
        return hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of ``roles``."""
        return tuple(role.name for role in self.roles)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that every role has."""
        return tuple(sorted(set.intersection(*({*role.languages} for role in self.roles))))

    def role(self, name: str) -> Role:
        """The role of a name.

        Raises:
            RoleError: there is none.
        """
        for role in self.roles:
            if role.name == name:
                return role
        raise RoleError(f"the role bank {self.source} has no role {name!r}: take one of {_listed(self.names)}.")

    def of_topic(self, topic: str) -> Role | None:
        """The role that suits a topic or a corpus's problem type, in any case of letters; None where none does."""
        wanted = topic.strip().casefold()
        return next((role for role in self.roles if wanted in {each.casefold() for each in role.topics}), None)

    def refuse_language(self, language: str) -> None:
        """Do nothing where every role can speak a dialogue's language.

        Raises:
            RoleError: a role cannot.
        """
        without = [role.name for role in self.roles if language not in role.languages]
        if without:
            have = _listed(self.languages) or "none in common"
            raise RoleError(
                f"the role bank {self.source} has no texts in {language!r} for {_listed(without)}: write them, or take "
                f"dialogues in a language that all its roles have ({have})."
            )


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names)


def read_bank(source: str | Path = SHIPPED) -> RoleBank:
    """Read a folder of roles, or the nine that come with esckit for ``shipped``.

    Raises:
        RoleError: something in it cannot be used; one sentence names the file and the field.
    """
    from esckit.roles.bank_files import read_folder, read_shipped

    return read_shipped() if source == SHIPPED else read_folder(Path(source))


def save_bank(bank: RoleBank, folder: Path) -> None:
    """Write a bank as `read_bank` reads it, a file a role; a folder that stands there is replaced.

    Raises:
        EsckitError: it cannot be written.
    """
    from esckit.roles.bank_files import write_folder

    write_folder(bank, folder)
