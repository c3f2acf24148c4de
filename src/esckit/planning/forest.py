"""The encoder planner's trees: they read the explicit features, and are wrong in other places than the networks.

They are extremely randomised trees (Geurts et al. 2006), kept as arrays: saved beside the networks' weights, and
scored without a library.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from esckit.planning.network import Logits
from esckit.planning.turn_batches import ReadTurns, TurnBatch
from esckit.planning.turn_features import history_width
from esckit.strategy import Taxonomy

_LEAF: Final = 8  # fewest training turns in a leaf
_SPLIT_FEATURES: Final = 0.4  # share of the features among which a split is chosen
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
    """Trees over all explicit features, for turns whose history shows past strategies, and trees that never read these.

    The first ``history`` features depend on past strategies.
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


def grow_forest(dialogues: Sequence[ReadTurns], taxonomy: Taxonomy, trees: int, seed: int) -> StrategyForest:
    """Grow so many trees for each mode on dialogues, at least one, that were read with their gold strategies shown."""
    rows = np.concatenate([each.features for each in dialogues])
    gold = np.concatenate([each.gold for each in dialogues])
    k, history = len(taxonomy.labels), history_width(taxonomy)
    shown, hidden = (_grow(rows[:, first:], gold, k, trees, seed) for first in (0, history))
    return StrategyForest(shown, hidden, history)


def _grow(rows: NDArray[np.float32], gold: NDArray[np.int64], labels: int, number: int, seed: int) -> Trees:
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(number, min_samples_leaf=_LEAF, max_features=_SPLIT_FEATURES, random_state=seed)
    model.fit(rows, gold)
    trees = [_arrays(each.tree_, model.classes_, labels) for each in model.estimators_]
    nodes = np.cumsum([0, *(len(tree["column"]) for tree in trees)])[:-1]
    leaves = np.cumsum([0, *(len(tree["leaves"]) for tree in trees)])[:-1]
    for tree, first, leaf in zip(trees, nodes, leaves, strict=True):
        tree["right"] += np.where(tree["column"] < 0, leaf, first)
    whole = {name: np.concatenate([tree[name] for tree in trees]) for name in trees[0]}
    return Trees(
        roots=torch.from_numpy(nodes.astype(np.int32)),
        column=torch.from_numpy(whole["column"].astype(np.int16)),
        threshold=torch.from_numpy(whole["threshold"].astype(np.float32)),
        right=torch.from_numpy(whole["right"].astype(np.int32)),
        leaves=torch.from_numpy(whole["leaves"].astype(np.float16)),
    )


def _arrays(tree: Any, classes: NDArray[np.int64], labels: int) -> dict[str, NDArray[Any]]:
    """A tree of scikit-learn as the arrays of `Trees`, its own node 0 and leaf 0 first."""
    leaf = tree.children_left < 0
    inner = np.flatnonzero(~leaf)
    assert (tree.children_left[inner] == inner + 1).all(), "a tree is grown depth first: left children follow"
    shares = np.zeros((int(leaf.sum()), labels))
    shares[:, classes] = tree.value[leaf, 0] / tree.value[leaf, 0].sum(1, keepdims=True)
    return {
        "column": np.where(leaf, -1, tree.feature),
        "threshold": np.where(leaf, 0.0, tree.threshold),
        "right": np.where(leaf, np.cumsum(leaf) - 1, tree.children_right),
        "leaves": shares,
    }
