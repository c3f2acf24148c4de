"""A supporter: a planner and a generator, and the folder that they are loaded from.

``supporter.json`` says what each is. Language-model parts are adapters on one backbone, ``coupled`` (one adapter for
both) or ``decoupled`` (one each); a planner may be an encoder instead, and a generator a store of human replies.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from esckit.conversation import Conversation, Turn
from esckit.decoding import Decoding
from esckit.errors import ModelError
from esckit.files import atomic, hash_file, read_text, write_json
from esckit.language_models.backbone import Backbone, Quantisation, Reply, load_backbone
from esckit.rendering import Layout, Part, PastStrategies, Renderer
from esckit.strategy import TAXONOMIES, Taxonomy
from esckit.supporters.parts import Generator, LanguageParts, Planner, Shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FORMAT", "Kind", "Supporter", "SupporterCard", "save_supporter"]

FORMAT = 1
_ADAPTER = "adapter_model.safetensors"
Kind = Literal["coupled", "decoupled"]
PlannerKind = Literal["language", "encoder"]
GeneratorKind = Literal["language", "retrieval", "none"]


@dataclass(frozen=True)
class SupporterCard:
    """What ``supporter.json`` says.

    Attributes:
        kind: coupled, or decoupled.
        past_strategies: what the planner sees at inference unless told otherwise, as in training.
        base: of language-model parts: a Hub id, or a path relative to the file; None where there are none.
        base_hash: SHA-256 of the base's weights.
        adapter_hashes: SHA-256 of each adapter's file; None in a folder that was written before there were any.
        max_context: the most tokens of a path.
        layout, taxonomy: names.
        planner: an adapter on the base, or an encoder's folder.
        generator: an adapter on the base, a reply store's folder, or none: then only strategies are predicted.
        calibrated: an encoder planner's scores with its calibration.
        quantisation: how the base's weights are stored, as in training.
    """

    kind: Kind
    past_strategies: PastStrategies
    base: str | None = None
    base_hash: str | None = None
    max_context: int | None = None
    layout: Layout = "shared-prefix"
    taxonomy: str = "esconv"
    planner: PlannerKind = "language"
    generator: GeneratorKind = "language"
    calibrated: bool = True
    quantisation: Quantisation | None = None
    adapter_hashes: Mapping[str, str] | None = None

    @property
    def adapters(self) -> tuple[Part, ...]:
        """The adapters on the base."""
        if self.kind == "coupled":
            return ("coupled",)
        parts: tuple[tuple[Part, str], ...] = (("planner", self.planner), ("generator", self.generator))
        return tuple(part for part, kind in parts if kind == "language")


def save_supporter(folder: Path, card: SupporterCard, parts: Mapping[str, Path], base: Path | None = None) -> None:
    """Write a supporter folder: ``supporter.json``, each part in a subfolder of its name, and the base where given.

    Args:
        folder: made anew.
        card: its ``base`` is ignored where a base folder is given, and its ``adapter_hashes`` are taken here.
        parts: the folder of each adapter, encoder planner or reply store, by part.
        base: a backbone's folder to carry along as ``base``, so that the supporter can be moved.
    """
    hashes = {part: hash_file(parts[part] / _ADAPTER) for part in card.adapters}
    fields = {**asdict(card), "base": "./base" if base is not None else card.base, "adapter_hashes": hashes}
    with atomic(folder) as temporary:
        temporary.mkdir()
        for part, source in parts.items():
            shutil.copytree(source, temporary / part)
        if base is not None:
            shutil.copytree(base, temporary / "base")
        described = {"format": FORMAT, **fields, "adapters": {p: p for p in card.adapters}}
        write_json(temporary / "supporter.json", described)


def read_card(folder: Path) -> SupporterCard:
    """Read and check ``supporter.json``.

    Raises:
        ModelError: there is none, or it is not one that this version reads.
    """
    path = folder / "supporter.json"
    try:
        fields = json.loads(read_text(path, what="a supporter folder's supporter.json", error=ModelError))
        if fields.pop("format") != FORMAT:
            raise ModelError(f"{path} has another format than {FORMAT}: install the esckit that wrote it.")
        fields.pop("adapters")
        card = SupporterCard(**fields)
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not a supporter.json ({error}): make the supporter again.") from error
    known = (Kind, PastStrategies, Layout, PlannerKind, GeneratorKind)
    named = (card.kind, card.past_strategies, card.layout, card.planner, card.generator)
    if card.taxonomy not in TAXONOMIES or any(n not in get_args(k) for n, k in zip(named, known, strict=True)):
        raise ModelError(f"{path} names an unknown kind, part, layout or taxonomy: make the supporter again.")
    if card.quantisation not in (None, *get_args(Quantisation)):
        raise ModelError(f"{path} names an unknown quantisation: make the supporter again.")
    if card.adapters and None in (card.base, card.base_hash, card.max_context):
        raise ModelError(f"{path} names no base for its adapters: make the supporter again.")
    return card


class Supporter:
    """A loaded supporter.

    Args:
        card: what it is.
        planner: chooses the strategy.
        generator: words the reply; None plans only.
    """

    def __init__(self, card: SupporterCard, planner: Planner, generator: Generator | None) -> None:
        self.card = card
        self.planner = planner
        self.generator = generator

    @classmethod
    def load(cls, folder: Path | str) -> "Supporter":
        """Load a supporter folder.

        Raises:
            ModelError: the folder, its base or its parts cannot be used, or base or encoder have other weights than
                those that the parts were trained on.
        """
        folder = Path(folder)
        card = read_card(folder)
        language = _load_language(folder, card) if card.adapters else None
        planner: Planner | None = language
        generator: Generator | None = language
        if card.planner == "encoder":
            from esckit.planning.encoder_planner import EncoderPlanner

            loaded = EncoderPlanner.load(folder / "planner")
            planner = loaded if card.calibrated else loaded.uncalibrated
        if card.generator == "retrieval":
            from esckit.supporters.retrieval import ReplyStore

            generator = ReplyStore.load(folder / "generator")
        assert planner is not None
        return cls(card, planner, None if card.generator == "none" else generator)

    @property
    def taxonomy(self) -> Taxonomy:
        """Its strategies."""
        return TAXONOMIES[self.card.taxonomy]

    @property
    def identity(self) -> list[Any]:
        """JSON-ready; changes with anything that its answers depend on."""
        return [asdict(self.card), self.planner.identity, self.generator and self.generator.identity]

    @property
    def about(self) -> str | None:
        """What a person who talks to it must know of its replies; None where it only plans."""
        return None if self.generator is None else self.generator.about

    def score(self, conversation: Conversation, turns: Sequence[Turn], shown: Shown) -> "NDArray[np.float64]":
        """Log-probabilities (T, K) of the labels at each turn, of which only what stands before is read."""
        return self.planner.score(conversation, turns, shown)

    def reply(
        self, conversation: Conversation, turns: Sequence[Turn], strategies: Sequence[str], shown: Shown, how: Decoding
    ) -> list[Reply]:
        """A reply for each turn under its strategy.

        Raises:
            ModelError: it only plans.
        """
        if self.generator is None:
            raise ModelError("this supporter only plans: give it a generator.")
        return self.generator.reply(conversation, turns, strategies, shown, how)


def _load_language(folder: Path, card: SupporterCard) -> LanguageParts:
    """Load base and adapters."""
    from peft import PeftModel
    from safetensors import SafetensorError

    assert card.base is not None
    assert card.max_context is not None
    source = str(folder / card.base) if card.base.startswith(".") else card.base
    backbone = load_backbone(source, quantisation=card.quantisation)
    if backbone.weights_hash != card.base_hash:
        raise ModelError(f"the weights of {backbone.source} are not those that {folder} was trained on: restore them.")
    first, *others = card.adapters
    try:
        model = PeftModel.from_pretrained(backbone.model, folder / first, adapter_name=first)
        for part in others:
            model.load_adapter(folder / part, adapter_name=part)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"an adapter of {folder} is missing or broken: make the supporter again.") from error
    for adapter, wanted in (card.adapter_hashes or {}).items():
        if hash_file(folder / adapter / _ADAPTER) != wanted:
            raise ModelError(
                f"{folder / adapter} is not the adapter that {folder} was made with and may belong to another base: "
                "restore it, or make the supporter again."
            )
    taxonomy = TAXONOMIES[card.taxonomy]
    renderer = Renderer(backbone.tokenizer, taxonomy, max_context=card.max_context, layout=card.layout)
    adapted = Backbone(model.eval(), backbone.tokenizer, backbone.source)
    return LanguageParts(adapted, renderer, coupled=card.kind == "coupled")
