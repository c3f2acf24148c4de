"""The reference of preference learning: the model after SFT, never the bare base.

A `Reference` is called with the policy and gives a context in which a frozen model answers: SFT merged into the base
under a fresh adapter (`adapter_off`), or the SFT adapter loaded a second time (`frozen_adapter`). Dropout is off.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch

from esckit.language_models.token_tree import collate, kept_logits
from esckit.training.batches import TrieDataset

Reference = Callable[[Any], AbstractContextManager[Any]]


@contextmanager
def in_evaluation(model: Any) -> Iterator[Any]:
    """The model without dropout."""
    training = model.training
    model.eval()
    try:
        yield model
    finally:
        model.train(training)


@contextmanager
def adapter_off(policy: Any) -> Iterator[Any]:
    """The policy without its adapter: right only where SFT is merged into the base."""
    with in_evaluation(policy), getattr(policy, "module", policy).disable_adapter():
        yield policy


def frozen_adapter(trained: str, name: str) -> Reference:
    """The policy's base under the adapter ``name``, a second copy of the SFT adapter, in place of ``trained``."""

    @contextmanager
    def reference(policy: Any) -> Iterator[Any]:
        plain = getattr(policy, "module", policy)
        with in_evaluation(policy):
            plain.set_adapter(name, inference_mode=True)
            try:
                yield policy
            finally:
                plain.set_adapter(trained)

    return reference


class Drift(NamedTuple):
    """How far a policy went from its reference, over a dataset's scored tokens, each position once.

    ``changed`` is the share of positions whose most likely token is another one, 0..1; ``divergence`` the mean
    KL(policy || reference) a position, in nats, at least 0.
    """

    positions: int
    changed: float
    divergence: float


@torch.no_grad()
def drift(policy: Any, reference: Reference, dataset: TrieDataset) -> Drift:
    """Compare the next-token distributions of policy and reference at a dataset's scored positions."""
    device = next(policy.parameters()).device
    positions, changed, divergence = 0, 0, 0.0
    for tries in dataset.items:
        batch = collate(tries).to(device)
        with in_evaluation(policy):
            now = kept_logits(policy, batch).double().log_softmax(-1)
        with reference(policy) as frozen:
            before = kept_logits(frozen, batch).double().log_softmax(-1)
        positions += len(now)
        changed += int((now.argmax(-1) != before.argmax(-1)).sum())
        divergence += float((now.exp() * (now - before)).sum())
    return Drift(positions, changed / positions, divergence / positions)
