"""Stage ``sft``: one part of a supporter, fine-tuned on what people said, or on what a search kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from esckit.conversation import read_conversations
from esckit.errors import CorpusError
from esckit.recipes.replay import ReplayingStage
from esckit.recipes.stage import Stage
from esckit.recipes.trees import TREES, TreesStage
from esckit.rendering import Part, kept_turns, past_strategies, supporter_turns
from esckit.training.training_options import LoraOptions

if TYPE_CHECKING:
    from esckit.conversation import Conversation
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe
    from esckit.rendering import Example, Renderer


class SftStage(ReplayingStage):
    """Supervised fine-tuning of one part, by LoRA, on the trunk's supporter turns, and on what is replayed.

    Attributes:
        trees: name of a search stage: train on the turns that it kept, each behind its own path, and on no others (CSO,
            section 5.1: ESC-Pro-SFT).
        past_strategies: what the history shows.
        label_weight: of a strategy's tokens in the coupled part's loss, where a text's tokens weigh 1.
    """

    stage: Literal["sft"]
    part: Part
    trees: str | None = None
    past_strategies: Literal["gold", "hidden"]
    lora: LoraOptions = LoraOptions()
    label_weight: float = Field(1.0, gt=0)

    makes: ClassVar[str] = "adapter"
    reads: ClassVar[dict[str, tuple[str, ...]]] = {"trees": ("trees",)}

    @property
    def uses_backbone(self) -> bool:
        return True

    @model_validator(mode="after")
    def _label_weight_fits(self) -> Self:
        if self.label_weight != 1 and self.part != "coupled":
            raise ValueError("label_weight is for the coupled part, which alone learns labels and texts together")
        return self

    def check_recipe(self, recipe: "Recipe") -> None:
        searched = recipe.named(self.trees) if self.trees else None
        if isinstance(searched, TreesStage) and not searched.keeps:
            raise ValueError(
                f"stage {self.name!r} trains on what a search kept, and {self.trees!r} is a {searched.stage} stage: "
                "name a search stage, or leave out trees"
            )

    def trained_lora(self, recipe: "Recipe") -> LoraOptions:
        return self.lora

    def targets(self, conversation: "Conversation", renderer: "Renderer") -> "list[Example]":
        searched = self.trees and "search" in conversation.provenance
        turns = kept_turns(conversation) if searched else supporter_turns(conversation)
        shown = self.shown(conversation)
        return renderer.examples(conversation, self.part, shown, turns, label_weight=self.label_weight)

    def shown(self, conversation: "Conversation") -> dict[str, str]:
        """The strategies that the history shows, by turn id."""
        return past_strategies(conversation, self.past_strategies)

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Train a fresh adapter on every labelled supporter turn of the training part's trunks, or on what was kept.

        Raises:
            CorpusError: nothing was kept.
        """
        conversations = read_conversations(run.folder / self.trees / TREES) if self.trees else run.corpus.train
        if self.trees and not any(map(kept_turns, conversations)):
            raise CorpusError(
                f"stage {self.name!r} has nothing to train on: {self.trees!r} kept no turn, so raise its iterations or "
                "lower theta."
            )
        return fine_tune(run, self, self, conversations, run.folder / self.name)


def fine_tune(
    run: "RunFolder", stage: Stage, sft: SftStage, conversations: "Sequence[Conversation]", folder: Path
) -> dict[str, Any]:
    """Train as ``sft`` says on these conversations, on behalf of ``stage``, into ``folder/<part>``."""
    from esckit.language_models.backbone import seed_everything
    from esckit.language_models.token_tree import build_tries
    from esckit.recipes.training_work import make_tries, train_stage
    from esckit.training.adapters import fresh_adapter, save_adapter
    from esckit.training.batches import TrieDataset

    backbone = run.load_backbone()
    renderer = run.renderer(backbone)
    seed_everything(run.seed(stage))
    model = fresh_adapter(backbone.model, sft.lora, sft.part)
    train, valid = (
        make_tries(run, stage, sft, (sft.targets(c, renderer) for c in part), count=count)
        for part, count in ((conversations, True), (run.corpus.valid, False))
    )
    replayed = sft.replayed(run, stage, renderer)
    train = TrieDataset([*train.items, *(build_tries(chat, sft.max_tokens_per_row) for chat in replayed)])
    facts = train_stage(
        run, stage, sft, model, train, folder, lambda: save_adapter(model, folder, sft.part), valid=valid
    )
    facts |= {"replayed": len(replayed)} if replayed else {}
    return {"trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad), **facts}


def sft_of(recipe: "Recipe", name: str) -> SftStage:
    """The sft stage at the root of a stage that makes an adapter: which part it is, which past strategies it sees.

    Every other kind that makes an adapter says in its key ``start`` from which one.
    """
    stage: Any = recipe.named(name)
    while not isinstance(stage, SftStage):
        stage = recipe.named(stage.start)
    return stage
