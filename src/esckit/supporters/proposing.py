"""The one operation that answers a turn: what is asked of a supporter, and what it proposes.

Prediction, mining, chat and the view as a chat model all ask in this form; search and refinement will, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from esckit.conversation import Conversation, Turn
from esckit.decoding import Decoding
from esckit.errors import ModelError
from esckit.supporters.parts import AskedReply, OnText

if TYPE_CHECKING:
    from esckit.language_models.generation import Reply
    from esckit.rendering import PastStrategies
    from esckit.strategy import Taxonomy

__all__ = ["GREEDY", "Answers", "Candidate", "TurnRequest", "expect_one"]

GREEDY: Final = Decoding(greedy=True)


@dataclass(frozen=True)
class TurnRequest:
    """A position in a tree at which a supporter turn is wanted.

    Attributes:
        conversation: the tree; only the path to ``parent`` is read.
        parent: id of the turn that is answered; None opens the dialogue.
        seed: of every draw; the candidates depend on the request alone, not on what stands beside it.
        shown: strategies that the history shows, by turn id (`rendering.past_strategies`).
        n: how many candidates. Of free strategies, greedy planning takes the n most likely ones, each once, and any
            other draws n times; of a given one, n texts are drawn.
        strategy: given; None lets the planner choose.
        excluded: strategies that the planner must not choose.
        planning: how the strategy is chosen.
        wording: how the text is drawn; None wants no text.
        unlike: texts that no candidate may be, nor blank; None takes whatever comes.
        role: who is to speak, of a supporter with roles: empty for none, None lets it choose.
    """

    conversation: Conversation
    parent: str | None
    seed: int
    shown: Mapping[str, str] = field(default_factory=dict)
    n: int = 1
    strategy: str | None = None
    excluded: frozenset[str] = frozenset()
    planning: Decoding = GREEDY
    wording: Decoding | None = Decoding()  # noqa: RUF009 - it is frozen
    unlike: frozenset[str] | None = None
    role: str | None = None


@dataclass(frozen=True)
class Candidate:
    """A supporter turn that is proposed.

    Attributes:
        strategy: its label; None where a model named none.
        text: None where none was wanted, or none came.
        strategy_probabilities: the planner's, by label; they sum to 1. None where the strategy was given.
        finish: how the text ended: ``stop`` by itself, ``length`` at its limit; None without a text.
        extra: what else is to be recorded with the turn.
    """

    strategy: str | None
    text: str | None = None
    strategy_probabilities: Mapping[str, float] | None = None
    finish: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def worded(self, reply: "Reply | AskedReply") -> "Candidate":
        """A planned candidate with its text; a strategy that was planned stands, whatever the answer names."""
        known: dict[str, Any] = {"text": reply.text, "finish": reply.finish}
        if isinstance(reply, AskedReply):
            known |= {"strategy": self.strategy or reply.strategy, "extra": {**self.extra, **reply.extra}}
        return replace(self, **known)

    def turn(self, turn_id: str, parent: str | None, source: str) -> Turn:
        """The candidate as a turn of a tree, with what is known of how it came about."""
        known: dict[str, Any] = dict(self.extra)
        if self.strategy_probabilities is not None:
            known["strategy_probabilities"] = {k: round(p, 6) for k, p in self.strategy_probabilities.items()}
        if self.finish is not None:
            known["finish"] = self.finish
        return Turn(turn_id, parent, "supporter", self.text, self.strategy, source=source, extra=known)


class Answers(Protocol):
    """Whoever answers turns: a planner with a generator, stored replies, a prompted model. Threads may share it."""

    @property
    def taxonomy(self) -> "Taxonomy":
        """Its strategies."""

    @property
    def identity(self) -> Any:
        """JSON-ready; changes with anything that its candidates depend on."""

    @property
    def about(self) -> str | None:
        """What a person who talks to it must know of its replies; None where it only plans."""

    @property
    def past_strategies(self) -> "PastStrategies":
        """Which strategies the history shows it, unless told otherwise."""

    @property
    def past_in_chat(self) -> Literal["predicted", "hidden"]:
        """The same in a chat, which has no gold ones."""

    @property
    def strategies(self) -> frozenset[str] | None:
        """Those under which it has replies; None is all. An empty set: it chooses as it words, and takes none."""

    def propose(self, requests: Sequence[TurnRequest], on_text: OnText | None = None) -> list[list[Candidate]]:
        """Candidates for each request, at most ``n``: fewer where too few strategies or new texts are left.

        Args:
            requests: answered in one batch; requests of one conversation never get the same stored reply.
            on_text: where one text is wanted, is told it piece by piece while it is written.

        Raises:
            ModelError: a text is wanted of a supporter that only plans, or under a strategy without replies; or it
                cannot heed a part of the request.
            CorpusError: a path does not fit the model.
        """


def expect_one(candidates: Sequence[Candidate], request: TurnRequest) -> Candidate:
    """The first candidate.

    Raises:
        ModelError: there is none.
    """
    if not candidates:
        raise ModelError(
            f"the supporter has no reply left in conversation {request.conversation.id!r}: "
            "use a larger corpus for its reply store."
        )
    return candidates[0]
