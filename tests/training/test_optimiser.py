"""What the optimiser does with the gradients, against AdamW, its schedule and its clipping written down here."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from torch import Tensor

from esckit.language_models.token_tree import build_tries
from esckit.training.batches import TrieDataset
from esckit.training.trainer import Likelihood, train
from esckit.training.training_options import TrainingOptions
from tests.tiny import starter_dialogues, tiny_model, tiny_renderer, with_lora

STEPS: Final = 7
WARM: Final = 2  # round(.3 * 7)
AS_IT_IS: Final[dict[str, Any]] = {
    "schedule": "cosine",
    "weight_decay": 0.3,
    "max_grad_norm": 0.5,
    "learning_rate": 3e-3,
    "warmup": 0.3,
}
SCHEDULES: Final[dict[str, Callable[[float], float]]] = {
    "cosine": lambda way: (1 + math.cos(math.pi * way)) / 2,
    "linear": lambda way: 1 - way,
    "constant_with_warmup": lambda _: 1.0,
}
"""The share of the peak rate, by the way that was gone since warm-up, 0..1."""


def dataset() -> TrieDataset:
    examples = [tiny_renderer().examples(conversation, "planner", {}) for conversation in starter_dialogues(2, 6)]
    return TrieDataset(map(build_tries, examples))


def every_weight() -> Any:
    return tiny_model(seed=1, dtype=torch.float64)


def adapter() -> Any:
    return with_lora(every_weight(), "planner", seed=2).double()


def trained_weights(model: Any) -> dict[str, Tensor]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def by_train(model: Any, folder: Path, settings: dict[str, Any]) -> dict[str, Tensor]:
    options = TrainingOptions(epochs=STEPS, batch_size=10**6, **settings)
    trained = train(model, dataset(), options, folder=folder, title="test", seed=0)
    assert trained.steps == STEPS
    return trained_weights(model)


def by_hand(model: Any, settings: dict[str, Any]) -> dict[str, Tensor]:
    """Loshchilov and Hutter 2019: biases and norms do not decay, all gradients are clipped by one norm."""
    weights, objective, data = trained_weights(model), Likelihood(), dataset()
    (inputs,) = data.forwards(data.items, None)
    first, second = ({name: torch.zeros_like(weight) for name, weight in weights.items()} for _ in range(2))
    for step in range(STEPS):
        share = SCHEDULES[settings["schedule"]]((step - WARM) / (STEPS - WARM)) if step >= WARM else step / WARM
        rate = settings["learning_rate"] * share
        model.zero_grad()
        torch.autograd.backward(objective.loss(model, inputs, objective.units(inputs)))
        gradients = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
        norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))
        with torch.no_grad():
            for name, weight in weights.items():
                gradient = gradients[name] * min(1, settings["max_grad_norm"] / norm)
                if not name.endswith("bias") and "norm" not in name:
                    weight *= 1 - rate * settings["weight_decay"]
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                mean, square = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
                weight -= rate * mean / (square.sqrt() + 1e-8)
    return weights


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest of two runs' differences, of every trained number."""
    assert one.keys() == other.keys()
    return max(float((weight - other[name]).abs().max().detach()) for name, weight in one.items())


@pytest.mark.parametrize("make", [every_weight, adapter])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_training_is_adamw_with_decay_clipping_and_a_schedule(
    schedule: str, make: Callable[[], Any], tmp_path: Path
) -> None:
    settings = {**AS_IT_IS, "schedule": schedule}
    assert distance(by_train(make(), tmp_path, settings), by_hand(make(), settings)) < 1e-3 * 3e-3


@pytest.mark.parametrize(
    "change", [{"weight_decay": 0.0}, {"max_grad_norm": 1e9}, {"schedule": "linear"}, {"learning_rate": 2e-3}]
)
def test_each_of_these_would_be_missed(change: dict[str, Any]) -> None:
    """So that the test above says something about it."""
    assert distance(by_hand(every_weight(), AS_IT_IS), by_hand(every_weight(), {**AS_IT_IS, **change})) > 1e-1 * 3e-3
