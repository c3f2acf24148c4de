"""The estimate of memory: parameters are those of the real model, and the peak is near the one that is measured."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from esckit.language_models.token_tree import TokenTrie, collate, token_log_probabilities
from esckit.recipes.memory_estimate import Kept, MetaModel
from esckit.rendering import Example
from esckit.training.adapters import fresh_adapter
from esckit.training.training_options import LoraOptions
from tests.tiny import Architecture, tiny_model

ARCHITECTURES: Final[tuple[Architecture, ...]] = ("qwen2", "llama")
LORA: Final = LoraOptions(r=4, dropout=0.05)


def config_of(architecture: Architecture) -> Any:
    """A small config: deep and wide enough for activations to outweigh what nobody counts."""
    from transformers import LlamaConfig, Qwen2Config

    return {"qwen2": Qwen2Config, "llama": LlamaConfig}[architecture](
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads={"qwen2": 4, "llama": 2}[architecture],
        vocab_size=2000,
        max_position_embeddings=2048,
        tie_word_embeddings=architecture == "qwen2",
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parameters_are_those_of_the_real_model(architecture: Architecture) -> None:
    real = tiny_model(architecture)
    numbers = real.num_parameters()
    meta = MetaModel(real.config, torch.float32, LORA)
    assert real.config._attn_implementation == "sdpa", "the config is left as it was"
    adapted = fresh_adapter(real, LORA, "planner")
    assert meta.parameters == numbers
    assert meta.weights == 4 * numbers
    assert meta.trained == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert MetaModel(real.config, torch.bfloat16, None).trained == numbers
    assert MetaModel(real.config, torch.bfloat16, None).weights == 2 * numbers


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_four_bits_shrink_the_layers_and_leave_embeddings_and_head(architecture: Architecture) -> None:
    config = tiny_model(architecture).config
    linear = config.num_hidden_layers * (
        2 * config.hidden_size * (config.hidden_size + tiny_heads(config))  # q, o and k, v
        + 3 * config.hidden_size * config.intermediate_size
    )
    whole, small = (MetaModel(config, torch.bfloat16, LORA, four_bits=four).weights for four in (False, True))
    assert whole - small == pytest.approx(linear * (2 - 0.516), rel=1e-3)


def tiny_heads(config: Any) -> int:
    """Width of keys (and of values)."""
    return int(config.hidden_size * config.num_key_value_heads / config.num_attention_heads)


def peak_of(work: Callable[[], object], folder: Path) -> int:
    """The most bytes that were allocated at once on the CPU while it worked, above what was there."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    profile.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    now = most = 0
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda event: event["ts"]):
        now += event["args"]["Bytes"]
        most = max(most, now)
    return most


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_peak_is_near_the_measured_one(architecture: Architecture, checkpointing: bool, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    config = config_of(architecture)
    base = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    model = fresh_adapter(base, LORA, "planner").train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = tuple(torch.randint(3, 1990, (700,), generator=torch.Generator().manual_seed(0)).tolist())
    sides = [Example("", ids[:500], (), ids[500:560]), Example("", ids[:500], (), ids[560:620])]
    batch = collate([TokenTrie.merge(sides)])
    measured = peak_of(lambda: torch.autograd.backward(-token_log_probabilities(model, batch).sum()), tmp_path)
    kept = Kept(batch.input_ids.numel(), int(batch.keep.sum()))
    memory = MetaModel(config, torch.float32, LORA).memory(kept, checkpointing=checkpointing)
    gradients = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert memory.activations + memory.logits + gradients == pytest.approx(measured, rel=0.12)
    assert memory.activations == (memory.checkpointed if checkpointing else memory.whole)
    assert memory.checkpointed < memory.whole / 3


def test_what_training_adds_to_the_weights() -> None:
    """Sixteen bytes a trained number, twelve where it is one of the weights, four more for a frozen copy."""
    config, kept = config_of("qwen2"), Kept(100, 10)
    adapter = MetaModel(config, torch.bfloat16, LORA)
    memory = adapter.memory(kept, checkpointing=True, frozen_reference=True)
    assert memory.trained == 16 * adapter.trained
    assert memory.reference == 4 * adapter.trained
    assert memory.logits == 10 * 2000 * (2 + 4 + 8)
    full = MetaModel(config, torch.float32, None).memory(kept, checkpointing=True)
    assert full.trained == 12 * full.weights / 4
    assert full.total == full.weights + full.trained + full.activations + full.logits
