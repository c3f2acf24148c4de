"""Who speaks: every spelling of the two speakers that the field's files use, in one table."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from esckit.conversation import Speaker

Role = Literal["seeker", "supporter", "system"]

_SPELLINGS: Final[Mapping[Role, str]] = {
    "seeker": "seeker, help seeker, user, usr, human, client, patient, visitor, speaker, esc role, "
    "来访者, 求助者, 倾诉者, 患者, 病人, 用户, 求助人, 来访人",
    "supporter": "supporter, assistant, sys, bot, chatbot, gpt, chatgpt, model, ai, ai assistant, counselor, "
    "counsellor, therapist, psychologist, listener, doctor, helper, "
    "咨询师, 心理咨询师, 支持者, 倾听者, 心理医生, 医生, 治疗师, 助手, ai助手",
    "system": "system, developer, 系统",
}
ROLES: Final[Mapping[str, Role]] = {
    name: role for role, names in _SPELLINGS.items() for name in names.replace("\n", " ").split(", ")
}
"""Role by spelling, in the form of `fold_name`."""

_JOINTS: Final = re.compile(r"[\s_\-]+")
_MARK: Final = re.compile(r"\s*([^：:\n]{1,30})[：:]\s*", re.DOTALL)


class Marked(NamedTuple):
    """A line that says who speaks: the mark as written, the role that it stands for, and the text behind it."""

    mark: str
    role: Role
    text: str


def fold_name(name: str) -> str:
    """The form in which two spellings of a speaker are one: case, width, ``_`` and ``-`` do not count."""
    return _JOINTS.sub(" ", unicodedata.normalize("NFKC", name)).strip().strip("[]【】()*").casefold()


def role_of(name: object) -> Role | None:
    """The role that a name stands for; None where it is none of the table."""
    return ROLES.get(fold_name(name)) if isinstance(name, str) else None


def speaker_of(name: object) -> Speaker | None:
    """Seeker or supporter; None where the name is neither's."""
    role = role_of(name)
    return None if role == "system" else role


def read_mark(line: str, other: Mapping[str, Role] | None = None) -> Marked | None:
    """Take the speaker's mark off a line, its colon half or full in width; None where it has none.

    Marks are the names of the table, and those of ``other``, in the form of `fold_name`.
    """
    match = _MARK.match(line)
    name = fold_name(match[1]) if match else ""
    role = ROLES.get(name) or (other or {}).get(name)
    return Marked(match[0], role, line[match.end() :]) if match and role else None


def other_name(lines: Sequence[object]) -> dict[str, Role]:
    """The role of a name that the table lacks (a model's), where all lines are marked by it and one that it has."""
    matches = [_MARK.match(line) if isinstance(line, str) else None for line in lines]
    names = {fold_name(match[1]) if match else "" for match in matches}
    known = {ROLES[name] for name in names & ROLES.keys()}
    unknown = names - ROLES.keys()
    if len(known) != 1 or len(unknown) != 1 or "" in unknown or "system" in known:
        return {}
    return {unknown.pop(): "supporter" if known == {"seeker"} else "seeker"}
