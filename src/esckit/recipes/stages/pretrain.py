"""Stage ``pretrain``: a pocket backbone, from scratch."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from esckit.recipes.stage import TrainingStage
from esckit.rendering import past_strategies

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
