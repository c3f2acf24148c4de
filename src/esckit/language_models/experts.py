"""Groups of LoRA experts behind gates (Group MoELoRA; Empath, section 5.1), as a tuner of PEFT.

An adapted layer gives ``W0 x + sum over groups of s sum_k w_k B_k A_k x`` (equation 6). A group's gates are the softmax
of a linear map of its member's embedding (equations 4 and 5); its members are roles, strategies, or any others. They do
not depend on x, so under one pair of members the mixture is exactly one LoRA (`adapter_export`). What a token is read
under is a number of `rendering.gates`; under none of a group its experts add nothing, and under none of any the model
is the base.

Where the paper and its ancestor Neeko differ, a switch says which: see `ExpertsConfig`. All experts of a layer stand
side by side, with the matrix products of a plain LoRA of their total rank.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Final

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from peft.utils import register_peft_method
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from esckit.errors import ModelError
from esckit.language_models.experts_config import NAME, ExpertsConfig
from esckit.language_models.low_rank import LastInput, LowRank
from esckit.rendering.gates import Gates

__all__ = ["ExpertsConfig", "ExpertsLinear", "ExpertsModel", "experts_of"]

_NO_PAIR: Final = "experts are merged under one pair: say a role, a strategy or both first (fix; --role, --strategy)."
_EMBEDDING_STD: Final = 1.0
"""Of learned embeddings; gates begin near uniform, as their linear map begins small."""


class Reading:
    """What the model is being read under, shared by its adapted layers.

    Attributes:
        pairs: (B, N) of the pass that is on or was last, so that gradient checkpointing can repeat it; None: ``fixed``.
        fixed: the pair of a pass that is told none, and of merging.
        leads: by adapter, the layer that holds what all share: the embeddings, and shared gates.
    """

    def __init__(self) -> None:
        self.pairs: Tensor | None = None
        self.fixed = 0
        self.leads: dict[str, ExpertsLinear] = {}
        self.last_input = LastInput()


class ExpertsLinear(nn.Module, BaseTunerLayer):
    """A linear layer under groups of experts."""

    adapter_layer_names = ("experts_A", "experts_B", "experts_gate", "experts_embedding")
    other_param_names = ("experts_config",)

    if TYPE_CHECKING:  # what PEFT's class has, which has no types

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, base_layer: nn.Module, reading: Reading) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.experts_A = nn.ParameterDict()  # (R, in)
        self.experts_B = nn.ParameterDict()  # (out, R)
        self.experts_gate = nn.ParameterDict()  # (E, d)
        self.experts_embedding = nn.ParameterDict()  # (M, d)
        self.experts_config: dict[str, ExpertsConfig] = {}
        self.frozen_peft_weight_names: dict[str, tuple[str, ...]] = {}
        self._reading = reading
        self._tables: dict[str, tuple[Any, Tensor]] = {}
        self._merged_pairs: list[int] = []
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def add(self, name: str, config: ExpertsConfig, *, inference_mode: bool) -> None:
        """A new adapter, whose B is zero: it changes nothing yet."""
        layer, layout = self.get_base_layer(), config.layout
        size_in, size_out = _sizes(layer)
        a = torch.empty(layout.rank, size_in)
        nn.init.kaiming_uniform_(a, a=5**0.5)
        self.experts_A[name] = nn.Parameter(a)
        self.experts_B[name] = nn.Parameter(torch.zeros(size_out, layout.rank))
        lead = self._reading.leads.setdefault(name, self)
        if lead is self or config.gates == "per_module":
            gate = torch.empty(layout.experts, config.embedding_size)
            self.experts_gate[name] = nn.Parameter(nn.init.normal_(gate, std=config.embedding_size**-1.0))
        if lead is self:
            embedding = torch.empty(layout.members, config.embedding_size)
            self.experts_embedding[name] = nn.Parameter(nn.init.normal_(embedding, std=_EMBEDDING_STD))
            if config.embeddings == "described":
                self.frozen_peft_weight_names[name] = ("experts_embedding",)
        self.experts_config[name] = config
        self._move_adapter_to_device_of_base_layer(name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def table(self, name: str) -> Tensor:
        """`Layout.table` of an adapter's gates here, (P, R); without gradients it is kept until a weight changes."""
        lead = self._reading.leads[name]
        embedding = lead.experts_embedding[name]
        gate = self.experts_gate[name] if name in self.experts_gate else lead.experts_gate[name]
        layout = self.experts_config[name].layout
        if torch.is_grad_enabled():
            return layout.table(embedding, gate)
        key = (embedding._version, gate._version, id(embedding), id(gate), gate.dtype, gate.device)
        if self._tables.get(name, (None,))[0] != key:
            self._tables[name] = (key, layout.table(embedding, gate))
        return self._tables[name][1]

    def _rows(self, tokens: int, device: torch.device) -> Tensor:
        """Which pair each of the tokens is read under, (tokens,)."""
        pairs = self._reading.pairs
        if pairs is None:
            return torch.full((tokens,), self._reading.fixed, device=device)
        if pairs.numel() != tokens:
            raise ModelError(
                f"experts were told the pairs of {pairs.numel()} tokens, and a layer reads {tokens}: adapt the layers "
                "that read every token once (target_modules)."
            )
        return pairs.reshape(-1).to(device)

    def forward(self, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        """Of x (..., in): (..., out)."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        names = [] if self.disable_adapters or self.merged else [n for n in self.active_adapters if n in self.experts_A]
        if not names or (self._reading.pairs is None and self._reading.fixed == 0):
            return self.base_layer(x, *arguments, **options)  # type: ignore[no-any-return]
        rows = self._rows(x.numel() // x.shape[-1], x.device)
        if len(names) == 1 and not (arguments or options) and self._is_plain(x, names[0]):
            return self._quick(x, names[0], rows)
        result = self.base_layer(x, *arguments, **options)
        for name in names:
            config, a = self.experts_config[name], self.experts_A[name]
            seen = nn.functional.dropout(self._cast_input_dtype(x, a.dtype), config.dropout, self.training)
            low = linear(seen, a) * self.table(name)[rows].view(*x.shape[:-1], -1)
            result = result + linear(low.to(a.dtype), self.experts_B[name]).to(result.dtype)
        return result  # type: ignore[no-any-return]

    def _is_plain(self, x: Tensor, name: str) -> bool:
        base = self.get_base_layer()
        return (
            type(base) is nn.Linear
            and self.experts_A[name].dtype == base.weight.dtype == x.dtype
            and not (base.weight.requires_grad or (not x.is_meta and torch.is_autocast_enabled(x.device.type)))
        )

    def _quick(self, x: Tensor, name: str, rows: Tensor) -> Tensor:
        """The same in one piece (`low_rank`)."""
        base, dropped, scale = self.get_base_layer(), None, 1.0
        if self.training and (rate := self.experts_config[name].dropout):
            dropped = self._reading.last_input.drop(x, rate)
            scale = 1 / (1 - dropped.rate)
        flat = x.reshape(-1, x.shape[-1])
        a, b = self.experts_A[name], self.experts_B[name]
        found: Tensor = LowRank.apply(flat, base.weight, base.bias, a, b, scale, dropped, self.table(name), rows)  # type: ignore[no-untyped-call]
        return found.view(*x.shape[:-1], -1)

    def as_lora(self, name: str, pair: int) -> tuple[Tensor, Tensor]:
        """A (R, in) and B (out, R) of the one LoRA, of scale 1, that an adapter is under a pair."""
        with torch.no_grad():
            return self.experts_A[name].detach(), self.experts_B[name].detach() * self.table(name)[pair]

    def get_delta_weight(self, name: str, pair: int | None = None) -> Tensor:
        """What an adapter adds to the weights under a pair, by default the fixed one."""
        a, b = self.as_lora(name, self._reading.fixed if pair is None else pair)
        delta = (b.float() @ a.float()).to(b.dtype) if b.dtype in (torch.float16, torch.bfloat16) else b @ a
        return delta.T if isinstance(self.get_base_layer(), Conv1D) else delta

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the active adapters to the base's weights, under the fixed pair (`ExpertsModel.fix`).

        Raises:
            ModelError: no pair is fixed, so there would be nothing to add.
            ValueError: ``safe_merge``, and a weight would not be finite.
        """
        if self._reading.fixed == 0:
            raise ModelError(_NO_PAIR)
        for name in check_adapters_to_merge(self, adapter_names):
            if name in self.experts_A:
                base = self.get_base_weight()
                weight = (base + self.get_delta_weight(name)).to(base.dtype)
                if safe_merge and not torch.isfinite(weight).all():
                    raise ValueError(f"NaNs detected in the merged weights. The adapter {name} seems to be broken")
                self.set_base_weight(weight)
                self.merged_adapters.append(name)
                self._merged_pairs.append(self._reading.fixed)

    def unmerge(self) -> None:
        """Take what was merged out again, under the pair that it was merged under."""
        while self.merged_adapters:
            name, pair = self.merged_adapters.pop(), self._merged_pairs.pop()
            if name in self.experts_A:
                base = self.get_base_weight()
                self.set_base_weight((base - self.get_delta_weight(name, pair)).to(base.dtype))

    def delete_adapter(self, adapter_name: str) -> None:
        """See `BaseTunerLayer.delete_adapter`."""
        super().delete_adapter(adapter_name)
        self._tables.pop(adapter_name, None)
        self._reading.leads.pop(adapter_name, None)


def _sizes(layer: Any) -> tuple[int, int]:
    """How many features a linear layer reads and gives."""
    if isinstance(layer, Conv1D):
        return layer.weight.shape[0], layer.weight.shape[1]
    return layer.in_features, layer.out_features


class ExpertsModel(BaseTuner):
    """A causal language model whose linear layers are under groups of experts.

    Its forward takes ``pairs`` (B, N), what each token is read under; without them, all are read under the pair that is
    fixed (`fix`), at first none.
    """

    prefix = "experts_"
    tuner_layer_cls = ExpertsLinear
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}
    uses_shared_state = True
    takes_pairs = True

    def _pre_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        self.reading = Reading()
        self._hook = model.register_forward_pre_hook(self._take_pairs, with_kwargs=True)

    def _take_pairs(self, module: nn.Module, arguments: Any, options: dict[str, Any]) -> Any:
        self.reading.pairs = options.pop("pairs", None)
        return arguments, options

    def _create_and_replace(
        self,
        config: ExpertsConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **options: Any,
    ) -> None:
        active = adapter_name in self.active_adapters and not config.inference_mode
        layer = target
        if not isinstance(layer, ExpertsLinear):
            base: Any = target
            if not (isinstance(base, nn.Linear | Conv1D) or hasattr(base, "in_features")):
                raise ModelError(f"experts adapt linear layers, and {current_key} is none: leave it out.")
            layer = ExpertsLinear(base, self.reading)
            layer._active_adapter = self.active_adapters
            self._replace_module(parent, target_name, layer, base)
        layer.add(adapter_name, config, inference_mode=not active)

    def _unload_and_optionally_merge(self, *arguments: Any, **options: Any) -> Any:
        if options.get("merge", True) and self.reading.fixed == 0:
            raise ModelError(_NO_PAIR)
        found = super()._unload_and_optionally_merge(*arguments, **options)
        self._hook.remove()  # not before: a layer may refuse
        return found

    def gates_of(self, adapter: str) -> Gates:
        """Pairs of an adapter's members."""
        config: Any = self.peft_config[adapter]
        gates: Gates = config.as_gates
        return gates

    def fix(self, **members: str | None) -> int:
        """Read and merge all under one pair from now on, unless a pass is told others; nothing named fixes none.

        Raises:
            CorpusError: there is no such member.
        """
        self.reading.fixed = self.gates_of(self.active_adapters[0]).pair(members)
        return self.reading.fixed

    def describe(self, adapter: str, embedding: Tensor) -> None:
        """Set an adapter's embeddings (M, d), of its groups' members in order."""
        own = self.reading.leads[adapter].experts_embedding[adapter]
        with torch.no_grad():
            own.copy_(embedding)

    def gate_use(self, adapter: str) -> dict[str, dict[str, Any]]:
        """How an adapter's gates are used, by group: each member's entropy in bits (0: one expert, log2 n: all alike),
        and each expert's mean weight over members; with a gate a layer, means over layers."""
        config: Any = self.peft_config[adapter]
        layers = [m for m in self.model.modules() if isinstance(m, ExpertsLinear) and adapter in m.experts_gate]
        embedding = self.reading.leads[adapter].experts_embedding[adapter]
        with torch.no_grad():
            each = [config.layout.weights(embedding.float(), m.experts_gate[adapter].float()) for m in layers]
        found = {}
        for (name, group), own in zip(config.as_groups.items(), zip(*each, strict=True), strict=True):
            weights = torch.stack(own)  # (layers, members, experts)
            entropy = -(weights * weights.clamp_min(1e-12).log2()).sum(-1).mean(0)  # (members,)
            found[name] = {
                "entropy_bits": dict(zip(group.members, (round(x, 4) for x in entropy.tolist()), strict=True)),
                "use": [round(x, 4) for x in weights.mean((0, 1)).tolist()],
            }
        return found


def experts_of(model: Any) -> ExpertsModel | None:
    """The mixture that a PEFT model is; None for any other model."""
    tuner = getattr(getattr(model, "module", model), "base_model", None)
    return tuner if isinstance(tuner, ExpertsModel) else None


register_peft_method(name=NAME, config_cls=ExpertsConfig, model_cls=ExpertsModel, prefix=ExpertsModel.prefix)
