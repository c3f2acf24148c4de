"""What is trained on: conversations as datasets, and the batches of all epochs, planned before the first step."""

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.utils.data import Dataset

from esckit.language_models.token_tree import TokenTrie, collate, in_forwards

__all__ = ["ConversationDataset", "TrieDataset", "divide", "in_passes", "plan_batches"]


class ConversationDataset(Protocol):
    """What can be trained on: an item is a conversation."""

    def __len__(self) -> int: ...

    def counts(self) -> list[int]:
        """What fills a batch, a conversation each."""

    def tries(self) -> Iterator[TokenTrie]:
        """Every trie."""

    def size(self, item: Any) -> int:
        """How many tokens the model reads for an item."""

    def forwards(self, items: Sequence[Any], max_tokens: int | None) -> list[dict[str, Any]]:
        """The tensors of a batch, a dict a forward pass."""

    def idle(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The same forward pass, counting for nothing."""


class TrieDataset(Dataset[list[TokenTrie]]):
    """An item is a conversation: its tries."""

    def __init__(self, conversations: Iterable[list[TokenTrie]]) -> None:
        self.items = [tries for tries in conversations if tries]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> list[TokenTrie]:
        return self.items[index]

    def counts(self) -> list[int]:
        """What fills a batch, a conversation each: its targets."""
        return [sum(len(trie.targets) for trie in tries) for tries in self.items]

    def tries(self) -> Iterator[TokenTrie]:
        """Every trie."""
        return (trie for tries in self.items for trie in tries)

    @staticmethod
    def size(item: list[TokenTrie]) -> int:
        """How many tokens the model reads for a conversation."""
        return sum(map(len, item))

    @staticmethod
    def idle(inputs: dict[str, Any]) -> dict[str, Any]:
        """The same forward pass with weights of 0."""
        return {**inputs, "weight": torch.zeros_like(inputs["weight"])}

    @staticmethod
    def forwards(items: Sequence[list[TokenTrie]], max_tokens: int | None) -> list[dict[str, Any]]:
        """The tensors of a batch, divided into forward passes of at most ``max_tokens`` tokens where it is given."""
        tries = [trie for own in items for trie in own]
        return [collate(tries[part])._asdict() for part in in_forwards(list(map(len, tries)), max_tokens)]


def plan_batches(counts: Sequence[int], batch_size: int, epochs: int, seed: int) -> list[list[list[int]]]:
    """Plan every epoch's batches: shuffle, then add whole conversations until their targets reach ``batch_size``.

    Args:
        counts: targets of each conversation; one of 0 never opens a batch, so that none holds nothing else.
        batch_size: targets a batch; a batch overshoots by at most one conversation, an epoch's last may fall short.
        epochs: how many passes.
        seed: of the shuffles.

    Returns:
        Epochs of batches of conversation indices.
    """
    plan = []
    for epoch in range(epochs):
        order = list(range(len(counts)))
        random.Random(f"{seed}:{epoch}").shuffle(order)
        batches: list[list[int]] = [[]]
        for index in order:
            if counts[index] and sum(counts[i] for i in batches[-1]) >= batch_size:
                batches.append([])
            batches[-1].append(index)
        plan.append(batches)
    return plan


def divide(sizes: Sequence[int], parts: int) -> list[list[int]]:
    """Divide a batch over processes or passes, the largest item first, each to where there is least.

    Returns:
        Indices of each part's items, ascending; a part may be empty. One part has all in their order.
    """
    shares: list[list[int]] = [[] for _ in range(parts)]
    loads = [0] * parts
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        least = loads.index(min(loads))
        shares[least].append(index)
        loads[least] += sizes[index]
    return [sorted(share) for share in shares]


def in_passes(
    dataset: ConversationDataset, items: Sequence[Any], passes: int, max_tokens: int | None
) -> list[dict[str, Any]]:
    """The forward passes of a batch, which is divided over ``passes``; as few as it has conversations, or as many more
    as ``max_tokens`` makes of them."""
    shares = divide([dataset.size(item) for item in items], passes)
    return [one for own in shares if own for one in dataset.forwards([items[i] for i in own], max_tokens)]
