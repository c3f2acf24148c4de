"""LoRA adapters of a recipe's parts: made, loaded, put under a frozen reference, saved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from re import search
from typing import Any, Final, NamedTuple

from torch.nn import Linear
from transformers.pytorch_utils import Conv1D

from esckit.errors import EsckitError
from esckit.language_models.backbone import Backbone, Quantisation, load_backbone
from esckit.language_models.low_rank import quicken
from esckit.training.references import Reference, adapter_off, frozen_adapter
from esckit.training.training_options import ExpertsOptions, LoraOptions, PreferenceOptions

_FROZEN: Final = "reference"  # name of the SFT adapter's second copy


class Policy(NamedTuple):
    """What is aligned: a PEFT model with the trained adapter active, and the model that it started from."""

    model: Any
    reference: Reference


def last_layers(model: Any, count: int) -> list[str]:
    """Names of the linear layers in a model's last ``count`` blocks; what is below them needs no gradient.

    Raises:
        EsckitError: the model has fewer.
    """
    blocks = int(model.config.get_text_config().num_hidden_layers)
    if count > blocks:
        raise EsckitError(f"lora.layers is {count}, and the model has {blocks} layers: say at most {blocks}, or none.")
    numbered = [
        (int(number[1]), name)
        for name, module in model.named_modules()
        if isinstance(module, Linear | Conv1D) and (number := search(r"\.(\d+)\.", name))
    ]
    return [name for number, name in numbered if number >= blocks - count]


def fresh_adapter(model: Any, lora: LoraOptions, part: str) -> Any:
    """The model under a new LoRA adapter, which changes nothing yet."""
    from peft import LoraConfig, get_peft_model

    sizes = {"r": lora.r, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    targets = last_layers(model, lora.layers) if lora.layers else "all-linear"
    config = LoraConfig(**sizes, target_modules=targets, task_type="CAUSAL_LM")
    return quicken(get_peft_model(model, config, adapter_name=part))


def fresh_experts(
    model: Any,
    lora: LoraOptions,
    experts: ExpertsOptions,
    members: Mapping[str, Sequence[str]],
    part: str,
    *,
    bank: str | None = None,
    described: Any = None,
) -> Any:
    """The model under a new mixture of experts, which changes nothing yet.

    Args:
        lora: rank, alpha and dropout of the experts, and which layers they adapt.
        members: of each group of ``experts.groups``.
        bank: digest of the bank that roles are of.
        described: embeddings (M, d) of the members, groups in the order of the alphabet, where they are described.

    Raises:
        ModelError: a group has more experts than members, or a rank that they cannot share.
    """
    from peft import get_peft_model

    from esckit.language_models.experts import ExpertsConfig, experts_of

    size = experts.embedding_size if described is None else described.shape[-1]
    config = ExpertsConfig(
        r=lora.r,
        alpha=lora.alpha,
        dropout=lora.dropout,
        target_modules=last_layers(model, lora.layers) if lora.layers else "all-linear",
        groups={name: {"members": list(members[name]), "experts": count} for name, count in experts.groups.items()},
        embedding_size=size,
        bank=bank,
        task_type="CAUSAL_LM",
        **experts.model_dump(include={"gates", "scaling", "rank", "embeddings", "gate_scope"}),
    )
    made = get_peft_model(model, config, adapter_name=part)
    tuner = experts_of(made)
    if described is not None and tuner is not None:
        tuner.describe(part, described)
    return made


def open_adapter(
    backbone: Backbone, folder: Path, part: str, *, name: str | None = None, trainable: bool = False
) -> Any:
    """The backbone's model under a part's saved adapter (called ``name`` there), in evaluation mode."""
    from peft import PeftModel

    from esckit.language_models import experts  # noqa: F401 - PEFT knows the tuner once it is imported

    model = PeftModel.from_pretrained(backbone.model, folder / part, adapter_name=name or part, is_trainable=trainable)
    return quicken(model).eval()


def load_policy(
    source: str, start: Path, part: str, form: str, lora: LoraOptions, quantisation: Quantisation | None = None
) -> tuple[Backbone, Policy]:
    """Load what preference learning starts from, with its reference.

    Args:
        source: the backbone's.
        start: the folder that holds the adapter of the model after SFT, in a subfolder of the part's name.
        form: see `PreferenceOptions.reference`; ``stored`` loads as ``frozen`` does.
        lora: of the fresh adapter where SFT is merged.
    """
    backbone = load_backbone(source, quantisation=quantisation)
    model = open_adapter(backbone, start, part, trainable=form != "merged")
    if form == "merged":
        return backbone, Policy(fresh_adapter(model.merge_and_unload(), lora, part), adapter_off)
    model.load_adapter(start / part, adapter_name=_FROZEN)
    return backbone, Policy(model, frozen_adapter(part, _FROZEN))


def save_adapter(model: Any, folder: Path, part: str) -> None:
    """Write one adapter into the folder's subfolder ``part``."""
    model.save_pretrained(str(folder), selected_adapters=[part])


def save_policy(policy: Policy, source: str, start: Path, folder: Path, part: str, options: PreferenceOptions) -> None:
    """Write an aligned adapter as one on the plain base.

    A fresh adapter over merged SFT is written together with the SFT adapter: their matrices side by side are one
    adapter, with the sum of their ranks, and the same model up to rounding.
    """
    if options.reference != "merged":
        save_adapter(policy.model, folder, part)
        return
    save_adapter(policy.model, folder / "over-merged", part)
    both = open_adapter(load_backbone(source), start, part, name="sft")
    both.load_adapter(folder / "over-merged" / part, adapter_name="over-merged")
    both.add_weighted_adapter(["sft", "over-merged"], [1.0, 1.0], part, combination_type="cat")
    save_adapter(both, folder, part)
