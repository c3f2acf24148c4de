"""Any causal model as a supporter, as it is and in chat messages as it was trained: folder, Hub id, or behind a URL.

Who chooses the strategy is one of three: the model itself, as it words the reply; a planner; nobody.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, cast

from pydantic import model_validator

from esckit.chat_models.ledger import Ledger
from esckit.chat_models.opening import REMOTE, ChatModelOptions, is_chat_model, open_chat_model
from esckit.errors import EsckitError, ModelError
from esckit.files import read_text
from esckit.prompts import load_prompt
from esckit.quiet import quiet
from esckit.rendering.layouts import OwnLayout
from esckit.strategy import TAXONOMIES, Taxonomy
from esckit.supporters.parts import NoPlanner
from esckit.supporters.wrong_folders import not_a_planner, not_a_supporter

if TYPE_CHECKING:
    from esckit.supporters.parts import Generator, Planner
    from esckit.supporters.supporter import Supporter
    from esckit.supporters.supporter_folder import SupporterCard

__all__ = ["EMBEDDED", "NO_FORM", "OwnOptions", "load_own", "open_named", "open_own", "open_planner", "open_supporter"]

EMBEDDED: Final = "embedded"
"""Names the embedded supporter's planner."""

NO_FORM: Final = "none"
"""The form of a strategy where the model writes none."""


class OwnOptions(ChatModelOptions):
    """A model that was trained elsewhere, and how it is told what to do.

    Attributes:
        model: ``remote:MODEL``, a folder (whole, or a LoRA adapter's), a Hub id, ``smollm2``, or a GGUF file.
        base: of a LoRA folder, in place of the base that it names.
        planner: whose planner chooses the strategy: the folder of a supporter or of an encoder planner, or
            ``embedded``. None: the model itself, or nobody.
        system: the system text (`OwnLayout.system`); empty is none. None is ours: with the list of strategies, with the
            planned one, or with neither.
        strategy_form: how a strategy is written in a reply (`OwnLayout.reply`); ``none``: it is not. None is ours,
            ``[{strategy}] {text}``.
    """

    own_keys: ClassVar[tuple[str, ...]] = ("base", "planner", "system", "strategy_form", "base_url", "extra_body")

    base: str | None = None
    planner: str | None = None
    system: str | None = None
    strategy_form: str | None = None

    @property
    def is_remote(self) -> bool:
        """Whether the model is behind a URL."""
        return (self.model or "").startswith(REMOTE)

    @property
    def layout(self) -> OwnLayout:
        """The system text and the form of a strategy; ours where nothing else is said."""
        form = "" if self.strategy_form == NO_FORM else self.strategy_form or "[{strategy}] {text}"
        if self.system is not None:
            return OwnLayout(self.system, form)
        if self.planner is None:
            listed = load_prompt("support", "system", strategies="{strategies}") if form else ""
            return OwnLayout(listed or load_prompt("support", "free"), form)
        if self.strategy_form in (None, NO_FORM) or self.is_remote:
            return OwnLayout(load_prompt("decoupled_esc", "generator", strategy="{strategy}"), form)
        return OwnLayout(load_prompt("support", "system", strategies="{strategies}"), form)

    @model_validator(mode="after")
    def _somebody_chooses(self) -> Self:
        try:
            layout = self.layout
        except EsckitError as error:
            raise ValueError(str(error).removesuffix(".")) from error
        if self.base is not None and self.is_remote:
            raise ValueError("base is of a LoRA folder: leave it out for a model behind a URL")
        if self.planner is None:
            if layout.names_strategy:
                raise ValueError(
                    "the system text names the reply's {strategy}, and nobody chooses it before: give a planner, or "
                    "write {strategies}, the list of all"
                )
        elif not layout.names_strategy and (self.is_remote or not layout.reply):
            why = "a model behind a URL is told it in no other way" if layout.reply else "nothing else tells it"
            raise ValueError(f"the planner's strategy has to stand in the system text, as {{strategy}}: {why}")
        return self


def open_supporter(
    model: Path | str, *, ledger: Ledger | None = None, taxonomy: str = "esconv", **options: Any
) -> "Supporter":
    """Open whoever is named, to predict with or to talk to: a supporter's folder, or any causal model as it is.

    Args:
        model: a supporter's folder, or what `OwnOptions.model` says.
        ledger: of a model behind a URL: nothing that is in it is asked again. None keeps answers in memory.
        taxonomy: of the strategies of a model that is no supporter.
        options: of a model that is no supporter, see `OwnOptions`.

    Raises:
        ModelError: it is nothing of the kind, and one sentence says what it is.
        ValueError: options do not fit together.
        ChatError: a model behind a URL cannot be asked.
    """
    return open_named(OwnOptions(model=str(model), **options), ledger, TAXONOMIES[taxonomy])


def open_named(
    options: OwnOptions, ledger: Ledger | None = None, taxonomy: Taxonomy = TAXONOMIES["esconv"]
) -> "Supporter":
    """See `open_supporter`."""
    from esckit.supporters.supporter import Supporter

    folder = Path(str(options.model))
    if (folder / "supporter.json").exists():
        if given := [key for key in OwnOptions.own_keys if getattr(options, key)]:
            raise ModelError(
                f"{folder} is a supporter, whose parts and words are those that it was made of: leave out {given[0]}."
            )
        return Supporter.load(folder, ledger)
    if not is_chat_model(str(options.model)):
        raise not_a_supporter(str(options.model))
    return open_own(options, ledger, taxonomy)


