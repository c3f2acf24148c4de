"""Attention of a token trie on the CPU, block by block: a block of nodes meets only the keys that one of them sees.

A trie in depth-first order hides most of the square from itself: what comes later, and side branches of earlier turns.
A dense mask computes all of it. Values and gradients are those of `torch.nn.functional.scaled_dot_product_attention`
with the whole mask, up to rounding. Registered with transformers as the attention ``trie``; whatever is no trie (one
new token, no mask) goes the ordinary way.
"""

from typing import Any, Final

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = ["BLOCK", "TRIE_ATTENTION", "blocked_attention"]

TRIE_ATTENTION: Final = "trie"
"""What to give transformers as ``attn_implementation``."""

BLOCK: Final = 256
"""Nodes a block: smaller ones leave out more, larger ones keep matrix products efficient."""


def blocked_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention in transformers' form.

    Args:
        module: the layer, for its groups of heads.
        query, key, value: (B, H, N, D); keys and values may have fewer heads.
        attention_mask: (B, 1, N, N) bool, true where a node (row) sees another one (column), never a later one.
        options: dropout, scaling and what else transformers says.

    Returns:
        (B, N, H, D) and, in place of the weights, None.
    """
    length = query.shape[2]
    square = attention_mask is not None and attention_mask.shape[-2:] == (length, length)
    if not square or length <= BLOCK or attention_mask is None or attention_mask.dtype != torch.bool:
        whole: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0]
        return whole, None
    rows = []
    for row in range(len(query)):  # each row of a batch has its own branches
        one = slice(row, row + 1)
        blocks = [
            _block(module, query[one], key[one], value[one], attention_mask[one], start, options)
            for start in range(0, length, BLOCK)
        ]
        rows.append(torch.cat(blocks, 1))
    return torch.cat(rows), None


def _block(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, start: int, options: dict[str, Any]
) -> Tensor:
    """Attention (1, n, H, D) of the nodes from ``start``, over the keys that they see."""
    own = mask[:, :, start : start + BLOCK, : start + BLOCK]
    needed = own.any(2)[0, 0]  # (start + n,)
    needed[start] = True  # a node that sees nothing, as padding may, still needs a key
    seen = needed.nonzero()[:, 0]
    found: Tensor = sdpa_attention_forward(
        module,
        query[:, :, start : start + BLOCK],
        key.index_select(2, seen),
        value.index_select(2, seen),
        own.index_select(3, seen),
        **options,
    )[0]
    return found


AttentionInterface.register(TRIE_ATTENTION, blocked_attention)
AttentionMaskInterface.register(TRIE_ATTENTION, sdpa_mask)
