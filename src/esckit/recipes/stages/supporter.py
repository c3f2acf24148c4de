"""Stage ``supporter``: parts, put together into one folder; or a model that was trained elsewhere, as it is."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from esckit.chat_models.opening import PACE_KEYS
from esckit.errors import CorpusError
from esckit.recipes.stage import Stage
from esckit.recipes.stages.match import MatchStage
from esckit.recipes.stages.sft import SftStage, sft_of
from esckit.rendering import PastStrategies
from esckit.roles import read_bank
from esckit.roles.telling import TELLING, TellingOptions
from esckit.strategy import ESCONV, TAXONOMIES
from esckit.supporters.casting_options import ROLES, CastingOptions
from esckit.supporters.own_model import OwnOptions

if TYPE_CHECKING:
    from esckit.corpora import Corpus
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe


_OWN: Final = ("base", "base_url", "extra_body", "system", "strategy_form")


class SupporterStage(Stage):
    """Puts parts together: ``coupled``, or ``planner`` and ``generator``, or a ``planner`` alone, which only plans.

    With ``roles`` it is of kind empath: the generator speaks in the voice of the role that suits the person.

    Language-model parts are named by their sft or preference stages; a planner may also be a planner stage, a generator
    also a replies stage. Or it takes a ``model`` as it is, under a ``planner`` of a planner stage or under none.

    Attributes:
        model, base, base_url, extra_body, strategy_form: of a model as it is (`supporters.own_model.OwnOptions`).
        system: its system text, the text itself.
        concurrency, budget_calls, budget_tokens: of a model behind a URL.
        roles: name of a match stage, whose bank and matcher it takes.
        casting: how roles and experiences are chosen (`supporters.casting_options`).
        ranker: of a generator from a replies stage: the language model that chooses among the nearest replies.
        calibrated: an encoder planner's scores with its calibration, or as they are.
        past_strategies: what an encoder planner, or a model as it is, sees unless a predict stage says otherwise; a
            model under a planner sees none by default.
    """

    stage: Literal["supporter"]
    coupled: str | None = None
    planner: str | None = None
    generator: str | None = None
    roles: str | None = None
    casting: CastingOptions | None = None
    ranker: str | None = None
    calibrated: bool = True
    past_strategies: Literal["gold", "hidden"] = "gold"
    model: str | None = None
    base: str | None = None
    base_url: str | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)
    system: str | None = None
    strategy_form: str | None = None
    concurrency: int | None = Field(None, ge=1)
    budget_calls: int | None = Field(None, ge=1)
    budget_tokens: int | None = Field(None, ge=1)

    elsewhere: ClassVar[frozenset[str]] = frozenset(PACE_KEYS)
    later: ClassVar[frozenset[str]] = frozenset({"roles", "casting"})
    makes: ClassVar[str] = "supporter"
    reads: ClassVar[dict[str, tuple[str, ...]]] = {
        "coupled": ("adapter",),
        "planner": ("adapter", "planner"),
        "generator": ("adapter", "replies"),
        "roles": ("matcher",),
    }

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        parts = {each.key for each in self.inputs} - {"roles"}
        if self.casting and not self.roles:
            raise ValueError("casting is of a supporter with roles: set roles to a match stage, or leave it out")
        if self.roles and parts != {"planner", "generator"}:
            raise ValueError("roles are for a planner and a generator: set both, or leave roles out")
        if self.model is None:
            if lonely := [key for key in (*_OWN, *PACE_KEYS) if getattr(self, key)]:
                raise ValueError(f"{lonely[0]} is of a model as it is: set model as well, or leave it out")
            if parts not in ({"coupled"}, {"planner", "generator"}, {"planner"}):
                raise ValueError("needs either coupled, or planner and generator, or a planner alone, or a model")
            return self
        if parts - {"planner"}:
            raise ValueError("a model as it is takes a planner and no other part: leave coupled and generator out")
        if self.system and (self.system.endswith((".txt", ".md")) or Path(self.system[:200]).is_file()):
            raise ValueError("system is the text itself in a recipe, not a file: write it as a block (system: |)")
        self.own_options()
        return self

    def own_options(self) -> OwnOptions:
        """Of a model as it is."""
        told = {key: getattr(self, key) for key in ("model", "planner", *_OWN, *PACE_KEYS)}
        return OwnOptions(**told)

    def adapters(self, recipe: "Recipe") -> dict[str, SftStage]:
        """By part, the sft stage at the root of each part that is an adapter on the backbone."""
        named = {part.key: part.name for part in self.inputs if part.key != "roles"}
        return {part: sft_of(recipe, name) for part, name in named.items() if recipe.named(name).makes == "adapter"}

    def shown(self, recipe: "Recipe") -> Literal["gold", "hidden"]:
        """The past strategies that it shows unless a predict stage says otherwise: those that its planner saw."""
        if self.model:
            if "past_strategies" in self.model_fields_set:
                return self.past_strategies
            return "hidden" if self.planner or not self.own_options().layout.reply else "gold"
        trained = self.adapters(recipe).get("coupled" if self.coupled else "planner")
        return trained.past_strategies if trained else self.past_strategies

    def planned_by(self) -> tuple[str | None, bool]:
        """What its scores come from: the stage of its planner, and whether they are calibrated."""
        return self.coupled or self.planner, self.calibrated

    def check_recipe(self, recipe: "Recipe") -> None:
        trained = self.adapters(recipe)
        if self.model and trained:
            raise ValueError(f"stage {self.name!r} puts a model as it is under a planner: name a planner stage")
        if any(sft.part != part for part, sft in trained.items()):
            raise ValueError(f"stage {self.name!r} takes a part from a stage that trained another part")
        if len({sft.past_strategies for sft in trained.values()}) > 1:
            raise ValueError(f"the parts of {self.name!r} must be trained with the same past_strategies")
        self._check_roles(trained)
        if self.ranker and not (self.generator and recipe.named(self.generator).makes == "replies"):
            raise ValueError(f"stage {self.name!r} has a ranker and no replies to choose among: name a replies stage")
        self.check_shown(recipe, self.shown(recipe), f"stage {self.name!r}")

    def _check_roles(self, trained: Mapping[str, SftStage]) -> None:
        """Refuse a generator of experts or roles that would not get what it was trained with."""
        generator = trained.get("generator")
        if self.roles and not generator:
            raise ValueError(
                f"stage {self.name!r} has roles, in whose voice no stored reply is: take an sft stage as "
                "generator, or leave roles out"
            )
        if generator and generator.experts and "planner" in trained:
            raise ValueError(
                f"stage {self.name!r} puts a planner's adapter beside experts, which stand alone on their model: "
                "name a planner stage as planner"
            )
        if generator and generator.roles and generator.roles != self.roles:
            raise ValueError(
                f"the generator of {self.name!r} was trained with the roles of {generator.roles!r}: set roles to it"
            )

    def check_shown(self, recipe: "Recipe", mode: PastStrategies, who: str) -> None:
        """Refuse to show a language model labels that it never saw.

        Raises:
            ValueError: one sentence.
        """
        plans = self.planner or not (self.model and self.own_options().is_remote)
        if self.model and mode == "predicted" and not (plans and self.own_options().layout.reply):
            raise ValueError(
                f"{who} shows past strategies (predicted), and {self.model} names none before it words one"
            )
        blind = [part for part, sft in self.adapters(recipe).items() if sft.past_strategies == "hidden"]
        if mode != "hidden" and blind:
            raise ValueError(
                f"{who} shows past strategies ({mode}) to a {blind[0]} that was trained without them: set its "
                "past_strategies to hidden, or train the part with gold"
            )

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        if self.model:
            self.own_options().check_askable()
        if self.ranker:
            from esckit.language_models.backbone import check_source

            check_source(self.ranker)

        self.check_casting(recipe, corpus, self.casting, self.name)

    def check_casting(self, recipe: "Recipe", corpus: "Corpus", casting: CastingOptions | None, who: str) -> None:
        """Refuse a stage's casting that names a role of no bank, or strategies of another taxonomy.

        Raises:
            RoleError, CorpusError: one sentence.
        """
        matched = recipe.named(self.roles) if self.roles else None
        if not casting or not isinstance(matched, MatchStage):
            return
        if casting.role not in ROLES:
            read_bank(matched.bank).role(casting.role)
        taxonomy = TAXONOMIES[str(corpus.train[0].taxonomy or ESCONV.name)]
        foreign = [each for each in casting.telling.strategies if each not in taxonomy.labels]
        if foreign and "telling" in casting.model_fields_set:
            raise CorpusError(
                f"the casting of stage {who!r} tells under {foreign[0]!r}, no label of {taxonomy.name}: set "
                f"casting.telling.strategies to some of {', '.join(taxonomy.labels)}."
            )

    def depends_on(self, run: "RunFolder") -> Any:
        named = [each for each in (self.model, self.base, self.ranker) if each]
        return [run.source(each) for each in named] or None

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Put parts together, or name the model, in a folder that `Supporter.load` reads."""
        return self._of_model(run) if self.model else self._of_parts(run)

    def _of_model(self, run: "RunFolder") -> dict[str, Any]:
        from esckit.supporters.own_model import open_own, open_planner
        from esckit.supporters.supporter_folder import save_supporter

        options, taxonomy = self.own_options(), TAXONOMIES[run.taxonomy]
        here = {
            key: str(Path(path).absolute())
            for key in ("model", "base")
            if Path(path := getattr(self, key) or "").exists()
        }
        options = options.model_copy(update={key: path for key, path in here.items() if getattr(self, key)})
        planner = run.folder / self.planner if self.planner else None
        opened = open_own(options, None, taxonomy, open_planner(str(planner), taxonomy) if planner else None)
        card = replace(opened.card, past_strategies=self.shown(run.recipe), calibrated=self.calibrated)
        save_supporter(run.folder / self.name, card, {"planner": planner} if planner else {})
        return {"kind": card.kind, "past_strategies": card.past_strategies}

    def _of_parts(self, run: "RunFolder") -> dict[str, Any]:
        """Put the parts and their base into one folder that `Supporter.load` reads; a pocket base travels along."""
        from esckit.supporters.supporter_folder import Kind, SupporterCard, save_supporter

        adapters = self.adapters(run.recipe)
        parts = {p.key: run.folder / p.name / (p.key if p.key in adapters else "") for p in self.inputs}
        about: dict[str, Any] = {"past_strategies": self.shown(run.recipe), "taxonomy": run.taxonomy}
        if self.roles:
            about["casting"] = self._casting_in(run.taxonomy).model_dump(mode="json")
        base = None
        if adapters:
            backbone = run.load_backbone()
            about |= {"base": run.backbone_source, "base_hash": backbone.weights_hash}
            about |= {"max_context": run.max_context(backbone), "layout": run.recipe.model.layout}
            about |= {"quantisation": run.recipe.model.quantisation}
            base = None if run.recipe.model.path else Path(run.backbone_source)
        if not self.coupled and "generator" not in adapters:
            about["generator"] = "retrieval" if self.generator else "none"
        if self.ranker:
            from esckit.language_models.backbone import load_backbone

            ranker = load_backbone(self.ranker)
            about |= {"ranker": ranker.source, "ranker_hash": ranker.weights_hash}
        if not self.coupled and "planner" not in adapters:
            about |= {"planner": "encoder", "calibrated": self.calibrated}
        kind: Kind = "coupled" if self.coupled else "empath" if self.roles else "decoupled"
        card = SupporterCard(kind=kind, **about)
        save_supporter(run.folder / self.name, card, parts, base)
        return {"kind": card.kind, "past_strategies": card.past_strategies}

    def _casting_in(self, taxonomy: str) -> CastingOptions:
        """Its casting; unless it says otherwise, stories are told under the taxonomy's own strategies (`TELLING`)."""
        casting = self.casting or CastingOptions()
        if "telling" in casting.model_fields_set:
            return casting
        return casting.model_copy(update={"telling": TellingOptions(strategies=TELLING[taxonomy])})


def supporter_of(recipe: "Recipe", name: str) -> SupporterStage:
    stage = recipe.named(name)
    assert isinstance(stage, SupporterStage)
    return stage
