"""A supporter's folder: ``supporter.json`` says what its parts are, and each part lies in a subfolder of its name.

Language-model parts are adapters on one backbone, ``coupled`` (one adapter for both) or ``decoupled`` (one each); a
planner may be an encoder instead, and a generator a store of human replies. An ``empath`` has a role matcher besides.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import ValidationError

from esckit.errors import ModelError
from esckit.files import atomic, hash_file, read_text, write_json
from esckit.language_models.backbone import Backbone, Quantisation, load_backbone
from esckit.rendering import Layout, Part, PastStrategies, Renderer
from esckit.rendering.gates import Gates
from esckit.strategy import TAXONOMIES
from esckit.supporters.language_parts import LanguageParts, load_adapters

if TYPE_CHECKING:
    from esckit.chat_models.ledger import Ledger
    from esckit.supporters.casting import Casting

FORMAT = 1
ROLES = "roles"
_ADAPTER = "adapter_model.safetensors"
Kind = Literal["coupled", "decoupled", "empath"]
PlannerKind = Literal["language", "encoder"]
GeneratorKind = Literal["language", "retrieval", "none"]


@dataclass(frozen=True)
class SupporterCard:
    """What ``supporter.json`` says.

    Attributes:
        kind: coupled, decoupled, or empath: decoupled, and in a role's voice.
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
        ranker: of a reply store: the language model that chooses among the nearest replies (`RerankedReplies`).
        ranker_hash: SHA-256 of its weights.
        casting: how roles and experiences are chosen, of an empath (`casting.CastingOptions`).
        own: of a model that was trained elsewhere, as it is, in place of base and adapters: `own_model.OwnOptions`.
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
    ranker: str | None = None
    ranker_hash: str | None = None
    casting: Mapping[str, Any] | None = None
    own: Mapping[str, Any] | None = None

    @property
    def adapters(self) -> tuple[Part, ...]:
        """The adapters on the base."""
        if self.own is not None:
            return ()
        if self.kind == "coupled":
            return ("coupled",)
        parts: tuple[tuple[Part, str], ...] = (("planner", self.planner), ("generator", self.generator))
        return tuple(part for part, kind in parts if kind == "language")


def save_supporter(folder: Path, card: SupporterCard, parts: Mapping[str, Path], base: Path | None = None) -> None:
    """Write a supporter folder anew: ``supporter.json``, each part in a subfolder of its name, the base where given.

    ``parts`` are the folders of adapters, encoder planner or reply store. A backbone's folder that is given as ``base``
    is carried along, so that the supporter can be moved; the card's own is then ignored. Adapters are hashed here.
    """
    hashes = {part: hash_file(parts[part] / _ADAPTER) for part in card.adapters}
    fields = {**asdict(card), "base": "./base" if base is not None else card.base, "adapter_hashes": hashes}
    with atomic(folder) as temporary:
        temporary.mkdir()
        for part, source in parts.items():
            shutil.copytree(source, temporary / part)
        if base is not None:
            shutil.copytree(base, temporary / "base")
        known = {key: value for key, value in fields.items() if key not in ("own", "casting") or value is not None}
        described = {"format": FORMAT, **known, "adapters": {p: p for p in card.adapters}}
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


def load_base(folder: Path, card: SupporterCard) -> Backbone:
    """The model that a supporter's adapters stand on.

    Raises:
        ModelError: it cannot be loaded, or has other weights than those that they were trained on.
    """
    assert card.base is not None
    source = str(folder / card.base) if card.base.startswith(".") else card.base
    backbone = load_backbone(source, quantisation=card.quantisation)
    if backbone.weights_hash != card.base_hash:
        raise ModelError(f"the weights of {backbone.source} are not those that {folder} was trained on: restore them.")
    return backbone


def load_casting(folder: Path, card: SupporterCard, ledger: "Ledger | None" = None) -> "Casting | None":
    """Who speaks and tells; None for a supporter without roles.

    Raises:
        ModelError: there is no whole matcher, or its card's casting is none.
        RoleError: the casting names a role that the bank lacks.
    """
    if card.casting is None:
        return None
    from esckit.planning.role_matcher import RoleMatcher
    from esckit.supporters.casting import Casting, CastingOptions

    try:
        options = CastingOptions.model_validate(card.casting)
    except ValidationError as error:
        reason = error.errors()[0]
        where = ".".join(map(str, reason["loc"]))
        raise ModelError(
            f"{folder / 'supporter.json'} has a casting that cannot be ({where}: {reason['msg']}): make the supporter "
            "again."
        ) from error
    return Casting(RoleMatcher.load(folder / ROLES), options, ledger)


def _gates_of(backbone: Backbone, folder: Path, card: SupporterCard, casting: "Casting | None") -> Gates | None:
    """What a generator of experts is read under; None for another.

    Raises:
        ModelError: the experts are of another bank of roles than the supporter's.
    """
    from esckit.language_models.experts import experts_of

    if "generator" not in card.adapters or (tuner := experts_of(backbone.model)) is None:
        return None
    bank = tuner.peft_config["generator"].bank
    if bank is not None and (casting is None or casting.bank.digest != bank):
        raise ModelError(
            f"the experts of {folder} were trained with another bank of roles than the one in {folder / ROLES}: "
            "restore that bank, or train the experts with this one."
        )
    return tuner.gates_of("generator")


def load_language(folder: Path, card: SupporterCard, casting: "Casting | None" = None) -> LanguageParts:
    """The parts of a supporter that are adapters on its base.

    Raises:
        ModelError: base or adapters are missing, broken, or not those that the supporter was made with.
    """
    assert card.max_context is not None
    backbone = load_base(folder, card)
    adapted = load_adapters(backbone, {part: folder / part for part in card.adapters})
    for adapter, wanted in (card.adapter_hashes or {}).items():
        if hash_file(folder / adapter / _ADAPTER) != wanted:
            raise ModelError(
                f"{folder / adapter} is not the adapter that {folder} was made with and may belong to another base: "
                "restore it, or make the supporter again."
            )
    taxonomy = TAXONOMIES[card.taxonomy]
    gates, bank = _gates_of(adapted, folder, card, casting), casting.bank if casting else None
    renderer = Renderer(
        backbone.tokenizer, taxonomy, max_context=card.max_context, layout=card.layout, gates=gates, bank=bank
    )
    return LanguageParts(adapted, renderer, coupled=card.kind == "coupled")
