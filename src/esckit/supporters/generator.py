"""The response generator on a language model: words a reply under a given strategy."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from esckit.conversation import Conversation, Turn
from esckit.decoding import Decoding
from esckit.language_models.backbone import Reply, generate
from esckit.rendering import Part, Renderer

__all__ = ["stream_reply", "write_replies"]

_TRIES: Final = 4  # samples drawn for a text that was not there before


def write_replies(
    model: Any,
    renderer: Renderer,
    conversation: Conversation,
    turns: Sequence[Turn],
    strategies: Sequence[str],
    shown: Mapping[str, str],
    decoding: Decoding,
    part: Part = "generator",
) -> list[Reply]:
    """Write a reply for each turn, in one batch.

    Args:
        model: a causal language model with the generator's (or the coupled) adapter active.
        renderer: of the model's tokenizer.
        conversation: the tree.
        turns: supporter turns to answer; only what stands before each is read.
        strategies: the strategy of each reply.
        shown: strategies to show in the history, by turn id.
        decoding: how tokens are chosen; seed torch before sampling.
        part: generator or coupled: whose adapter is active.
    """
    prompts = [
        renderer.prompt(conversation, replace(turn, strategy=strategy), part, shown, decoding.max_new_tokens)
        for turn, strategy in zip(turns, strategies, strict=True)
    ]
    return generate(model, renderer.tokenizer, prompts, renderer.end_of_turn, decoding)


def stream_reply(
    model: Any,
    renderer: Renderer,
    conversation: Conversation,
    turn: Turn,
    strategy: str,
    shown: Mapping[str, str],
    decoding: Decoding,
    part: Part,
    other_than: Collection[str],
    on_text: Callable[[str], None],
) -> Reply | None:
    """Write one reply and tell its text piece by piece; as `write_replies` else.

    Text is told from where it leaves every text of ``other_than``, so what has been told always stands.

    Returns:
        The reply; None where every sample is empty or one of ``other_than``.
    """
    prompt = renderer.prompt(conversation, replace(turn, strategy=strategy), part, shown, decoding.max_new_tokens)
    for _ in range(_TRIES):
        held = _HeldBack(other_than, on_text)
        (reply,) = generate(model, renderer.tokenizer, [prompt], renderer.end_of_turn, decoding, held.take)
        if reply.text and reply.text not in other_than:
            held.let_go()
            return reply
    return None


class _HeldBack:
    """Keeps text back while it may still become one of the texts that are not wanted."""

    def __init__(self, unwanted: Collection[str], on_text: Callable[[str], None]) -> None:
        self._unwanted = unwanted
        self._on_text = on_text
        self._kept = ""
        self._open = True

    def take(self, piece: str) -> None:
        self._kept += piece
        if self._open and any(text.startswith(self._kept) for text in self._unwanted):
            return
        self._open = False
        self.let_go()

    def let_go(self) -> None:
        if self._kept:
            self._on_text(self._kept)
        self._kept = ""
