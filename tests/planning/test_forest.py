"""A planner's forest: the arrays say what scikit-learn's own trees say, and never read what is hidden."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from esckit.conversation import Conversation
from esckit.planning.encoder_planner import ensemble, member_weights
from esckit.planning.forest import StrategyForest, grow_forest
from esckit.planning.network import Logits
from esckit.planning.turn_batches import ReadTurns, TurnBatch, collate_turns, read_turns
from esckit.planning.turn_features import history_width
from esckit.rendering import past_strategies, supporter_turns
from esckit.strategy import ESCONV
from tests.tiny import starter_dialogues

HISTORY = history_width(ESCONV)
TREES = 5


def read(dialogue: Conversation) -> ReadTurns:
    turns, shown = supporter_turns(dialogue), past_strategies(dialogue, "gold")
    return read_turns(dialogue, turns, shown, ESCONV, lambda texts: np.zeros((len(texts), 0), dtype=np.float32))


@pytest.fixture(scope="module")
def dialogues() -> list[ReadTurns]:
    return [read(dialogue) for dialogue in starter_dialogues(20, 30)]


@pytest.fixture(scope="module")
def forest(dialogues: list[ReadTurns]) -> StrategyForest:
    return grow_forest(dialogues, ESCONV, TREES, 7)


def hide(batch: TurnBatch) -> TurnBatch:
    return batch.hide(torch.ones(len(batch.vectors), dtype=torch.bool), 8)


def test_trees_say_what_scikit_learn_says(dialogues: list[ReadTurns], forest: StrategyForest) -> None:
    from sklearn.ensemble import ExtraTreesClassifier

    rows = np.concatenate([each.features for each in dialogues])
    gold = np.concatenate([each.gold for each in dialogues])
    assert set(gold) == set(range(8))
    for trees, columns in ((forest.shown, rows), (forest.hidden, rows[:, HISTORY:])):
        peer = ExtraTreesClassifier(5, min_samples_leaf=8, max_features=0.4, random_state=7).fit(columns, gold)
        found = trees(torch.from_numpy(columns)).numpy()
        np.testing.assert_allclose(found, peer.predict_proba(columns), atol=1e-3)  # shares are kept in float16
        assert (found.argmax(1) == gold).mean() > 0.4


def test_a_label_that_never_occurs_is_not_ruled_out(dialogues: list[ReadTurns]) -> None:
    fewer = [each._replace(gold=np.where(each.gold == 3, 5, each.gold)) for each in dialogues]
    scores = grow_forest(fewer, ESCONV, TREES, 0)(collate_turns(fewer, 8)).planned
    assert scores.shape[1] == 8
    np.testing.assert_allclose(scores[:, 3].exp(), 0.02 / 8, atol=1e-6)
    np.testing.assert_allclose(scores.exp().sum(1), 1, atol=2e-3)


def test_hidden_turns_do_not_see_past_strategies(dialogues: list[ReadTurns], forest: StrategyForest) -> None:
    batch = collate_turns(dialogues, 8)
    other = batch._replace(features=batch.features.clone())
    other.features[:, :HISTORY] += 1
    assert torch.equal(forest(hide(batch)).planned[batch.follows], forest(hide(other)).planned[batch.follows])
    assert not torch.equal(forest(batch).planned, forest(other).planned)
    assert not torch.equal(forest(batch).planned[batch.follows], forest(hide(batch)).planned[batch.follows])
    assert torch.equal(forest(batch).planned[~batch.follows], forest(hide(batch)).planned[~batch.follows])


def test_the_state_rebuilds_the_forest(dialogues: list[ReadTurns], forest: StrategyForest) -> None:
    batch = collate_turns(dialogues, 8)
    again = StrategyForest.from_state(forest.state_dict(), HISTORY)
    assert torch.equal(again(batch).planned, forest(batch).planned)
    assert torch.equal(grow_forest(dialogues, ESCONV, TREES, 7)(batch).planned, forest(batch).planned)
    assert not torch.equal(grow_forest(dialogues, ESCONV, TREES, 8)(batch).planned, forest(batch).planned)


@pytest.mark.parametrize(
    ("forests", "share", "wanted"),
    [
        ([False, False, True], 0.4, [0.3, 0.3, 0.4]),
        ([False, True, True], 0.4, [0.6, 0.2, 0.2]),
        ([False, False], 0.4, [0.5, 0.5]),
        ([True], 0.4, [1.0]),
        ([False, True], 0.0, [1.0, 0.0]),
    ],
)
def test_forests_together_count_their_share(forests: list[bool], share: float, wanted: list[float]) -> None:
    assert member_weights(forests, share) == pytest.approx(wanted)


def test_members_are_averaged_by_weight(dialogues: list[ReadTurns], forest: StrategyForest) -> None:
    class Fixed(nn.Module):
        def forward(self, batch: TurnBatch) -> Any:
            return Logits(torch.arange(8.0).expand(len(batch.features), 8), None)

    batch = collate_turns(dialogues[:3], 8)
    fixed = torch.arange(8.0, dtype=torch.float64).log_softmax(0)
    wanted = (0.75 * fixed + 0.25 * forest(batch).planned.double().log_softmax(1)).log_softmax(1)
    assert torch.allclose(ensemble([Fixed(), forest], batch, 0.25), wanted)
