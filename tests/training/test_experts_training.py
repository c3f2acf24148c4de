"""Mixtures of experts train as any adapter: stopped runs go on, preferences begin at the model after SFT."""

import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from esckit.conversation import Preference, Turn
from esckit.errors import EsckitError
from esckit.rendering import Example, PairExample, supporter_turns
from esckit.training.adapters import load_policy, save_policy
from esckit.training.batches import TrieDataset
from esckit.training.checkpoints import latest_checkpoint
from esckit.training.preferences import PairDataset, PreferenceObjective, make_item
from esckit.training.trainer import Trained, train
from esckit.training.training_options import LoraOptions, PreferenceOptions
from tests.mixtures import dialogues, layers_of, randomise_experts, renderer_of, with_experts
from tests.tiny import save_base, tiny_model
from tests.tolerance import tolerance
from tests.training.test_trainer import Counter, Stopped, dataset, options


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


def mixture(**more: Any) -> Any:
    return with_experts(tiny_model(seed=1), seed=2, dropout=0.1, **more)


@cache
def rendered() -> tuple[tuple[Example, ...], ...]:
    renderer = renderer_of(mixture())
    return tuple(tuple(renderer.examples(c, "generator", {})[:2]) for c in dialogues(4, 6))


def run(
    model: Any, folder: Path, counter: Counter, stop_at: int = 0, **changes: Any
) -> tuple[Trained, dict[str, Tensor]]:
    counter.start(stop_at)
    told = options(checkpoint_seconds=0, **changes)
    trained = train(model, dataset(rendered()), told, folder=folder, title="test", seed=5)
    return trained, {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("gates", ["shared", "per_module"])
def test_a_stopped_run_continues_to_the_last_bit(gates: str, tmp_path: Path, counter: Counter) -> None:
    wanted, weights = run(mixture(gates=gates), tmp_path / "whole", counter)
    with pytest.raises(Stopped):
        run(mixture(gates=gates), tmp_path / "stopped", counter, stop_at=5)
    assert latest_checkpoint(tmp_path / "stopped") == tmp_path / "stopped/checkpoint-4"
    trained, again = run(mixture(gates=gates), tmp_path / "stopped", counter)
    assert counter.passes == 4
    assert trained == wanted
    assert again.keys() == weights.keys()
    assert [name for name, weight in weights.items() if not torch.equal(weight, again[name])] == []
    first = dict(mixture(gates=gates).named_parameters())
    assert not [name for name, weight in weights.items() if torch.equal(weight, first[name])], "all of them learn"


def test_gradient_checkpointing_changes_no_step(tmp_path: Path, counter: Counter) -> None:
    plain, weights = run(with_experts(tiny_model(seed=1), seed=2), tmp_path / "plain", counter, epochs=1)
    saving, other = run(
        with_experts(tiny_model(seed=1), seed=2), tmp_path / "saving", counter, epochs=1, gradient_checkpointing=True
    )
    assert [row["loss"] for row in saving.curve] == pytest.approx([row["loss"] for row in plain.curve], rel=1e-3)
    for name, weight in weights.items():
        torch.testing.assert_close(other[name], weight, rtol=0, atol=1e-2)


def test_a_mixture_learns_which_member_says_what(tmp_path: Path, counter: Counter) -> None:
    trained, _ = run(with_experts(tiny_model(seed=1), seed=2, random=False), tmp_path, counter, epochs=8)
    losses = [row["loss"] for row in trained.curve if "loss" in row]
    assert losses[-1] < 0.9 * losses[0]


# ------------------------------------------------------------------------------------------------------- preferences


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as an sft stage leaves it, with a random mixture."""
    folder = tmp_path_factory.mktemp("sft")
    with_experts(tiny_model(), seed=1, dropout=0.5).save_pretrained(str(folder))
    return folder


def pairs(model: Any) -> list[list[PairExample]]:
    """A pair a turn: the gold reply, and another one under another strategy."""
    found, renderer = [], renderer_of(model)
    for tree in dialogues(2, 6):
        golds = supporter_turns(tree)
        sides = [Turn(f"{g.id}x", g.parent, "supporter", "I see.", "Question", extra=g.extra) for g in golds]
        preferences = [Preference(g.id, side.id, "turn") for g, side in zip(golds, sides, strict=True)]
        grown = tree.grow(sides, preferences)
        found.append([renderer.pair(grown, preference, "generator", {}) for preference in preferences])
    return found


@pytest.mark.parametrize("form", ["frozen", "stored"])
def test_the_first_preference_loss_is_ln_2_and_the_reference_stays(form: str, base: Path, start: Path) -> None:
    _, policy = load_policy(str(base), start, "generator", form, LoraOptions())
    model = policy.model
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all(name.endswith(".generator") for name in trained)
    data = PairDataset(make_item(own) for own in pairs(model))
    inputs = data.collate(data.items)
    objective = PreferenceObjective(PreferenceOptions(), policy.reference)
    most = tolerance(tokens=1000)
    for layer in layers_of(model):
        layer.experts_config["generator"].dropout = 0.0
        layer.experts_config["reference"].dropout = 0.0
    loss = objective.loss(model.train(), inputs, objective.units(inputs))
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=most)
    torch.autograd.backward(loss)
    assert all(p.grad is not None for name, p in model.named_parameters() if name in trained)
    torch.manual_seed(9)
    randomise_experts(model)
    loss = objective.loss(model.train(), inputs, objective.units(inputs))
    assert abs(float(loss.detach()) - math.log(2)) > 0.01, "another policy is seen"
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained


def test_the_policy_is_saved_as_a_mixture_and_starts_another_round(base: Path, start: Path, tmp_path: Path) -> None:
    _, policy = load_policy(str(base), start, "generator", "frozen", LoraOptions())
    torch.manual_seed(9)
    randomise_experts(policy.model)
    save_policy(policy, str(base), start, tmp_path, "generator", PreferenceOptions())
    _, again = load_policy(str(base), tmp_path, "generator", "frozen", LoraOptions())
    for one, other in zip(layers_of(policy.model), layers_of(again.model), strict=True):
        for name in ("generator", "reference"):
            assert torch.equal(one.experts_B["generator"], other.experts_B[name])
            assert torch.equal(one.table("generator"), other.table(name))


def test_experts_are_not_merged_under_a_reference(base: Path, start: Path) -> None:
    with pytest.raises(EsckitError, match=r"experts cannot be merged under a reference: set reference to frozen or st"):
        load_policy(str(base), start, "generator", "merged", LoraOptions())


def test_the_dataset_of_a_mixture_keeps_its_pairs() -> None:
    for tries, examples in zip(dataset(rendered()).items, rendered(), strict=True):
        assert {pair for trie in tries for pair in trie.pairs} == {pair for e in examples for pair in e.pairs}
    assert isinstance(dataset(rendered()), TrieDataset)