def open_own(
    options: OwnOptions, ledger: Ledger | None, taxonomy: Taxonomy, planner: "Planner | None" = None
) -> "Supporter":
    """Open a model as it is, under a planner where the options name one or one is given.

    Raises:
        ModelError, ChatError: see `open_supporter`.
    """
    quiet()
    from esckit.supporters.supporter import Supporter
    from esckit.supporters.supporter_folder import SupporterCard

    options.check_askable()
    options = _as_exported(options)
    layout, planned = options.layout, options.planner is not None
    coupled = bool(layout.reply) and not planned
    if planner is None and options.planner is not None:
        planner = open_planner(options.planner, taxonomy)
    about: dict[str, Any] = {"base": options.model, "taxonomy": taxonomy.name, "own": options.model_dump(mode="json")}
    about["planner"] = "encoder" if planned else "language"
    if options.is_remote:
        from esckit.supporters.asked_parts import AskedGenerator

        model = open_chat_model(options)
        generator: Generator = AskedGenerator(model, ledger or Ledger(Path(":memory:")), layout, taxonomy, options.pace)
    else:
        from esckit.language_models.backbone import load_backbone
        from esckit.rendering import Renderer
        from esckit.supporters.language_parts import LanguageParts

        backbone = load_backbone(str(options.model), base=options.base)
        about |= {"base": backbone.source, "base_hash": backbone.weights_hash, "max_context": backbone.max_context}
        renderer = Renderer(backbone.tokenizer, taxonomy, max_context=backbone.max_context, layout=layout)
        generator = parts = LanguageParts(backbone, renderer, coupled=coupled)
        planner = parts if coupled else planner
    card = SupporterCard("coupled" if coupled else "decoupled", "gold" if coupled else "hidden", **about)
    return Supporter(card, planner or NoPlanner(), generator)


def _as_exported(options: OwnOptions) -> OwnOptions:
    """Options of a model that `esckit export model` wrote: its layout is known where nothing else is said.

    Raises:
        ModelError: the part that it was cannot be used so.
    """
    record = Path(str(options.model)) / "esckit.json"
    if options.system is not None or options.strategy_form is not None or not record.is_file():
        return options
    told = json.loads(read_text(record, what="an exported model's record", error=ModelError))
    part = told.get("part")
    if part == "planner":
        raise ModelError(f"{options.model} was a planner, which writes no replies: export the generator instead.")
    if part == "generator" and options.planner is None:
        raise ModelError(f"{options.model} was a generator, which is told its strategy: give a planner.")
    if options.planner is None or told.get("layout") != "shared-prefix":
        return options
    return options.model_copy(update={"strategy_form": "[{strategy}] {text}"})


def open_planner(name: str, taxonomy: Taxonomy) -> "Planner":
    """The planner of a supporter's folder, of an encoder planner's, or the embedded one.

    Raises:
        ModelError: there is none, or it knows other strategies.
    """
    from esckit.planning.encoder_planner import EncoderPlanner
    from esckit.supporters.supporter import Supporter

    folder = Path(name)
    if name == EMBEDDED and not folder.exists():
        from esckit.supporters.embedded import embedded_supporter

        folder = embedded_supporter(lambda: print("Making the embedded planner, once; it takes a minute or two."))
    if (folder / "planner.json").exists():
        loaded = EncoderPlanner.load(folder)
        found, planner = loaded.taxonomy, cast("Planner", loaded)
    elif (folder / "supporter.json").exists():
        supporter = Supporter.load(folder)
        found, planner = supporter.taxonomy, supporter.planner
        if isinstance(planner, NoPlanner):
            raise ModelError(f"{folder} is a supporter without a planner: give another one.")
    else:
        raise not_a_planner(name)
    if found.name != taxonomy.name:
        raise ModelError(
            f"the planner {name} knows the strategies {found.name} and the dialogues have {taxonomy.name}: "
            "give one that was trained on theirs."
        )
    return planner


def load_own(folder: Path, card: "SupporterCard", ledger: Ledger | None) -> "Supporter":
    """Open a supporter's folder that names a model as it is.

    Raises:
        ModelError: see `Supporter.load`.
    """
    options = OwnOptions(**dict(card.own or {}))
    taxonomy = TAXONOMIES[card.taxonomy]
    planner: Planner | None = None
    if card.planner == "encoder":
        from esckit.planning.encoder_planner import EncoderPlanner

        loaded = EncoderPlanner.load(folder / "planner")
        planner = loaded if card.calibrated else loaded.uncalibrated
    opened = open_own(options, ledger, taxonomy, planner)
    if card.base_hash not in (None, opened.card.base_hash):
        raise ModelError(f"the weights of {card.base} are not those that {folder} was made with: restore them.")
    opened.card = replace(opened.card, past_strategies=card.past_strategies, calibrated=card.calibrated)
    return opened
