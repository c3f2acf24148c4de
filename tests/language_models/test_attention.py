"""Attention in blocks equals attention over the whole square, in value and in gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from esckit.language_models import attention
from esckit.language_models.attention import TRIE_ATTENTION
from esckit.language_models.backbone import load_backbone
from esckit.language_models.token_tree import TokenTrie, TrieBatch, collate, token_log_probabilities
from tests.tiny import Architecture, save_base, starter_dialogues, tiny_model, tiny_renderer


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Blocks of 48 nodes; the lengths of keys that each block met."""
    lengths: list[int] = []
    plain = sdpa_attention_forward

    def counted(module: Any, query: Tensor, key: Tensor, *given: Any, **options: Any) -> Any:
        lengths.append(key.shape[2])
        return plain(module, query, key, *given, **options)

    monkeypatch.setattr(attention, "BLOCK", 48)
    monkeypatch.setattr(attention, "sdpa_attention_forward", counted)
    return lengths


def batch() -> TrieBatch:
    """Three dialogues of uneven length, side branches in each: rows with padding, and a row of two."""
    renderer = tiny_renderer()
    dialogues = zip(starter_dialogues(3, 8), (8, 5, 2), strict=True)
    examples = [renderer.examples(dialogue, "generator", {})[:count] for dialogue, count in dialogues]
    return collate([TokenTrie.merge(members) for members in examples])


def read(model: Any, tensors: TrieBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities, and the gradients of their weighted sum."""
    model.zero_grad()
    found = token_log_probabilities(model, tensors)
    torch.autograd.backward((found * torch.linspace(0, 1, len(found), dtype=found.dtype)).sum())
    return found.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_blocks_change_no_value_and_no_gradient(
    architecture: Architecture, dtype: torch.dtype, tolerance: float, small_blocks: list[int]
) -> None:
    model, tensors = tiny_model(architecture, dtype=dtype), batch()
    assert tensors.input_ids.shape[0] > 1
    wanted, wanted_gradients = read(model, tensors)
    assert small_blocks == [], "sdpa goes another way"
    model.set_attn_implementation(TRIE_ATTENTION)
    found, found_gradients = read(model, tensors)
    assert float((found - wanted).abs().max()) <= tolerance
    for name, gradient in wanted_gradients.items():
        assert float((found_gradients[name] - gradient).norm() / gradient.norm()) <= tolerance, name
    rows, width = tensors.input_ids.shape
    assert len(small_blocks) == 2 * rows * -(-width // 48), "each layer, each row, each block"
    assert sum(small_blocks) < 0.45 * width * len(small_blocks), "most keys are left out, half of them for being later"


def test_a_node_that_sees_nothing_gives_what_the_whole_square_gives(small_blocks: list[int]) -> None:
    """As padding on the left does in other people's batches."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 100, 8)
    mask = torch.ones(1, 1, 100, 100, dtype=torch.bool).tril()
    mask[:, :, :60] = False
    module = torch.nn.Module()
    wanted = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2)
    found = attention.blocked_attention(module, query, key, value, mask)[0]
    torch.testing.assert_close(found[:, 60:], wanted[:, 60:])
    assert torch.isfinite(found).all()
    assert small_blocks[0] == 1


def test_without_a_mask_or_with_other_keys_it_is_ordinary_attention(small_blocks: list[int]) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 100, 8)
    module = torch.nn.Module()
    module.is_causal = True  # type: ignore[assignment]
    found = attention.blocked_attention(module, query, key, value, None)[0]
    wanted = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2)
    torch.testing.assert_close(found, wanted)
    last = attention.blocked_attention(module, query[:, :, -1:], key, value, None)[0]
    torch.testing.assert_close(last, wanted[:, -1:])
    assert small_blocks == [100, 100]


@pytest.mark.skipif(torch.cuda.is_available(), reason="backbones are loaded onto the CUDA device")
def test_a_backbone_on_the_cpu_is_read_in_blocks(tmp_path: Any) -> None:
    model = load_backbone(str(save_base(tmp_path / "base"))).model
    assert model.config._attn_implementation == TRIE_ATTENTION
    model.save_pretrained(tmp_path / "saved")
    assert TRIE_ATTENTION not in (tmp_path / "saved/config.json").read_text(encoding="utf-8"), "others cannot load it"
