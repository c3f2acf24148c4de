"""Attention of a token trie: what its nodes see, and how that is computed without the parts that nobody sees.

With nodes in depth-first order and ``end[j]`` the end of j's subtree, node i sees node j iff ``j <= i < end[j]``.
Layers with a sliding window see the nearest of those only: nearest by depth, since a trie's rows are not its positions.

A trie in depth-first order hides most of the square from itself: what comes later, and side branches of earlier turns.
A dense mask computes all of it. Values and gradients are those of `torch.nn.functional.scaled_dot_product_attention`
with the whole mask, up to rounding. Registered with transformers as the attentions ``trie`` (CPU: SDPA a block) and
``trie_flex`` (CUDA: torch's flex_attention); whatever is no trie (one new token, no mask) goes the ordinary way.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from esckit.errors import ModelError

TRIE_ATTENTION: Final = "trie"
"""What to give transformers as ``attn_implementation``."""

BLOCK: Final = 256
"""Nodes a block: smaller ones leave out more, larger ones keep matrix products efficient."""

FLEX_ATTENTION: Final = "trie_flex"
"""Name of the attention that takes a BlockMask."""

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

    return by_layers(config, mask)


def windows_of(config: Any) -> dict[str | None, int | None]:
    """How many tokens a layer of each kind sees, None for all of them; the kind is None where all layers are alike."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None or window is None:
        return {None: window}
    return {_FULL: None, _SLIDING: window} if _SLIDING in kinds else {None: None}


def by_layers(config: Any, mask: Callable[[int | None], Any]) -> Any:
    """What a model takes as ``attention_mask``: the mask of a window, or a dict of them by kind of layer."""
    windows = windows_of(config)
    return mask(windows[None]) if None in windows else {kind: mask(window) for kind, window in windows.items()}


def check_layers(config: Any, source: str) -> None:
    """Check by its configuration that a model's layers can be told what a trie's nodes see.

    Raises:
        ModelError: it has an encoder, layers other than full attention and sliding windows, or no number of positions.
    """
    unknown = sorted({*(getattr(config, "layer_types", None) or ())} - {_FULL, _SLIDING})
    windows = sorted(key for key, value in config.to_dict().items() if _is_other_window(key, value))
    if getattr(config, "is_encoder_decoder", False):
        why = "is an encoder-decoder, and esckit trains decoders alone"
    elif unknown:
        why = f"has layers of type {', '.join(unknown)}, which would read the branches of a token trie as one text"
    elif windows:
        why = f"has an attention window of another kind ({', '.join(windows)}), which esckit cannot tell a trie's nodes"
    elif not isinstance(getattr(config.get_text_config(), "max_position_embeddings", None), int):
        why = (
            "takes no mask and positions of a token trie (its config has no max_position_embeddings), as is usual with "
            "ALiBi, recurrence and state-space layers"
        )
    else:
        return
    raise ModelError(f"{source} {why}: {SUPPORTED}.")


def takes_no_trie(source: str, error: Exception) -> ModelError:
    """What is said of a model that a trie was given to and that raised this."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
    return ModelError(
        f"{source} takes no mask and positions of a token trie ({reason}), as is usual with ALiBi, recurrence and "
        f"state-space layers: {SUPPORTED}."
    )


def takes_no_attention(source: str, config: Any) -> ModelError:
    """What is said where transformers does not find our attention in the architecture's own table (a KeyError)."""
    return ModelError(
        f"{source} ({config.model_type}) takes no attention but its own, hence no token trie: {SUPPORTED}."
    )


TRIE_ERRORS: Final = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError)
"""What models raise that are given a mask or positions that they do not know."""


def _is_other_window(key: str, value: Any) -> bool:
    """Windows stand in ``sliding_window``; a long text would show what another key does, and a short trial not."""
    known = key in ("sliding_window", "max_window_layers") or key.endswith("pattern")
    return "window" in key and not known and isinstance(value, int) and not isinstance(value, bool)


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


def flex_trie_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """Attention in transformers' form, as `blocked_attention`, where the mask is a BlockMask: by flex_attention.

    Compiled on CUDA. Elsewhere it runs as it is, which computes the whole square and has no gradient: for tests.
    """
    if not isinstance(attention_mask, BlockMask):
        whole: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0]
        return whole, None
    attend = _compiled_flex() if query.is_cuda else flex_attention
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)  # the kernels take not every number of groups
    found: Any = attend(query, key, value, block_mask=attention_mask, scale=options.get("scaling"))
    return found.transpose(1, 2).contiguous(), None


@cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention)


def attention_for(config: Any, device: torch.device) -> str:
    """The attention to load a model with: the fastest that computes what its configuration says.

    Soft-capping (Gemma 2) and sinks (gpt-oss) are computed by eager attention only, dropout of attention weights not by
    flex.
    """
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if getattr(config, "attn_logit_softcapping", None) or (kind and not kind._supports_sdpa):
        return "eager"
    if device.type != "cuda":
        return TRIE_ATTENTION
    return "sdpa" if getattr(config, "attention_dropout", 0) else FLEX_ATTENTION


AttentionInterface.register(TRIE_ATTENTION, blocked_attention)
AttentionMaskInterface.register(TRIE_ATTENTION, sdpa_mask)
AttentionInterface.register(FLEX_ATTENTION, flex_trie_attention)
AttentionMaskInterface.register(FLEX_ATTENTION, sdpa_mask)
