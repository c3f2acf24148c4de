"""A supporter: a backbone with a planner and a generator, decoupled (an adapter each) or coupled (one for both)."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from esckit.conversation import Conversation
from esckit.errors import ModelError
from esckit.files import read_text, write_json
from esckit.models.backbone import Backbone, Decoding, Reply, load_backbone
from esckit.rendering import Layout, Part, PastStrategies, Renderer
from esckit.strategy import TAXONOMIES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from esckit.conversation import Turn

__all__ = ["FORMAT", "Kind", "Supporter", "SupporterCard", "save_supporter"]

FORMAT = 1
Kind = Literal["coupled", "decoupled"]
ADAPTERS: dict[Kind, tuple[Part, ...]] = {"coupled": ("coupled",), "decoupled": ("planner", "generator")}


@dataclass(frozen=True)
class SupporterCard:
    """What ``supporter.json`` says.

    Attributes:
        kind: coupled, or decoupled.
        past_strategies: what the parts saw in training, and see at inference unless told otherwise.
        base: a Hub id, or a path relative to the file.
        base_hash: SHA-256 of the base's weights.
        max_context: the most tokens of a path.
        layout, taxonomy: names.
    """

    kind: Kind
    past_strategies: PastStrategies
    base: str
    base_hash: str
    max_context: int
    layout: Layout = "shared-prefix"
    taxonomy: str = "esconv"


def save_supporter(folder: Path, card: SupporterCard, adapters: Mapping[str, Path], base: Path | None = None) -> None:
    """Write a supporter folder: ``supporter.json``, each adapter in a subfolder of its name, and the base where given.

    Args:
        folder: made anew.
        card: its ``base`` is ignored where a base folder is given.
        adapters: folder of each adapter, by part.
        base: a backbone's folder to carry along as ``base``, so that the supporter can be moved.
    """
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for part, source in adapters.items():
        shutil.copytree(source, folder / part)
    if base is not None:
        shutil.copytree(base, folder / "base")
    fields = {**card.__dict__, "base": "./base" if base is not None else card.base}
    write_json(folder / "supporter.json", {"format": FORMAT, **fields, "adapters": {part: part for part in adapters}})


def read_card(folder: Path) -> SupporterCard:
    """Read and check ``supporter.json``.

    Raises:
        ModelError: there is none, or it is not one that this version reads.
    """
    import json

    path = folder / "supporter.json"
    try:
        fields = json.loads(read_text(path, what="a supporter folder's supporter.json", error=ModelError))
        if fields.pop("format") != FORMAT:
            raise ModelError(f"{path} has another format than {FORMAT}: install the esckit that wrote it.")
        fields.pop("adapters")
        card = SupporterCard(**fields)
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not a supporter.json ({error}): make the supporter again.") from error
    known = (tuple(ADAPTERS), get_args(PastStrategies), get_args(Layout), tuple(TAXONOMIES))
    named = (card.kind, card.past_strategies, card.layout, card.taxonomy)
    if not all(name in names for name, names in zip(named, known, strict=True)):
        raise ModelError(
            f"{path} names an unknown kind, past_strategies, layout or taxonomy: make the supporter again."
        )
    return card


class Supporter:
    """A loaded supporter.

    Args:
        card: what it is.
        backbone: its ``model`` is a PEFT model with the adapters of the card's kind.
    """

    def __init__(self, card: SupporterCard, backbone: Backbone) -> None:
        self.card = card
        self.backbone = backbone
        self.renderer = Renderer(backbone.tokenizer, TAXONOMIES[card.taxonomy], max_context=card.max_context)

    @classmethod
    def load(cls, folder: Path | str) -> "Supporter":
        """Load a supporter folder.

        Raises:
            ModelError: the folder, its base or its adapters cannot be used, or the base has other weights than the
                adapters were trained on.
        """
        from peft import PeftModel
        from safetensors import SafetensorError

        folder = Path(folder)
        card = read_card(folder)
        local = folder / card.base
        backbone = load_backbone(str(local) if card.base.startswith(".") else card.base)
        if backbone.weights_hash != card.base_hash:
            raise ModelError(
                f"the weights of {backbone.source} are not those that {folder} was trained on: restore them."
            )
        first, *others = ADAPTERS[card.kind]
        try:
            model = PeftModel.from_pretrained(backbone.model, folder / first, adapter_name=first)
            for part in others:
                model.load_adapter(folder / part, adapter_name=part)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"an adapter of {folder} is missing or broken: make the supporter again.") from error
        return cls(card, Backbone(model.eval(), backbone.tokenizer, backbone.source))

    def _as(self, part: Part) -> Any:
        """The model with the adapter that plays this part."""
        self.backbone.model.set_adapter("coupled" if self.card.kind == "coupled" else part)
        return self.backbone.model

    def score(self, conversation: Conversation, turns: "list[Turn]", shown: Mapping[str, str]) -> "NDArray[np.float64]":
        """Log-probabilities (T, K) of the labels at each turn (`planner.score_strategies`)."""
        from esckit.supporters.planner import score_strategies

        return score_strategies(self._as("planner"), self.renderer, conversation, turns, shown)

    def reply(
        self,
        conversation: Conversation,
        turns: "list[Turn]",
        strategies: list[str],
        shown: Mapping[str, str],
        decoding: Decoding,
    ) -> list[Reply]:
        """A reply for each turn under its strategy (`generator.write_replies`)."""
        from esckit.supporters.generator import write_replies

        model = self._as("generator")
        return write_replies(model, self.renderer, conversation, turns, strategies, shown, decoding)
