"""The strategy planner on a language model: scores every label of the taxonomy as branches of one context."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from esckit.conversation import Conversation, Turn
from esckit.language_models.backbone import device_of
from esckit.language_models.token_tree import build_tries, collate, target_log_probabilities
from esckit.rendering import Part, Renderer

__all__ = ["MAX_TOKENS_PER_ROW", "score_strategies"]

MAX_TOKENS_PER_ROW = 8192  # of planner rows at inference; longer dialogues are divided, which changes no figure


@torch.no_grad()
def score_strategies(
    model: Any,
    renderer: Renderer,
    conversation: Conversation,
    turns: Sequence[Turn],
    shown: Mapping[str, str],
    part: Part = "planner",
) -> NDArray[np.float64]:
    """Log-probability of each label at each turn, normalised over the taxonomy (natural log).

    All turns and labels of a conversation are one trie, hence one forward pass. Of a turn only what stands before it is
    read. The model's active adapter is the part's, planner or coupled; ``shown`` are strategies by turn id.

    Returns:
        Array (T, K): T turns in the order given, K labels in taxonomy order; each row's exponentials sum to 1.
    """
    examples = [example for turn in turns for example in renderer.choices(conversation, turn, part, shown)]
    tries = build_tries(examples, MAX_TOKENS_PER_ROW)
    device = device_of(model)
    scores = torch.cat([target_log_probabilities(model, collate([trie]).to(device)) for trie in tries])  # (T * K,)
    return scores.double().view(len(turns), len(renderer.taxonomy.labels)).log_softmax(-1).cpu().numpy()
