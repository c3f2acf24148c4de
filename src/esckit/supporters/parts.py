"""What a supporter is made of: a planner that scores strategies and a generator that words replies."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

from esckit.conversation import Conversation, Turn
from esckit.decoding import Decoding
from esckit.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from esckit.language_models.generation import Reply

__all__ = ["AskedReply", "Generator", "NoPlanner", "OnText", "Planner", "Wording"]

OnText = Callable[[str], None]
"""Is told a reply's text piece by piece."""


class Wording(NamedTuple):
    """A text that is wanted.

    Attributes:
        conversation: the tree.
        parent: id of the turn that is answered; None opens the dialogue.
        strategy: of the reply; empty where the model chooses it as it words the reply, or knows of none.
        shown: strategies that the history shows, by turn id (`rendering.past_strategies`).
        decoding: how the text is drawn.
        seed: of the draw; the reply depends on nothing that stands beside it.
        unlike: texts that it must not be, nor blank; None takes whatever comes.
        extra: what else of the turn is known: its role, and the experience that it may tell.
    """

    conversation: Conversation
    parent: str | None
    strategy: str
    shown: Mapping[str, str]
    decoding: Decoding
    seed: int
    unlike: frozenset[str] | None = None
    extra: Mapping[str, Any] = MappingProxyType({})


class AskedReply(NamedTuple):
    """What came of asking a chat model for a reply.

    Attributes:
        text: None where none came.
        finish: how it ended, as `generation.Reply` says; None without a text.
        strategy: the one that the answer names, if it names one.
        extra: what else is to be recorded with the turn.
    """

    text: str | None
    finish: str | None
    strategy: str | None = None
    extra: Mapping[str, Any] = MappingProxyType({})


class Planner(Protocol):
    """Chooses strategies."""

    @property
    def identity(self) -> str:
        """Changes with anything that the scores depend on."""

    def score(
        self, conversation: Conversation, turns: Sequence[Turn], shown: Mapping[str, str]
    ) -> "NDArray[np.float64]":
        """Log-probabilities (T, K) of the taxonomy's labels at each turn, of which only what stands before is read."""


class NoPlanner:
    """Stands where a model names its strategy only as it words the reply, or knows of none."""

    identity = "none"

    def refuse(self) -> NoReturn:
        """Raise the ModelError of whoever asks it for a strategy, or gives it one."""
        raise ModelError(
            "this model names no strategy before it words a reply, so none can be asked for, given or excluded: "
            "give it a planner."
        )

    def score(
        self, conversation: Conversation, turns: Sequence[Turn], shown: Mapping[str, str]
    ) -> "NDArray[np.float64]":
        """See `refuse`."""
        self.refuse()


class Generator(Protocol):
    """Words replies."""

    @property
    def identity(self) -> str:
        """Changes with anything that the replies depend on."""

    @property
    def strategies(self) -> frozenset[str] | None:
        """The strategies under which it has replies; None is all. An empty set: it takes none."""

    @property
    def about(self) -> str:
        """What a person who talks to it must know of its replies, in a sentence."""

    def write(self, wanted: Sequence[Wording], on_text: OnText | None = None) -> "Sequence[Reply | AskedReply | None]":
        """A reply for each; None where it has none that is unlike what must not be said again.

        ``on_text``, where one reply is wanted, is told its text as it is written; what has been told stands.
        """
