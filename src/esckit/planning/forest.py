"""The encoder planner's trees: they read the explicit features, and are wrong in other places than the networks.

A forest here is arrays, so that it is saved beside the networks' weights and needs no library to score.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from esckit.planning.network import Logits, TurnBatch

__all__ = ["StrategyForest", "Trees"]

_FLOOR: Final = 0.02  # shared by the labels: a leaf that never saw a label does not rule it out


class Trees(nn.Module):
    """Classification trees, averaged; the nodes of all stand one after the other, each followed by its left child.

    Args:
        roots: (R,) int32, the place of each tree's root.
        column: (N,) int16, the feature that a node reads; -1 in a leaf.
        threshold: (N,) float32; a row goes left where its feature is not above.
        right: (N,) int32, the right child; in a leaf its row of ``leaves``.
        leaves: (L, K) float16, the labels' shares.
    """

    roots: Tensor
    column: Tensor
    threshold: Tensor
    right: Tensor
    leaves: Tensor

    def __init__(self, **arrays: Tensor) -> None:
        super().__init__()
        for name in ("roots", "column", "threshold", "right", "leaves"):
            self.register_buffer(name, arrays[name])

    def forward(self, rows: Tensor) -> Tensor:
        """Mean shares (T, K) of rows (T, F)."""
        node = self.roots.long().expand(len(rows), -1)  # (T, R)
        while True:
            column = self.column[node].long()
            inner = column >= 0
            if not inner.any():
                return self.leaves[self.right[node].long()].float().mean(1)
            left = rows.gather(1, column.clamp(min=0)) <= self.threshold[node]
            node = torch.where(inner, torch.where(left, node + 1, self.right[node].long()), node)


class StrategyForest(nn.Module):
    """Trees for turns whose history shows past strategies, and trees that never read these.

    Args:
        shown: trees over all explicit features.
        hidden: trees over those that do not depend on past strategies.
        history: how many of the features, the first ones, do.
    """

    def __init__(self, shown: Trees, hidden: Trees, history: int) -> None:
        super().__init__()
        self.shown = shown
        self.hidden = hidden
        self.history = history

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], history: int) -> "StrategyForest":
        """Build from what `state_dict` gave. Raises KeyError where it is something else's."""
        names = ("roots", "column", "threshold", "right", "leaves")
        shown, hidden = (Trees(**{name: state[f"{mode}.{name}"] for name in names}) for mode in ("shown", "hidden"))
        return cls(shown, hidden, history)

    def forward(self, batch: TurnBatch) -> Logits:
        """Log-probabilities of a batch (T, K)."""
        shares = torch.empty(len(batch.features), self.shown.leaves.shape[1])
        for hidden, trees in ((False, self.shown), (True, self.hidden)):
            here = batch.hidden == hidden
            if here.any():
                shares[here] = trees(batch.features[here][:, self.history if hidden else 0 :])
        k = shares.shape[1]
        return Logits(((1 - _FLOOR) * shares + _FLOOR / k).log(), None)
