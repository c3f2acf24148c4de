"""Stages ``pretrain`` and ``sft``: a pocket backbone from scratch, and one part of a supporter, fine-tuned."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from esckit.recipes.stage import Stage, TrainingStage
from esckit.rendering import Part, past_strategies
from esckit.training.training_options import LoraOptions

if TYPE_CHECKING:
    from esckit.conversation import Conversation
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe
    from esckit.rendering import Example, Renderer


class PretrainStage(TrainingStage):
    """Trains every weight of a new pocket backbone on both speakers' texts; skipped where model.path is given.

    Supporter turns show their strategy by default: a pretrained backbone would know the words of the labels, and LoRA
    cannot teach them to a model that has never seen them.
    """

    stage: Literal["pretrain"]
    past_strategies: Literal["gold", "hidden"] = "gold"

    makes: ClassVar[str] = "backbone"

    def trains(self, recipe: "Recipe") -> bool:
        return recipe.model.path is None

    def trained_lora(self, recipe: "Recipe") -> None:
        return None

    def targets(self, conversation: "Conversation", renderer: "Renderer") -> "list[Example]":
        return renderer.dialogue(conversation, past_strategies(conversation, self.past_strategies))

    def depends_on(self, run: "RunFolder") -> Any:
        return run.model_identity

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Make a tokenizer and a model from the training part, and train it."""
        from esckit.language_models.backbone import Backbone, default_device, seed_everything
        from esckit.language_models.pocket import make_pocket_model, train_tokenizer
        from esckit.recipes.training_work import make_tries, train_stage

        recipe, corpus, folder = run.recipe, run.corpus, run.folder / self.name
        if recipe.model.path:
            run.count(self, "skipped: model.path is used as it is")
            return {}
        tokenizer = train_tokenizer(corpus.train, recipe.model.vocabulary)
        seed_everything(run.seed(self))
        model = make_pocket_model(recipe.model.pocket, tokenizer).to(default_device())
        renderer = run.renderer(Backbone(model, tokenizer, "pocket"))

        def save() -> None:
            model.save_pretrained(folder / "model")
            tokenizer.save_pretrained(folder / "model")

        train, valid = (
            make_tries(run, self, self, (self.targets(c, renderer) for c in part), count=part is corpus.train)
            for part in (corpus.train, corpus.valid)
        )
        facts = train_stage(run, self, self, model, train, folder, save, valid=valid)
        return {"parameters": model.num_parameters(), "vocabulary": len(tokenizer), **facts}


class SftStage(TrainingStage):
    """Supervised fine-tuning of one part, by LoRA, on the trunk's supporter turns.

    Attributes:
        past_strategies: what the history shows.
        label_weight: of a strategy's tokens in the coupled part's loss, where a text's tokens weigh 1.
    """

    stage: Literal["sft"]
    part: Part
    past_strategies: Literal["gold", "hidden"]
    lora: LoraOptions = LoraOptions()
    label_weight: float = Field(1.0, gt=0)

    makes: ClassVar[str] = "adapter"

    @property
    def uses_backbone(self) -> bool:
        return True

    @model_validator(mode="after")
    def _label_weight_fits(self) -> Self:
        if self.label_weight != 1 and self.part != "coupled":
            raise ValueError("label_weight is for the coupled part, which alone learns labels and texts together")
        return self

    def trained_lora(self, recipe: "Recipe") -> LoraOptions:
        return self.lora

    def targets(self, conversation: "Conversation", renderer: "Renderer") -> "list[Example]":
        return renderer.examples(conversation, self.part, self.shown(conversation), label_weight=self.label_weight)

    def shown(self, conversation: "Conversation") -> dict[str, str]:
        """The strategies that the history shows, by turn id."""
        return past_strategies(conversation, self.past_strategies)

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Train a fresh adapter on every labelled supporter turn of the training part's trunks."""
        return fine_tune(run, self, self, run.corpus.train, run.folder / self.name)


def fine_tune(
    run: "RunFolder", stage: Stage, sft: SftStage, conversations: "Sequence[Conversation]", folder: Path
) -> dict[str, Any]:
    """Train as ``sft`` says on these conversations, on behalf of ``stage``, into ``folder/<part>``."""
    from esckit.language_models.backbone import seed_everything
    from esckit.recipes.training_work import make_tries, train_stage
    from esckit.training.adapters import fresh_adapter, save_adapter

    backbone = run.load_backbone()
    renderer = run.renderer(backbone)
    seed_everything(run.seed(stage))
    model = fresh_adapter(backbone.model, sft.lora, sft.part)
    train, valid = (
        make_tries(run, stage, sft, (sft.targets(c, renderer) for c in part), count=count)
        for part, count in ((conversations, True), (run.corpus.valid, False))
    )
    facts = train_stage(
        run, stage, sft, model, train, folder, lambda: save_adapter(model, folder, sft.part), valid=valid
    )
    return {"trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad), **facts}


def sft_of(recipe: "Recipe", name: str) -> SftStage:
    """The sft stage at the root of a stage that makes an adapter: which part it is, which past strategies it sees.

    Every other kind that makes an adapter says in its key ``start`` from which one.
    """
    stage: Any = recipe.named(name)
    while not isinstance(stage, SftStage):
        stage = recipe.named(stage.start)
    return stage
