"""What a trie's nodes see, as each kind of attention wants to be told.

With nodes in depth-first order and ``end[j]`` the end of j's subtree, node i sees node j iff ``j <= i < end[j]``.
Layers with a sliding window see the nearest of those only: nearest by depth, since a trie's rows are not its positions.
"""

from typing import Any, Final

import torch
from torch import Tensor

from esckit.errors import ModelError

__all__ = ["FLEX_ATTENTION", "SUPPORTED", "check_layers", "trie_attention", "trie_masks"]

FLEX_ATTENTION: Final = "trie_flex"
"""Name of the attention that takes a BlockMask (`language_models.attention`)."""

SUPPORTED: Final = "use a Qwen2, Llama, Mistral or Gemma 2 architecture"
"""What to do where a backbone is refused."""

_FULL: Final = "full_attention"
_SLIDING: Final = "sliding_attention"


def trie_attention(end: Tensor, depth: Tensor | None = None, window: int | None = None) -> Tensor:
    """The mask (B, 1, N, N), true where node i (row) sees node j (column): ``j <= i < end[j]``.

    Args:
        end: (B, N).
        depth: (B, N), needed with a window.
        window: how many nodes of its path a node sees, itself included: ``depth[i] - depth[j] < window``.
    """
    node = torch.arange(end.shape[1], device=end.device)
    seen = (node[None, :] <= node[:, None]) & (node[None, :, None] < end[:, None, :])
    if window is not None:
        assert depth is not None
        seen &= depth[:, :, None] - depth[:, None, :] < window
    return seen[:, None]


def block_mask(end: Tensor, depth: Tensor, window: int | None = None) -> Any:
    """`trie_attention` as a BlockMask of torch's flex_attention, which leaves out blocks that nobody sees."""
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(row: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        seen = (j <= i) & (i < end[row, j])
        return seen if window is None else seen & (depth[row, i] - depth[row, j] < window)

    rows, nodes = end.shape
    return create_block_mask(sees, rows, None, nodes, nodes, device=end.device)


def trie_masks(model: Any, end: Tensor, depth: Tensor) -> Any:
    """What a model takes as ``attention_mask`` to read tries: one mask, or one for each kind of its layers.

    bool for SDPA, numbers to add for eager attention (which takes bool for 0 and 1, silently), a BlockMask for flex.

    Args:
        model: a causal language model, also under PEFT or a wrapper of several processes; `check_layers` let it pass.
        end, depth: (B, N).
    """
    plain = getattr(model, "module", model)
    config = plain.config

    def mask(window: int | None) -> Any:
        if config._attn_implementation == FLEX_ATTENTION:
            return block_mask(end, depth, window)
        seen = trie_attention(end, depth, window)
        if config._attn_implementation != "eager":
            return seen
        dtype = next(plain.parameters()).dtype
        return torch.zeros(seen.shape, dtype=dtype, device=end.device).masked_fill(~seen, torch.finfo(dtype).min)

    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None or window is None:
        return mask(window)
    return {_FULL: mask(None), _SLIDING: mask(window)} if _SLIDING in kinds else mask(None)


def check_layers(config: Any, source: str) -> None:
    """Check by its configuration that a model's layers can be told what a trie's nodes see.

    Raises:
        ModelError: it has an encoder, or layers other than full attention and sliding windows.
    """
    unknown = sorted({*(getattr(config, "layer_types", None) or ())} - {_FULL, _SLIDING})
    if getattr(config, "is_encoder_decoder", False):
        why = "is an encoder-decoder, and esckit trains decoders alone"
    elif unknown:
        why = f"has layers of type {', '.join(unknown)}, which would read the branches of a token trie as one text"
    else:
        return
    raise ModelError(f"{source} {why}: {SUPPORTED}.")
