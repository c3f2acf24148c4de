"""Growing an encoder planner's forest: extremely randomised trees (Geurts et al. 2006) over the explicit features."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from esckit.planning.forest import StrategyForest, Trees
from esckit.planning.planner_options import PlannerOptions
from esckit.planning.turn_batches import ReadTurns
from esckit.planning.turn_features import history_width
from esckit.strategy import Taxonomy

__all__ = ["grow_forest"]


def grow_forest(
    dialogues: Sequence[ReadTurns], taxonomy: Taxonomy, options: PlannerOptions, seed: int
) -> StrategyForest:
    """Grow trees on dialogues that were read with their gold strategies shown.

    Args:
        dialogues: at least one.
        taxonomy: the labels.
        options: ``trees``, ``leaf`` and ``tree_features``.
        seed: of the trees.
    """
    rows = np.concatenate([each.features for each in dialogues])
    gold = np.concatenate([each.gold for each in dialogues])
    k, history = len(taxonomy.labels), history_width(taxonomy)
    shown, hidden = (_grow(rows[:, first:], gold, k, options, seed) for first in (0, history))
    return StrategyForest(shown, hidden, history)


def _grow(rows: NDArray[np.float32], gold: NDArray[np.int64], labels: int, options: PlannerOptions, seed: int) -> Trees:
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(
        options.trees, min_samples_leaf=options.leaf, max_features=options.tree_features, random_state=seed
    )
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
