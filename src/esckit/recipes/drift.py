"""How far alignment moved a part, on dialogues that it was not trained on: so that "no effect" can be seen."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from esckit.conversation import Conversation
from esckit.language_models.label_scores import score_strategies
from esckit.language_models.token_tree import build_tries
from esckit.recipes.stages import SftStage
from esckit.rendering import Part, Renderer, past_strategies, supporter_turns
from esckit.training.adapters import Policy
from esckit.training.batches import TrieDataset
from esckit.training.references import drift, in_evaluation

__all__ = ["moved"]


def moved(policy: Policy, renderer: Renderer, sft: SftStage, conversations: Sequence[Conversation]) -> dict[str, Any]:
    """Compare a policy with the model that it started from, at the gold turns of these conversations.

    Returns:
        ``tokens_changed``, the share of gold tokens' positions whose most likely token is another one, and
        ``token_kl``, the mean KL(policy || reference) there in nats; for parts that choose strategies also
        ``choices_changed`` and ``choice_kl``, the same over turns and the closed list of strategies. Nothing where
        there are no such turns.
    """
    wanted = [conversation for conversation in conversations if supporter_turns(conversation)]
    if not wanted:
        return {}
    shown = [past_strategies(conversation, sft.past_strategies) for conversation in wanted]
    if sft.part == "planner":
        return _choices(policy, renderer, sft.part, wanted, shown)
    examples = (renderer.examples(c, sft.part, known) for c, known in zip(wanted, shown, strict=True))
    tokens = drift(policy.model, policy.reference, TrieDataset(map(build_tries, examples)))
    found = {"tokens_changed": round(tokens.changed, 4), "token_kl": round(tokens.divergence, 6)}
    return found if sft.part == "generator" else {**found, **_choices(policy, renderer, sft.part, wanted, shown)}


def _choices(
    policy: Policy,
    renderer: Renderer,
    part: Part,
    conversations: Sequence[Conversation],
    shown: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    def scores(model: Any) -> Any:
        rows = zip(conversations, shown, strict=True)
        each = [score_strategies(model, renderer, c, supporter_turns(c), known, part) for c, known in rows]
        return np.concatenate(each)

    with in_evaluation(policy.model):
        now = scores(policy.model)  # (T, K)
    with policy.reference(policy.model) as frozen:
        before = scores(frozen)
    divergence = (np.exp(now) * (now - before)).sum(1).mean()
    changed = (now.argmax(1) != before.argmax(1)).mean()
    return {"choices_changed": round(float(changed), 4), "choice_kl": round(float(divergence), 6)}
