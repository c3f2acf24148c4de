"""What a trie's nodes see: by subtree, by depth in a window, and the same in every form that attention takes."""

from typing import Any, Final

import pytest
import torch
from torch import Tensor

from esckit.language_models.attention import FLEX_ATTENTION, TRIE_ATTENTION, attention_for, trie_attention, trie_masks
from esckit.language_models.token_tree import TokenTrie, TrieBatch, collate, token_log_probabilities
from esckit.rendering import Example
from tests.tiny import WINDOW, Architecture, starter_dialogues, tiny_model, tiny_renderer, with_lora

SLIDING: Final[tuple[Architecture, ...]] = ("qwen2-window", "mistral-window", "gemma2")


def branches(*texts: str) -> TrieBatch:
    """A trie of sequences that are written as letters."""
    return collate([TokenTrie.merge([Example("", (ord(text[0]),), (), tuple(map(ord, text[1:]))) for text in texts])])


def seen_by_hand(texts: tuple[str, ...], window: int | None) -> set[tuple[str, str]]:
    """Pairs of paths: a node and an ancestor (or itself) at most ``window - 1`` above it."""
    paths = {text[: n + 1] for text in texts for n in range(len(text))}
    near = len(max(texts, key=len)) if window is None else window
    return {(low, high) for low in paths for high in paths if low.startswith(high) and len(low) - len(high) < near}


@pytest.mark.parametrize("window", [None, 1, 2, 3, 9])
def test_a_window_counts_along_the_path_and_not_along_the_row(window: int | None) -> None:
    texts = ("abcde", "abxy", "abcdz", "qr")
    batch = branches(*texts)
    mask = trie_attention(batch.end, batch.position_ids, window)[0, 0]
    path: list[str] = []
    paths = []
    for token, depth in zip(batch.input_ids[0].tolist(), batch.position_ids[0].tolist(), strict=True):
        path = [*path[:depth], chr(token)]
        paths.append("".join(path))
    found = {(paths[i], paths[j]) for i, j in mask.nonzero().tolist()}
    assert found == seen_by_hand(texts, window)


def dialogues() -> TrieBatch:
    """Two dialogues with side branches, rows of uneven length: padding too."""
    renderer = tiny_renderer()
    return collate([TokenTrie.merge(renderer.examples(c, "generator", {})) for c in starter_dialogues(2, 6)])


def masks_of(model: Any, batch: TrieBatch) -> Any:
    return trie_masks(model, batch.end, batch.position_ids)


def test_each_kind_of_layer_gets_its_own_mask() -> None:
    batch = dialogues()
    full, near = (trie_attention(batch.end, batch.position_ids, window) for window in (None, WINDOW))
    assert torch.equal(masks_of(tiny_model("llama"), batch), full)
    assert torch.equal(masks_of(tiny_model("mistral"), batch), full)
    assert torch.equal(masks_of(tiny_model("mistral-window"), batch), near)
    own = masks_of(with_lora(tiny_model("qwen2-window"), "planner", seed=1), batch)
    assert own.keys() == {"full_attention", "sliding_attention"}
    assert torch.equal(own["full_attention"], full)
    assert torch.equal(own["sliding_attention"], near)
    assert int(near.sum()) < int(full.sum()) / 2, "the window is shorter than most paths"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_eager_attention_gets_numbers_to_add(dtype: torch.dtype) -> None:
    batch = dialogues()
    for name, mask in masks_of(tiny_model("gemma2", dtype=dtype), batch).items():
        seen = trie_attention(batch.end, batch.position_ids, WINDOW if name == "sliding_attention" else None)
        assert mask.dtype == dtype
        assert torch.equal(mask == 0, seen)
        assert (mask[~seen] == torch.finfo(dtype).min).all()


# ---------------------------------------------------------------------------------------------------------------- flex


def test_a_block_mask_says_what_the_dense_mask_says() -> None:
    """Entry by entry, and block by block: blocks that nobody sees are left out."""
    model, batch = tiny_model("qwen2-window"), dialogues()
    model.set_attn_implementation(FLEX_ATTENTION)
    rows, nodes = batch.end.shape
    at: Any = torch.meshgrid(*(torch.arange(n) for n in (rows, 1, nodes, nodes)), indexing="ij")
    masks = masks_of(model, batch)
    for name, mask in masks.items():
        seen = trie_attention(batch.end, batch.position_ids, WINDOW if name == "sliding_attention" else None)
        assert torch.equal(mask.mask_mod(*at), seen)
    assert masks["sliding_attention"].sparsity() > masks["full_attention"].sparsity() > 20


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "qwen2-window", "mistral-window"])
def test_flex_attention_gives_what_dense_attention_gives(architecture: Architecture) -> None:
    """Values only: on the CPU torch's flex_attention has no gradient."""
    batch = dialogues()
    with torch.no_grad():
        model = tiny_model(architecture)
        wanted = token_log_probabilities(model, batch)
        model.set_attn_implementation(FLEX_ATTENTION)
        found = token_log_probabilities(model, batch)
    assert float((found - wanted).abs().max()) <= 1e-4


def gradients(model: Any, batch: TrieBatch) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    found = token_log_probabilities(model, batch)
    torch.autograd.backward(found.mean())
    return found.detach(), {name: p.grad.float() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.bfloat16, 5e-2)])
@pytest.mark.parametrize("architecture", ["qwen2", "llama", "qwen2-window", "mistral-window"])
def test_flex_attention_on_cuda_gives_dense_values_and_gradients(
    architecture: Architecture, dtype: torch.dtype, tolerance: float
) -> None:
    batch = dialogues().to("cuda")
    model = with_lora(tiny_model(architecture, dtype=dtype).to("cuda"), "generator", seed=1)
    wanted, wanted_gradients = gradients(model, batch)
    model.get_base_model().set_attn_implementation(FLEX_ATTENTION)
    found, found_gradients = gradients(model, batch)
    assert float((found - wanted).abs().mean()) <= tolerance
    for name, gradient in wanted_gradients.items():
        assert float((found_gradients[name] - gradient).norm() / gradient.norm()) <= 4 * tolerance, name


@pytest.mark.parametrize(
    ("architecture", "device", "wanted"),
    [
        ("qwen2", "cpu", TRIE_ATTENTION),
        ("qwen2", "cuda", FLEX_ATTENTION),
        ("mistral-window", "cuda", FLEX_ATTENTION),
        ("gemma2", "cpu", "eager"),
        ("gemma2", "cuda", "eager"),
    ],
)
def test_the_attention_is_chosen_by_device_and_soft_capping(
    architecture: Architecture, device: str, wanted: str
) -> None:
    assert attention_for(tiny_model(architecture).config, torch.device(device)) == wanted


def test_dropout_of_attention_weights_is_not_left_to_flex() -> None:
    config = tiny_model("llama").config
    config.attention_dropout = 0.1
    assert attention_for(config, torch.device("cuda")) == "sdpa"
