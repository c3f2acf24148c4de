"""Stage ``supporter``: parts, put together into one folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import model_validator

from esckit.recipes.stage import Stage
from esckit.recipes.stages.sft import SftStage, sft_of
from esckit.rendering import PastStrategies

if TYPE_CHECKING:
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe


class SupporterStage(Stage):
    """Puts parts together: ``coupled``, or ``planner`` and ``generator``, or a ``planner`` alone, which only plans.

    Language-model parts are named by their sft or preference stages; a planner may also be a planner stage, a generator
    also a replies stage.

    Attributes:
        calibrated: an encoder planner's scores with its calibration, or as they are.
        past_strategies: what an encoder planner sees unless a predict stage says otherwise.
    """

    stage: Literal["supporter"]
    coupled: str | None = None
    planner: str | None = None
    generator: str | None = None
    calibrated: bool = True
    past_strategies: Literal["gold", "hidden"] = "gold"

    makes: ClassVar[str] = "supporter"
    reads: ClassVar[dict[str, tuple[str, ...]]] = {
        "coupled": ("adapter",),
        "planner": ("adapter", "planner"),
        "generator": ("adapter", "replies"),
    }

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if {each.key for each in self.inputs} not in ({"coupled"}, {"planner", "generator"}, {"planner"}):
            raise ValueError("needs either coupled, or planner and generator, or a planner alone")
        return self

    def adapters(self, recipe: "Recipe") -> dict[str, SftStage]:
        """By part, the sft stage at the root of each part that is an adapter on the backbone."""
        named = {part.key: part.name for part in self.inputs}
        return {part: sft_of(recipe, name) for part, name in named.items() if recipe.named(name).makes == "adapter"}

    def shown(self, recipe: "Recipe") -> Literal["gold", "hidden"]:
        """The past strategies that it shows unless a predict stage says otherwise: those that its planner saw."""
        trained = self.adapters(recipe).get("coupled" if self.coupled else "planner")
        return trained.past_strategies if trained else self.past_strategies

    def planned_by(self) -> tuple[str | None, bool]:
        """What its scores come from: the stage of its planner, and whether they are calibrated."""
        return self.coupled or self.planner, self.calibrated

    def check_recipe(self, recipe: "Recipe") -> None:
        trained = self.adapters(recipe)
        if any(sft.part != part for part, sft in trained.items()):
            raise ValueError(f"stage {self.name!r} takes a part from a stage that trained another part")
        if len({sft.past_strategies for sft in trained.values()}) > 1:
            raise ValueError(f"the parts of {self.name!r} must be trained with the same past_strategies")
        self.check_shown(recipe, self.shown(recipe), f"stage {self.name!r}")

    def check_shown(self, recipe: "Recipe", mode: PastStrategies, who: str) -> None:
        """Refuse to show a language model labels that it never saw.

        Raises:
            ValueError: one sentence.
        """
        blind = [part for part, sft in self.adapters(recipe).items() if sft.past_strategies == "hidden"]
        if mode != "hidden" and blind:
            raise ValueError(
                f"{who} shows past strategies ({mode}) to a {blind[0]} that was trained without them: set its "
                "past_strategies to hidden, or train the part with gold"
            )

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Put the parts and their base into one folder that `Supporter.load` reads; a pocket base travels along."""
        from esckit.supporters.supporter import SupporterCard, save_supporter

        adapters = self.adapters(run.recipe)
        parts = {p.key: run.folder / p.name / (p.key if p.key in adapters else "") for p in self.inputs}
        about: dict[str, Any] = {"past_strategies": self.shown(run.recipe), "taxonomy": run.taxonomy}
        base = None
        if adapters:
            backbone = run.load_backbone()
            about |= {"base": run.backbone_source, "base_hash": backbone.weights_hash}
            about |= {"max_context": run.max_context(backbone), "layout": run.recipe.model.layout}
            about |= {"quantisation": run.recipe.model.quantisation}
            base = None if run.recipe.model.path else Path(run.backbone_source)
        if not self.coupled and "generator" not in adapters:
            about["generator"] = "retrieval" if self.generator else "none"
        if not self.coupled and "planner" not in adapters:
            about |= {"planner": "encoder", "calibrated": self.calibrated}
        card = SupporterCard(kind="coupled" if self.coupled else "decoupled", **about)
        save_supporter(run.folder / self.name, card, parts, base)
        return {"kind": card.kind, "past_strategies": card.past_strategies}


def supporter_of(recipe: "Recipe", name: str) -> SupporterStage:
    stage = recipe.named(name)
    assert isinstance(stage, SupporterStage)
    return stage
