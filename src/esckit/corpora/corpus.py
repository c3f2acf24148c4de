"""A corpus: conversations in three parts that share no dialogue."""

from dataclasses import dataclass
from itertools import combinations

from esckit.conversation import Conversation
from esckit.errors import CorpusError

__all__ = ["Corpus", "make_corpus"]


@dataclass(frozen=True)
class Corpus:
    """Conversations to train on, to choose by, and to measure with; ``valid`` and ``test`` may be empty."""

    name: str
    train: list[Conversation]
    valid: list[Conversation]
    test: list[Conversation]
    licence: str
    source: str


def make_corpus(
    name: str,
    *,
    train: list[Conversation],
    valid: list[Conversation],
    test: list[Conversation],
    licence: str,
    source: str,
) -> Corpus:
    """Build a corpus after checking its parts against each other.

    Raises:
        CorpusError: the training part is empty, or a conversation stands in two parts.
    """
    if not train:
        raise CorpusError(f"the training part of {source} is empty: give it dialogues, or another split.")
    ids = {
        part: {conversation.id for conversation in conversations}
        for part, conversations in (("train", train), ("valid", valid), ("test", test))
    }
    for one, other in combinations(ids, 2):
        shared = sorted(ids[one] & ids[other])
        if shared:
            raise CorpusError(
                f"{len(shared)} conversations of {source} stand in both {one} and {other} (such as {shared[0]!r}): "
                "take them out of one part, or nothing measured there means anything."
            )
    return Corpus(name, train, valid, test, licence, source)
