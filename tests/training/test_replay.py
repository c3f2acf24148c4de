"""Replayed chats in preference learning: tokens of the likelihood and nothing else, whatever the grouping."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from esckit.language_models.token_tree import TokenTrie
from esckit.rendering import Example
from esckit.training.batches import plan_batches
from esckit.training.preferences import PairDataset, PreferenceObjective, make_item, replay_item, store_reference
from esckit.training.training_options import PreferenceOptions, TrainingOptions
from tests.tiny import tiny_model, tiny_renderer, with_lora
from tests.tolerance import tolerance
from tests.training.pairs import flat, frozen_model, gradients, rendered_pairs, sequence, trie_outcome
from tests.training.step import Step, one_step
from tests.training.together import CHATS, setting

NEAR = tolerance(tokens=64)


def chats() -> list[list[Example]]:
    return [tiny_renderer().chat(chat) for chat in CHATS]


def test_the_likelihood_is_the_mean_over_the_tokens_of_chosen_and_replayed_replies() -> None:
    """By hand: every reply read alone."""
    pairs = rendered_pairs("generator")
    dataset = PairDataset([*map(make_item, pairs), *map(replay_item, chats())])
    model, other = tiny_model(seed=1), tiny_model(seed=2)
    ours = trie_outcome(model, dataset, frozen_model(other), beta=0.1, sft_weight=0.7)
    likely = [*(pair.chosen for pair in flat(pairs)), *(example for chat in chats() for example in chat)]
    tokens = sum(len(example.scored) for example in likely)
    losses = [dpo_alone(model, other, pair) for pair in flat(pairs)]
    wanted = torch.stack(losses).mean() - 0.7 * torch.stack([alone(model, each) for each in likely]).sum() / tokens
    model.zero_grad()
    torch.autograd.backward(wanted)
    assert ours.loss == pytest.approx(float(wanted.detach()), rel=NEAR)
    for name, gradient in gradients(model).items():
        assert float((ours.gradients[name] - gradient).norm() / gradient.norm()) < NEAR, name
    plain = trie_outcome(model, PairDataset(map(make_item, pairs)), frozen_model(other), beta=0.1, sft_weight=0.7)
    assert (ours.accuracy, ours.chosen_reward) == pytest.approx((plain.accuracy, plain.chosen_reward), abs=NEAR)


def dpo_alone(model: Any, other: Any, pair: Any) -> Tensor:
    chosen, rejected = (alone(model, side) - alone(other, side).detach() for side in pair)
    return -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected))


def alone(model: Any, example: Example) -> Tensor:
    prompt, reply = sequence(example)
    ids = torch.tensor([prompt + reply])
    found = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    total: Tensor = found.gather(-1, ids[0, len(prompt) :, None]).sum()
    return total


def step(batch: list[int], folder: Path, passes: int = 1, most: int | None = None) -> Step:
    return one_step(*setting("replay", most), batch, folder, passes=passes, max_tokens=most)


@pytest.mark.parametrize(("passes", "most"), [(3, None), (32, None), (1, 300)])
def test_a_step_with_replay_does_not_depend_on_its_passes(passes: int, most: int | None, tmp_path: Path) -> None:
    """Some passes hold replayed chats alone, hence no pair at all."""
    together = step([0, 1, 2, 3, 4, 5], tmp_path / "one")
    divided = step([5, 3, 1, 4, 0, 2], tmp_path / "other", passes, most)
    assert divided.logged["loss"] == pytest.approx(together.logged["loss"], rel=NEAR)
    for name, gradient in together.gradients.items():
        assert float((divided.gradients[name] - gradient).norm() / gradient.norm()) < NEAR, name


def test_replayed_chats_ride_along_and_make_no_batch_of_their_own() -> None:
    counts = [3, 0, 2, 0, 0, 4, 1, 0, 2]
    plain = [count for count in counts if count]
    for seed in range(50):
        (batches,) = plan_batches(counts, 4, 1, seed)
        assert sorted(index for batch in batches for index in batch) == list(range(len(counts)))
        assert all(any(counts[index] for index in batch) for batch in batches)
        assert len(batches) <= math.ceil(sum(plain) / 4)
        assert all(sum(counts[index] for index in batch) >= 4 for batch in batches[:-1])


def test_a_chat_is_divided_as_pairs_are_and_stored_with_them() -> None:
    (_, long) = chats()
    item = replay_item(long, 64)
    assert [len(trie.targets) for trie in item.tries] == [1, 1]
    dataset = PairDataset([make_item(rendered_pairs("generator")[0]), item])
    assert dataset.counts()[1] == 0
    stored = store_reference(tiny_model(), dataset, TrainingOptions(precision="float32"))
    assert "stored" in stored.collate(stored.items)
    passes = stored.forwards([stored.items[1]], 64)
    assert [len(one["replayed"]) for one in passes] == [1, 1]
    assert [len(one["replayed"]) for one in map(stored.idle, passes)] == [0, 0]
    assert all(isinstance(trie, TokenTrie) for trie in dataset.tries())


def test_a_window_without_a_pair_has_no_figures_of_pairs() -> None:
    objective = PreferenceObjective(PreferenceOptions(sft_weight=1), frozen_model(tiny_model(seed=2)))
    data = PairDataset(map(replay_item, chats()))
    inputs = data.collate(data.items)
    loss = objective.loss(tiny_model(), inputs, torch.tensor([1, int(objective.units(inputs)[1])]))
    assert float(loss.detach()) > 0
    assert objective.metrics() == {}


# ------------------------------------------------------------------------------------------------------------ held out


@pytest.mark.parametrize("loss", ["dpo", "kto", "orpo"])
def test_what_is_held_out_is_measured_as_one_step_would_have_it(loss: Any) -> None:
    pairs = rendered_pairs("generator", count=3, each=2)
    items = [make_item(members, 300, mismatched=loss == "kto") for members in pairs]
    reference = frozen_model(tiny_model(seed=2))
    plain = with_lora(tiny_model(seed=1), "generator", seed=3)
    wanted = trie_outcome(plain, PairDataset(items), reference, loss=loss, sft_weight=0.5)
    objective = PreferenceObjective(PreferenceOptions(loss=loss, sft_weight=0.5), reference)
    model = with_lora(tiny_model(seed=1), "generator", seed=3, dropout=0.5).train()
    found = [
        objective.measure(model, PairDataset(items), TrainingOptions(precision="float32", max_tokens_per_row=most))
        for most in (None, 300)
    ]
    if loss == "kto":  # z is the mean of a pass's mismatched replies
        assert found[1] == pytest.approx(wanted.loss, rel=0.05)
    else:
        assert found == pytest.approx([wanted.loss, wanted.loss], rel=NEAR)
    assert model.training
    assert objective.metrics() == {}, "the curve does not count it"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_loss_without_the_likelihood_is_told_where_there_is_one() -> None:
    pairs, reference = rendered_pairs("generator"), frozen_model(tiny_model(seed=2))
    plain = trie_outcome(tiny_model(seed=1), PairDataset(map(make_item, pairs)), reference)
    dataset = PairDataset([*map(make_item, pairs), *map(replay_item, chats())])
    objective = PreferenceObjective(PreferenceOptions(sft_weight=1), reference)
    for part in dataset.forwards(dataset.items, 600):
        objective.loss(tiny_model(seed=1), part, torch.ones(2))
    assert objective.metrics()["pair_loss"] == pytest.approx(plain.loss, rel=NEAR)
    bare = PreferenceObjective(PreferenceOptions(), reference)
    bare.loss(tiny_model(), dataset.collate(dataset.items), torch.ones(2))
    assert "pair_loss" not in bare.metrics()
