"""What a supporter is made of: a planner that scores strategies and a generator that words replies."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from esckit.conversation import Conversation, Turn
from esckit.decoding import Decoding
from esckit.language_models.backbone import Backbone, Reply, hash_weights
from esckit.rendering import Part, Renderer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Generator", "LanguageParts", "Planner", "Shown"]

Shown = Mapping[str, str]
"""Strategies that the history shows, by turn id (`rendering.past_strategies`)."""


class Planner(Protocol):
    """Chooses strategies."""

    @property
    def identity(self) -> str:
        """Changes with anything that the scores depend on."""

    def score(self, conversation: Conversation, turns: Sequence[Turn], shown: Shown) -> "NDArray[np.float64]":
        """Log-probabilities (T, K) of the taxonomy's labels at each turn, of which only what stands before is read."""


class Generator(Protocol):
    """Words replies."""

    @property
    def identity(self) -> str:
        """Changes with anything that the replies depend on."""

    @property
    def strategies(self) -> frozenset[str] | None:
        """The strategies under which it has replies; None is all."""

    def reply(
        self, conversation: Conversation, turns: Sequence[Turn], strategies: Sequence[str], shown: Shown, how: Decoding
    ) -> list[Reply]:
        """A reply for each turn under its strategy."""

    @property
    def about(self) -> str:
        """What a person who talks to it must know of its replies, in a sentence."""

    def stream(
        self,
        conversation: Conversation,
        turn: Turn,
        strategy: str,
        shown: Shown,
        how: Decoding,
        other_than: Collection[str],
        on_text: Callable[[str], None],
    ) -> Reply | None:
        """A reply with a text other than these, told piece by piece as it comes; None where it has no other."""


class LanguageParts:
    """Planner and generator on one backbone.

    Args:
        backbone: its ``model`` is a PEFT model with the adapters of the parts.
        renderer: of its tokenizer.
        coupled: one adapter, named ``coupled``, plays both.
    """

    strategies = None
    about = "A language model writes each reply; it does not know what is true, and may repeat what it was trained on."

    def __init__(self, backbone: Backbone, renderer: Renderer, *, coupled: bool) -> None:
        self.backbone = backbone
        self.renderer = renderer
        self.coupled = coupled

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the adapters' weights; a supporter's card has the base's."""
        return hash_weights(self.backbone.model, "lora_")

    def _as(self, part: Part) -> tuple[Any, Part]:
        """The model with the adapter that plays this part, and that adapter's own part."""
        played: Part = "coupled" if self.coupled else part
        self.backbone.model.set_adapter(played)
        return self.backbone.model, played

    def score(self, conversation: Conversation, turns: Sequence[Turn], shown: Shown) -> "NDArray[np.float64]":
        """Log-probabilities (T, K) of the labels at each turn (`planner.score_strategies`)."""
        from esckit.language_models.label_scores import score_strategies

        model, part = self._as("planner")
        return score_strategies(model, self.renderer, conversation, turns, shown, part)

    def reply(
        self, conversation: Conversation, turns: Sequence[Turn], strategies: Sequence[str], shown: Shown, how: Decoding
    ) -> list[Reply]:
        """A reply for each turn under its strategy (`generator.write_replies`)."""
        from esckit.supporters.generator import write_replies

        model, part = self._as("generator")
        return write_replies(model, self.renderer, conversation, turns, strategies, shown, how, part)

    def stream(
        self,
        conversation: Conversation,
        turn: Turn,
        strategy: str,
        shown: Shown,
        how: Decoding,
        other_than: Collection[str],
        on_text: Callable[[str], None],
    ) -> Reply | None:
        """A reply with a text other than these, told as it is written (`generator.stream_reply`)."""
        from esckit.supporters.generator import stream_reply

        model, part = self._as("generator")
        return stream_reply(model, self.renderer, conversation, turn, strategy, shown, how, part, other_than, on_text)
