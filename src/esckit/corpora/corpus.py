"""A corpus: conversations in three parts that share no dialogue."""

from dataclasses import dataclass
from itertools import combinations

from esckit.conversation import Conversation
from esckit.errors import CorpusError

__all__ = ["Corpus"]


@dataclass(frozen=True)
class Corpus:
    """Conversations to train on, to choose by, and to measure with; ``valid`` and ``test`` may be empty.

    Raises:
        CorpusError: the training part is empty, or a conversation stands in two parts.
    """

    name: str
    train: list[Conversation]
    valid: list[Conversation]
    test: list[Conversation]
    licence: str
    source: str

    def __post_init__(self) -> None:
        if not self.train:
            raise CorpusError(f"the training part of {self.source} is empty: give it dialogues, or another split.")
        parts = (("train", self.train), ("valid", self.valid), ("test", self.test))
        for (one, here), (other, there) in combinations(parts, 2):
            shared = sorted({tree.id for tree in here} & {tree.id for tree in there})
            if shared:
                raise CorpusError(
                    f"{len(shared)} conversations of {self.source} stand in both {one} and {other} (such as "
                    f"{shared[0]!r}): take them out of one part, or nothing measured there means anything."
                )
