"""What a derivation starts from: questions with an answer, and dialogues; and the roles that they are told to."""

from collections.abc import Iterator
from random import Random
from typing import Any, Final, NamedTuple

from esckit.conversation import Conversation
from esckit.decoding import seed_of
from esckit.errors import EsckitError
from esckit.mining.derivation.exchanges import Talk, exchanges_of
from esckit.mining.derivation.options import DerivationOptions
from esckit.mining.derivation.words import likenesses
from esckit.roles.bank import Role, RoleBank
from esckit.safety import stop_after

__all__ = ["Source", "read_source", "roles_for"]

_TOPICS: Final = ("topic", "problem_type", "keywords")
"""Where corpora say what a talk is about: in ``labels`` or ``extra``; several stand with commas."""

_BETWEEN: Final = str.maketrans("，、;；", ",,,,")


class Source(NamedTuple):
    """A question with its answer, or a dialogue.

    Attributes:
        tree: as it was read.
        talk: its exchanges: one where it is a question, else as many as a derived dialogue may have, from the first on.
        cut: so many exchanges stand behind these.
    """

    tree: Conversation
    talk: Talk
    cut: int = 0

    @property
    def is_question(self) -> bool:
        """A question with one answer."""
        return len(self.talk) == 1

    @property
    def language(self) -> str:
        """Of the dialogue."""
        return self.tree.language


def read_source(tree: Conversation, options: DerivationOptions) -> Source | str:
    """The source that a tree is, or why it is none (`filters.OF_SOURCES`)."""
    talk = exchanges_of(tree)
    if fault := _fault(tree, talk, options):
        return fault
    most = options.filters.most
    return Source(tree, talk[:most], max(len(talk) - most, 0))


def _fault(tree: Conversation, talk: Talk, options: DerivationOptions) -> str | None:
    """Why a tree is no source; None where it is one."""
    if options.language not in (None, tree.language):
        return "other language"
    if not any(turn.speaker == "seeker" and (turn.text or "").strip() for turn in tree.trunk):
        return "no question"
    if not talk:
        return "no answer"
    if stop_after([turn.text or "" for turn in tree.trunk if turn.speaker == "seeker"]):
        return "danger"  # a fixed text answers there, and nobody is to learn another way
    return None


def roles_for(source: Source, bank: RoleBank, options: DerivationOptions, seed: int) -> list[Role]:
    """The roles that a source is told to, in the bank's order.

    Raises:
        RoleError: the options name a role that is not there, or the bank has not the source's language.
        EsckitError: they ask for more roles than there are.
    """
    wanted = options.roles
    if wanted == "all":
        return list(bank.roles)
    if wanted == "matched":
        return [_matched(source, bank)]
    if isinstance(wanted, tuple):
        return [bank.role(name) for name in wanted]
    if wanted > len(bank.roles):
        raise EsckitError(f"{wanted} roles are asked for, and the bank has {len(bank.roles)}: set roles to fewer.")
    drawn = Random(seed_of(seed, source.tree.id, "roles")).sample(bank.names, wanted)
    return [role for role in bank.roles if role.name in drawn]


def _matched(source: Source, bank: RoleBank) -> Role:
    """The role of the first topic that has one, else the role with the experience that is most like the words said."""
    for topic in _topics(source.tree):
        if (role := bank.of_topic(topic)) is not None:
            return role
    every = [(role, each.text(source.language)) for role in bank.roles for each in role.experiences]
    said = "\n".join([source.tree.situation or "", *(each.seeker for each in source.talk)])
    alike = likenesses(said, [text for _, text in every])
    return every[max(range(len(every)), key=alike.__getitem__)][0]


def _topics(tree: Conversation) -> Iterator[str]:
    for name in _TOPICS:
        told: Any = tree.labels.get(name, tree.extra.get(name))
        if isinstance(told, str):
            yield from (each.strip() for each in (told, *told.translate(_BETWEEN).split(",")) if each.strip())
