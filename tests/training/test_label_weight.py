"""The control with up-weighted strategy tokens: a weighted mean over the step's tokens, however they are grouped."""

import pytest
import torch

from esckit.language_models.token_tree import build_tries
from esckit.rendering import Example
from esckit.training.batches import TrieDataset
from esckit.training.trainer import Likelihood
from tests.tiny import label_ids, starter_dialogues, tiny_model, tiny_renderer


def examples(weight: float) -> list[list[Example]]:
    return [tiny_renderer().examples(c, "coupled", {}, label_weight=weight) for c in starter_dialogues(2, 6)]


def by_hand(weight: float) -> float:
    """Each reply read alone: its label's tokens weigh ``weight``, its text's 1."""
    model, renderer = tiny_model(), tiny_renderer()
    total, weights = 0.0, 0.0
    for conversation, own in zip(starter_dialogues(2, 6), examples(1), strict=True):
        for example in own:
            label = len(label_ids(renderer, str(conversation.turn(example.turn_id).strategy)))
            ids = torch.tensor([example.context + example.scored])
            with torch.no_grad():
                scores = model(input_ids=ids).logits[0, len(example.context) - 1 : -1].log_softmax(-1)
            losses = -scores[torch.arange(len(example.scored)), torch.tensor(example.scored)]
            total += float(weight * losses[:label].sum() + losses[label:].sum())
            weights += weight * label + len(example.scored) - label
    return total / weights


@pytest.mark.parametrize("weight", [1.0, 4.0, 0.25])
@pytest.mark.parametrize("batches", [[[0, 1]], [[0], [1]]], ids=["together", "apart"])
def test_the_loss_is_the_weighted_mean(weight: float, batches: list[list[int]]) -> None:
    model, objective = tiny_model(), Likelihood()
    dataset = TrieDataset(map(build_tries, examples(weight)))
    inputs = [dataset.forwards([dataset[index] for index in batch], None)[0] for batch in batches]
    units = torch.stack([objective.units(own) for own in inputs]).sum(0)
    with torch.no_grad():
        loss = sum(float(objective.loss(model, own, units)) for own in inputs)
    assert loss == pytest.approx(by_hand(weight), rel=1e-4)
    if weight != 1:
        assert abs(loss - by_hand(1)) > 1e-2, "or the weight would mean nothing here"


def test_only_labels_weigh_more() -> None:
    for conversation, own in zip(starter_dialogues(2, 6), examples(3), strict=True):
        for example in own:
            label = len(label_ids(tiny_renderer(), str(conversation.turn(example.turn_id).strategy)))
            assert example.weights == (3.0,) * label + (1.0,) * (len(example.scored) - label)
    assert all(example.weights == () for own in examples(1) for example in own)
