"""How much memory training takes, told from a model's config alone: no weights are loaded.

The model is built on torch's meta device, where tensors have shapes and no bytes, under the very adapter that training
gives it: so parameters are counted and not computed. What a forward pass keeps for the backward pass is what autograd
saves there. The formula and what it assumes stand in docs/training.md.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import sdpa_mask

from esckit.hub import allows_code
from esckit.training.adapters import fresh_adapter
from esckit.training.training_options import LoraOptions

_FOUR_BITS: Final = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes a weight: NF4, and a doubly quantised scale for every 64 (Dettmers et al. 2023, section 3)."""

_FLOAT32: Final = 4
_TRACED: Final = "esckit-traced"


class Kept(NamedTuple):
    """The largest forward pass: tokens that are read, positions whose next-token logits are computed."""

    tokens: int
    positions: int


@dataclass(frozen=True)
class Memory:
    """Bytes that a training stage needs at its peak, in one process.

    Attributes:
        weights: of the model, as loaded.
        trained: gradients and AdamW's two moments in float32, and an adapter's own weights.
        reference: a second copy of the adapter.
        activations: of the largest forward pass, as the stage is (with gradient checkpointing or without).
        whole: the same without gradient checkpointing; checkpointed: with it.
        logits: of that pass, with their gradients.
    """

    weights: int
    trained: int
    reference: int
    activations: int
    whole: int
    checkpointed: int
    logits: int

    @property
    def total(self) -> int:
        """All that is held at once."""
        return self.weights + self.trained + self.reference + self.activations + self.logits


class MetaModel:
    """A causal language model without weights, for counting, from transformers' config of it.

    Without ``lora`` every weight is trained; ``four_bits`` are those of the layers' linear weights.
    """

    def __init__(self, config: Any, dtype: torch.dtype, lora: LoraOptions | None, *, four_bits: bool = False) -> None:
        self.config = config.get_text_config()
        self.dtype = dtype
        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(
                copy.deepcopy(config), dtype=dtype, attn_implementation=_TRACED, trust_remote_code=allows_code()
            )
        self.parameters: int = base.num_parameters()
        linear = [m.weight.numel() for name, m in base.named_modules() if _is_quantised(name, m)] if four_bits else []
        self.weights = int((self.parameters - sum(linear)) * dtype.itemsize + sum(linear) * _FOUR_BITS)
        self.model = (base if lora is None else fresh_adapter(base, lora, "adapter").to(dtype)).train()
        self.trained: int = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.own = 0 if lora is None else self.trained * _FLOAT32

    def memory(self, kept: Kept, *, checkpointing: bool, frozen_reference: bool = False) -> Memory:
        """What training needs whose largest forward pass is this one."""
        layers, width = self.config.num_hidden_layers, self.config.hidden_size
        whole = self.activations(kept.tokens)
        between = kept.tokens * width * self.dtype.itemsize  # what goes from one layer to the next
        checkpointed = min(whole, layers * between + whole // layers)
        widened = 0 if self.dtype == torch.float32 else _FLOAT32
        return Memory(
            weights=self.weights,
            trained=self.own + 3 * self.trained * _FLOAT32,
            reference=self.own if frozen_reference else 0,
            activations=checkpointed if checkpointing else whole,
            whole=whole,
            checkpointed=checkpointed,
            # the logits, their float32 copy, and a gradient each of the normaliser and of the chosen tokens
            logits=kept.positions * self.config.vocab_size * (self.dtype.itemsize + widened + 2 * _FLOAT32),
        )

    def activations(self, tokens: int) -> int:
        """Bytes that autograd keeps of a forward pass over so many tokens, without the head."""
        ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
        mask = torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device="meta")
        with saved_bytes(self.model) as saved:
            self.model(input_ids=ids, attention_mask=mask, position_ids=ids, logits_to_keep=1, use_cache=False)
        return saved[0]


def _is_quantised(name: str, module: Any) -> bool:
    """Whether bitsandbytes would store it in four bits: every linear layer but the head."""
    return isinstance(module, torch.nn.Linear) and "lm_head" not in name


@contextmanager
def saved_bytes(model: Any) -> Iterator[list[int]]:
    """Count the bytes that autograd saves meanwhile, each storage once and the model's own weights never."""
    found: dict[int, Tensor] = {}  # holds what it counts, so that no storage's name is used twice
    total = [0]
    own = {storage._cdata for p in (*model.parameters(), *model.buffers()) for storage in [p.untyped_storage()]}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in found and storage._cdata not in own:
            found[storage._cdata] = tensor
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield total


class _Fused(torch.autograd.Function):
    """Saves what a fused attention kernel saves, and computes nothing: on the meta device torch's own is not fused."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, mask, output)
        return output


def _traced_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **_: Any
) -> tuple[Tensor, None]:
    """Attention in transformers' form, as `sdpa_attention_forward` prepares it: heads repeated, the mask in numbers."""
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    output = _Fused.apply(query, key, value, attention_mask.to(query.dtype))  # type: ignore[no-untyped-call]
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(_TRACED, _traced_attention)
AttentionMaskInterface.register(_TRACED, sdpa_mask)
