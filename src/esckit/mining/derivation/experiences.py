"""The second step: the role tells experiences of its story, where a strategy allows it."""

from typing import Final

from esckit.mining.derivation.exchanges import Exchange, Talk
from esckit.mining.derivation.rules import rules_in
from esckit.mining.derivation.words import likenesses
from esckit.roles.bank import Experience, Role
from esckit.roles.telling import TellingOptions, may_tell

__all__ = ["experiences_by_rules", "is_own", "likest", "may_tell_in", "places_to_tell"]

_OWN: Final = "Self-disclosure"
"""Of ESConv's labels, the one under which a supporter tells of themselves."""


def experiences_by_rules(talk: Talk, role: Role, language: str, telling: TellingOptions) -> Talk:
    """Tell the experiences that are most like what the seeker has said, as stories.

    The supporter's words stay, and a story follows them. Where the supporter tells of their own life, which a role has
    not, the story takes the place of the words; such places come first.
    """
    rules = rules_in(language)
    for place in sorted(places_to_tell(talk, telling), key=lambda place: (not is_own(talk[place]), place)):
        used = {each.experience for each in talk}
        if may_tell_in(talk, place, telling) and (left := likest(talk[: place + 1], role, language, used)):
            each, story = talk[place], rules.tell(role, left[0], language)
            words = story if is_own(each) else f"{each.supporter}{rules.blank}{story}"
            talk = (*talk[:place], each._replace(supporter=words, experience=left[0].id), *talk[place + 1 :])
    return talk


def is_own(each: Exchange) -> bool:
    """Whether the supporter tells of a life of their own, and of no role's story."""
    return each.strategy == _OWN and each.experience is None


def places_to_tell(talk: Talk, telling: TellingOptions) -> list[int]:
    """Exchanges in which an experience may be told: not in the first third, in which the seeker tells."""
    third = len(talk) // 3
    return [place for place in range(third, len(talk)) if may_tell([], talk[place].strategy, telling)]


def may_tell_in(talk: Talk, place: int, telling: TellingOptions) -> bool:
    """Whether an experience may be told in an exchange beside those that are told in the others."""
    told = sum(each.experience is not None for each in talk)
    near = talk[max(place - telling.every + 1, 0) : place + telling.every]
    return told < telling.most and all(each.experience is None for each in near)


def likest(talk: Talk, role: Role, language: str, used: "set[str | None]") -> list[Experience]:
    """The role's experiences that are not told yet, those most like the seeker's words first."""
    said = "\n".join(each.seeker for each in talk if not each.stock)
    alike = likenesses(said, [each.text(language) for each in role.experiences])
    order = sorted(range(len(alike)), key=lambda place: -alike[place])
    return [each for place in order if (each := role.experiences[place]).id not in used]
