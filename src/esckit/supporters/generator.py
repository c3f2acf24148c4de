"""The response generator on a language model: words a reply under a given strategy."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from esckit.conversation import Conversation, Turn
from esckit.models.backbone import Decoding, Reply, generate
from esckit.rendering import Part, Renderer

__all__ = ["write_replies"]


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
    prompts = []
    for turn, strategy in zip(turns, strategies, strict=True):
        planned = replace(turn, strategy=strategy)
        prompts.append(renderer.prompt(conversation, planned, part, shown, decoding.max_new_tokens))
    return generate(model, renderer.tokenizer, prompts, renderer.end_of_turn, decoding)
