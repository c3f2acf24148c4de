"""A supporter's language model as a folder of its own: an adapter merged into its base, for other tools."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

import torch

from esckit.errors import ModelError
from esckit.files import atomic, write_json
from esckit.language_models.backbone import Backbone, load_backbone
from esckit.language_models.folders import adapter_base
from esckit.rendering import Part
from esckit.rendering.layouts import system_text
from esckit.strategy import TAXONOMIES
from esckit.supporters.supporter_folder import SupporterCard, load_base, read_card

__all__ = ["Exported", "Stored", "export_model"]

Stored = Literal["float32", "bfloat16", "float16"]
RECORD: Final = "esckit.json"


class Exported(NamedTuple):
    """Which part was written (None: the model has none), on which base, and how many parameters it has."""

    part: Part | None
    base: str
    parameters: int


def export_model(
    source: Path | str,
    out: Path | str,
    part: Part | None = None,
    stored: Stored = "float32",
    members: Mapping[str, str] | None = None,
) -> Exported:
    """Write a whole model that transformers loads: weights in safetensors, tokenizer, chat template.

    ``esckit.json`` beside them says what it is made of, and how its prompts have to be rendered.

    Args:
        source: a supporter's folder with language-model parts; or any model that can be loaded, such as an adapter's
            folder or a GGUF file.
        out: the folder to write anew.
        part: of a supporter; None is the one that words its replies, else the only one.
        stored: the number format of the weights.
        members: of an adapter of experts: the role, the strategy or both that it is merged under.

    Raises:
        ModelError: the supporter has no such part, or four-bit weights; or the model cannot be loaded; or it has
            experts and no members are given, or members and no experts.
        CorpusError: there are no experts for a member.
        EsckitError: the folder cannot be written.
    """
    source, out = Path(source), Path(out)
    card = read_card(source) if (source / "supporter.json").exists() else None
    if card is None and part:
        raise ModelError(f"{source} is no supporter and has no parts: leave out --part.")
    chosen = None if card is None else _part(source, card, part)
    if card is not None:
        backbone = _of_supporter(source, card, str(chosen), members)
    elif members:
        base = adapter_base(str(source))
        if base is None:
            raise ModelError(f"{source} has no experts to choose from: leave role and strategy out.")
        backbone = _merged(load_backbone(base), source, members)
    else:
        backbone = load_backbone(str(source))
    kind = "model" if card is None else card.kind
    record: dict[str, Any] = {"part": chosen, "kind": kind, "base": backbone.source, "base_hash": None}
    record |= members or {}
    if card is not None and chosen is not None:
        system = system_text(card.layout, chosen, TAXONOMIES[card.taxonomy], "STRATEGY")
        record |= {"base_hash": card.base_hash, "layout": card.layout, "past_strategies": card.past_strategies}
        record |= {"taxonomy": card.taxonomy, "max_context": card.max_context, "system": system}
    _write(backbone, out, stored, record)
    return Exported(chosen, backbone.source, sum(weights.numel() for weights in backbone.model.parameters()))


def _part(folder: Path, card: SupporterCard, wanted: Part | None) -> Part:
    if not card.adapters:
        raise ModelError(f"{folder} has no language model to write: name a supporter that has one.")
    if wanted is None:
        return card.adapters[-1]  # the generator comes last
    if wanted not in card.adapters:
        raise ModelError(f"{folder} has no adapter of the part {wanted}: choose {' or '.join(card.adapters)}.")
    return wanted


def _of_supporter(folder: Path, card: SupporterCard, part: str, members: Mapping[str, str] | None) -> Backbone:
    if card.quantisation:
        raise ModelError(
            f"{folder} stands on four-bit weights, into which no adapter is merged: train it without them."
        )
    return _merged(load_base(folder, card), folder / part, members)


def _merged(backbone: Backbone, adapter: Path, members: Mapping[str, str] | None) -> Backbone:
    from peft import PeftModel

    from esckit.language_models.experts import experts_of

    model = PeftModel.from_pretrained(backbone.model, adapter)
    tuner = experts_of(model)
    if tuner is None and members:
        raise ModelError(f"{adapter} has no experts to choose from: leave role and strategy out.")
    if tuner is not None:
        tuner.fix(**members or {})
    return Backbone(model.merge_and_unload(), backbone.tokenizer, backbone.source)


def _write(backbone: Backbone, out: Path, stored: Stored, record: Mapping[str, Any]) -> None:
    from transformers import GenerationConfig

    model, tokenizer = backbone.model, backbone.tokenizer
    assert stored in get_args(Stored)
    model = model.to(getattr(torch, stored))
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model.generation_config = GenerationConfig(**ends)
    with atomic(out) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_json(folder / RECORD, {"format": 1, "stored": stored, **record})
