"""LoRA's layers in one piece compute what PEFT's do, and drop what they should."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from esckit.language_models.low_rank import _drop, _QuickLinear, quicken
from esckit.training.adapters import fresh_adapter
from esckit.training.training_options import LoraOptions
from tests.tiny import tiny_model, with_lora

IDS = torch.arange(40).mul(7).add(3).remainder(600)[None]


def both(dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """PEFT's model under two random adapters, and a copy in one piece."""
    theirs = with_lora(tiny_model("llama"), "planner", seed=1)
    theirs.add_adapter("generator", theirs.peft_config["planner"])
    theirs = theirs.to(dtype)
    return theirs, quicken(copy.deepcopy(theirs))


def of(model: Any) -> dict[str, Tensor]:
    """Logits, and gradients of the adapter that is active."""
    model.zero_grad()
    logits = model(input_ids=IDS).logits
    (logits * torch.linspace(-1, 1, logits.shape[-1], dtype=logits.dtype)).mean().backward()
    return {"logits": logits.detach()} | {
        name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None
    }


@contextmanager
def _as_it_is(model: Any) -> Iterator[None]:
    yield


@contextmanager
def _merged(model: Any) -> Iterator[None]:
    model.merge_adapter()
    yield


@contextmanager
def _other(model: Any) -> Iterator[None]:
    model.set_adapter("generator")
    yield


@contextmanager
def _two(model: Any) -> Iterator[None]:
    model.base_model.set_adapter(["planner", "generator"])
    yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("state", [_as_it_is, _other, _two, _merged, lambda model: model.disable_adapter()])
def test_values_and_gradients_are_peft_s(state: Any, dtype: torch.dtype) -> None:
    found = []
    for model in both(dtype):
        with state(model):
            if state in (_as_it_is, _other, _two):
                found.append(of(model))
            else:
                found.append({"logits": model(input_ids=IDS).logits.detach()})
    theirs, ours = found
    assert ours.keys() == theirs.keys()
    assert len(ours) > 1 or state not in (_as_it_is, _other, _two)
    for name, wanted in theirs.items():
        torch.testing.assert_close(ours[name], wanted, rtol=1e-4, atol=1e-5 if dtype == torch.float32 else 1e-12)


def test_under_autocast_peft_computes() -> None:
    found = []
    for model in both():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found.append(model(input_ids=IDS).logits)
    assert torch.equal(*found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_what_is_dropped(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(301, 777).to(dtype)
    dropped = _drop(x, rate)
    gone = dropped.left == 0
    assert dropped.rate == pytest.approx(rate, abs=2**-16)
    assert float(gone.float().mean()) == pytest.approx(rate, abs=5 * (rate * (1 - rate) / x.numel()) ** 0.5 + 2**-16)
    assert torch.equal(dropped.left[~gone], x[~gone])
    columns, rows = gone.float().mean(0), gone.float().mean(1)
    for shares, size in ((columns, 301), (rows, 777)):  # nothing is dropped together
        assert float(shares.std()) == pytest.approx((rate * (1 - rate) / size) ** 0.5, rel=0.2)


def layers(dropout: float) -> tuple[Any, Any]:
    """Two layers of one model that may read the same input."""
    model = fresh_adapter(tiny_model("llama").double(), LoraOptions(r=4, dropout=dropout), "planner").double().train()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    attention = model.base_model.model.model.layers[0].self_attn
    assert isinstance(attention.q_proj, _QuickLinear)
    return attention.q_proj, attention.k_proj


def test_gradients_are_those_of_what_was_kept() -> None:
    layer, _ = layers(0.4)
    x = torch.randn(6, 32, dtype=torch.float64)

    def at(x: Tensor, weight: Tensor) -> Tensor:
        torch.manual_seed(7)
        found: Tensor = torch.func.functional_call(layer, {"lora_A.planner.weight": weight}, (x.clone(),))
        return found.pow(2).sum()

    weight = layer.lora_A["planner"].weight.detach()
    for which in (0, 1):
        given = [x.clone(), weight.clone()]
        given[which].requires_grad_()
        (slope,) = torch.autograd.grad(at(*given), given[which])
        step = torch.randn_like(given[which]) * 1e-5
        ahead, behind = ([*given] for _ in range(2))
        ahead[which], behind[which] = given[which].detach() + step, given[which].detach() - step
        assert float(at(*ahead) - at(*behind)) == pytest.approx(float((2 * slope * step).sum()), rel=1e-5)


def test_dropout_keeps_the_mean_and_is_the_same_for_layers_of_one_input() -> None:
    query, key = layers(0.25)
    torch.manual_seed(0)
    x = torch.ones(2, 4000, 32, dtype=torch.float64)
    base = query.get_base_layer()(x)
    added = query(x) - base
    query.eval()
    wanted = (query(x) - base)[0, 0]
    query.train()
    torch.testing.assert_close(added.mean((0, 1)), wanted, rtol=0, atol=float(5 * added.std() / 8000**0.5))
    kept = query.last_input._dropped
    key(x)
    assert key.last_input._dropped is kept
    key(x.clone())
    assert key.last_input._dropped is not kept


def test_no_dropout_in_evaluation() -> None:
    model = fresh_adapter(tiny_model("llama"), LoraOptions(dropout=0.5), "planner").eval()
    assert torch.equal(model(input_ids=IDS).logits, model(input_ids=IDS).logits)
