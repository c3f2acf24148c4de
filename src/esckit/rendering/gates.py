"""Which experts a token is read under: a member of each group (a role, a strategy), or of none, as one number.

A mixture of LoRA experts (`language_models.experts`) has gates that depend on these members and on nothing else
(Empath, equations 4 to 6). Here stands which members a dialogue's tokens have; no tensor is in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Final, Literal

from esckit.conversation import Conversation, Turn
from esckit.errors import CorpusError

GateScope = Literal["token", "sequence"]

STRATEGY: Final = "strategy"
"""The group whose members are strategies; another's are values of a dialogue's label of its name, such as role."""

AND: Final = "+"
"""Between the names of a group whose members are pairs of others' (``role+strategy``): a mixture without groups."""


def member_of(conversation: Conversation, turn: Turn, group: str) -> str | None:
    """The member of a group that a supporter turn is said under: its strategy, or its own or its dialogue's label."""
    if group == STRATEGY:
        return turn.strategy
    own: str | None = turn.extra.get(group, conversation.labels.get(group))
    return own or None


@dataclass(frozen=True)
class Gates:
    """Groups of experts, in the order of the alphabet, and their members.

    A pair is a member, or none, of each group: 0 stands for none of any. Under none of a group its experts add nothing.

    Attributes:
        groups: members by group.
        scope: ``token``: each supporter turn's tokens stand under its own pair, all others under the reply's without a
            strategy, so that the replies of a dialogue share their prefixes. ``sequence``: the whole path stands under
            the pair of its reply, as where an exported adapter reads it.
    """

    groups: Mapping[str, tuple[str, ...]]
    scope: GateScope = "token"

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", dict(sorted(self.groups.items())))  # pairs are numbered in this order

    @property
    def count(self) -> int:
        """How many pairs there are, those with none of a group included."""
        return prod(len(members) + 1 for members in self.groups.values())

    def pair(self, members: Mapping[str, str | None]) -> int:
        """The number of a pair, 0..count-1; a group that is not named is none.

        Raises:
            CorpusError: a group has no such member.
        """
        number = 0
        for group, known in self.groups.items():
            names = [members.get(each) for each in group.split(AND)]
            name = AND.join(map(str, names)) if all(names) else None
            if name and name not in known:
                raise CorpusError(
                    f"there are no experts for the {group} {name!r}: choose one of {', '.join(known)}, or train "
                    "experts for it."
                )
            number = number * (len(known) + 1) + (known.index(name) + 1 if name else 0)
        return number

    def members(self, pair: int) -> dict[str, str | None]:
        """The members that a pair's number stands for, by what they are members of."""
        found: dict[str, str | None] = {}
        for group, known in reversed([*self.groups.items()]):
            pair, place = divmod(pair, len(known) + 1)
            names = group.split(AND)
            found |= dict(zip(names, known[place - 1].split(AND) if place else [None] * len(names), strict=True))
        return found

    def of_turn(self, conversation: Conversation, turn: Turn, **given: str | None) -> int:
        """The pair that a supporter turn is said under; what is given counts in place of what the turn says."""
        names = {name for group in self.groups for name in group.split(AND)}
        return self.pair({name: member_of(conversation, turn, name) for name in names} | given)
