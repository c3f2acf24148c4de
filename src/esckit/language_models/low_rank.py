"""LoRA's linear layer in one piece: what it adds is scaled on its low-rank side and added in place, dropout drawn fast.

PEFT makes a tensor as wide as the layer for every scaling, addition and mask, forward and backward, which on a CPU
cost as much as many of the matrix products. Values and gradients are PEFT's up to rounding. Layers that read the same
input (queries, keys and values; gate and up) drop the same parts of it. Where a layer is not a plain one (merged, DoRA,
autocast, several adapters at once) PEFT computes it.
"""

from typing import Any, Final, NamedTuple
from weakref import ref

import torch
from peft.tuners.lora import Linear
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

__all__ = ["LastInput", "LowRank", "quicken"]

_SIXTEEN: Final = 2**16
_WIDE: Final = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integer as wide as a float of so many bytes."""


class _Dropped(NamedTuple):
    """An input (n, in) after dropout: what is left of it, which bits of it are kept, and the rate."""

    left: Tensor
    kept: Tensor
    rate: float


class LowRank(Function):
    """``W x + c + s B (g * A x)``, where W and c are frozen and A reads what dropout leaves of x.

    The gates g, a row (r,) of a table for each row of x, are those of a mixture of experts; plain LoRA has none.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        dropped: Any,
        table: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Of x (n, in): (n, out); the table is (P, r), and rows (n,) are which of its rows is whose."""
        low = (x if dropped is None else dropped.left) @ a.T  # (n, r)
        ctx.save_for_backward(x, weight, a, b, low, dropped and dropped.kept, table, rows)
        ctx.scale = scale
        gated = low if table is None else low * table[rows]
        return linear(x, weight, bias).addmm_(gated, b.T, alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Gradients of x, a, b and the table."""
        x, weight, a, b, low, kept, table, rows = ctx.saved_tensors
        needs_x, _, _, needs_a, needs_b, *_ = ctx.needs_input_grad
        grad_low = (grad @ b).mul_(ctx.scale)  # (n, r)
        grad_table = None
        if table is not None:
            gates = table[rows]
            grad_table = torch.zeros_like(table).index_add_(0, rows, grad_low * low)
            grad_low, low = grad_low.mul_(gates), low * gates
        grad_x = grad @ weight if needs_x else None
        if grad_x is not None and kept is None:
            grad_x.addmm_(grad_low, a)
        elif grad_x is not None:
            added = grad_low @ a
            added.view(kept.dtype).bitwise_and_(kept)
            grad_x += added
        grad_a = grad_low.T @ _masked(x, kept) if needs_a else None
        grad_b = (grad.T @ low).mul_(ctx.scale) if needs_b else None
        return grad_x, None, None, grad_a, grad_b, None, None, grad_table, None


def _masked(x: Tensor, kept: Tensor | None) -> Tensor:
    return x if kept is None else x.view(kept.dtype).bitwise_and(kept).view(x.dtype)


def _drop(x: Tensor, rate: float) -> _Dropped:
    """Dropout of x (n, in) without scaling, from 16 random bits an element; the rate is rounded to them.

    A kept element has all bits set in an integer of its width, a dropped one none: a CPU applies that many times
    faster than a mask of bools.
    """
    drops = min(_SIXTEEN - 1, max(1, round(rate * _SIXTEEN)))
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    last = drops - _SIXTEEN // 2 - 1  # the largest number that drops
    numbers = words.view(torch.int16)[: x.numel()].to(torch.int32)
    kept = numbers.neg_().add_(last).bitwise_right_shift_(31).to(_WIDE[x.element_size()]).view(x.shape)
    return _Dropped(_masked(x, kept), kept, drops / _SIXTEEN)


class LastInput:
    """What was dropped of the input that a model's layers read last."""

    def __init__(self) -> None:
        self._of: Any = None
        self._rate = 0.0
        self._dropped: _Dropped | None = None

    def drop(self, x: Tensor, rate: float) -> _Dropped:
        """Of x (..., in), the same for the layers that read it one after the other."""
        if self._dropped is None or self._of is None or self._of() is not x or self._rate != rate:
            self._of, self._rate = ref(x), rate
            self._dropped = _drop(x.detach().reshape(-1, x.shape[-1]), rate)
        return self._dropped


class _QuickLinear(Linear):
    """PEFT's layer, computed in one piece where that is the same."""

    last_input: LastInput

    def forward(self, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        """See `torch.nn.Linear`."""
        base = self.get_base_layer()
        own = self.active_adapters[0] if len(self.active_adapters) == 1 else None
        plain = (
            own in self.lora_A
            and not (arguments or options or self.disable_adapters or self.merged)
            and own not in self.lora_variant
            and self.lora_A[own].weight.dtype == base.weight.dtype == x.dtype
            and self.lora_B[own].bias is None
            and not (base.weight.requires_grad or (not x.is_meta and torch.is_autocast_enabled(x.device.type)))
        )
        if not plain:
            return super().forward(x, *arguments, **options)  # type: ignore[no-any-return]
        scale, dropped = self.scaling[own], None
        if self.training and (rate := getattr(self.lora_dropout[own], "p", 0.0)):
            dropped = self.last_input.drop(x, rate)
            scale /= 1 - dropped.rate
        a, b = self.lora_A[own].weight, self.lora_B[own].weight
        flat = x.reshape(-1, x.shape[-1])
        found: Tensor = LowRank.apply(flat, base.weight, base.bias, a, b, scale, dropped)  # type: ignore[no-untyped-call]
        return found.view(*x.shape[:-1], -1)


def quicken(model: Any) -> Any:
    """The PEFT model, its plain LoRA layers in one piece."""
    last_input = LastInput()
    for module in model.modules():
        if type(module) is Linear and type(module.get_base_layer()) is torch.nn.Linear:
            module.__class__ = _QuickLinear
            module.last_input = last_input
    return model
