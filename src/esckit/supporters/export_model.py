"""A supporter's language model as a folder of its own: an adapter merged into its base, for other tools."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

import torch

from esckit.errors import ModelError
from esckit.files import atomic, write_json
from esckit.language_models.backbone import Backbone, load_backbone
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


def export_model(source: Path | str, out: Path | str, part: Part | None = None, stored: Stored = "float32") -> Exported:
    """Write a whole model that transformers loads: weights in safetensors, tokenizer, chat template.

    ``esckit.json`` beside them says what it is made of, and how its prompts have to be rendered.

    Args:
        source: a supporter's folder with language-model parts; or any model that can be loaded, such as an adapter's
            folder or a GGUF file.
        out: the folder to write anew.
        part: of a supporter; None is the one that words its replies, else the only one.
        stored: the number format of the weights.

    Raises:
        ModelError: the supporter has no such part, or four-bit weights; or the model cannot be loaded.
        EsckitError: the folder cannot be written.
    """
    source, out = Path(source), Path(out)
    card = read_card(source) if (source / "supporter.json").exists() else None
    if card is None and part:
        raise ModelError(f"{source} is no supporter and has no parts: leave out --part.")
    chosen = None if card is None else _part(source, card, part)
    backbone = load_backbone(str(source)) if card is None else _merged(source, card, str(chosen))
    kind = "model" if card is None else card.kind
    record: dict[str, Any] = {"part": chosen, "kind": kind, "base": backbone.source, "base_hash": None}
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


def _merged(folder: Path, card: SupporterCard, part: str) -> Backbone:
    from peft import PeftModel

    if card.quantisation:
        raise ModelError(
            f"{folder} stands on four-bit weights, into which no adapter is merged: train it without them."
        )
    backbone = load_base(folder, card)
    model = PeftModel.from_pretrained(backbone.model, folder / part).merge_and_unload()
    return Backbone(model, backbone.tokenizer, backbone.source)


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
