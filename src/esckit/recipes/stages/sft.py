"""Stage ``sft``: one part of a supporter, fine-tuned on what people said, on what was derived, or a search kept."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from esckit.conversation import read_conversations
from esckit.errors import CorpusError
from esckit.planning.matcher_options import BANK
from esckit.recipes.replay import ReplayingStage
from esckit.recipes.stage import Stage
from esckit.recipes.stages.derive import DeriveStage
from esckit.recipes.stages.match import MatchStage
from esckit.recipes.trees import TREES, TreesStage
from esckit.rendering import Part, kept_turns, past_strategies, supporter_turns
from esckit.rendering.gates import AND, STRATEGY, Gates
from esckit.roles import read_bank
from esckit.strategy import ESCONV, TAXONOMIES
from esckit.training.training_options import ExpertsOptions, LoraOptions

if TYPE_CHECKING:
    from esckit.conversation import Conversation
    from esckit.corpora import Corpus
    from esckit.language_models.backbone import Backbone
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe
    from esckit.rendering import Example, Renderer
    from esckit.roles import RoleBank


class SftStage(ReplayingStage):
    """Supervised fine-tuning of one part, by LoRA, on the trunk's supporter turns, and on what is replayed.

    Attributes:
        trees: name of a search stage: train on the turns that it kept, each behind its own path, and on no others (CSO,
            section 5.1: ESC-Pro-SFT). Or of a derive stage: on its dialogues.
        past_strategies: what the history shows.
        label_weight: of a strategy's tokens in the coupled part's loss, where a text's tokens weigh 1.
        roles: name of a match stage, with whose bank the generator is told the role of each dialogue, and experiences.
        experts: groups of experts in place of one LoRA, for the generator; rank, alpha, dropout and layers are lora's.
        plain: share of the dialogues that others were derived of, drawn by the seed, that is trained on too, under no
            role: else nothing is learned of what to say to a person whom no role suits.
    """

    stage: Literal["sft"]
    part: Part
    trees: str | None = None
    past_strategies: Literal["gold", "hidden"]
    lora: LoraOptions = LoraOptions()
    label_weight: float = Field(1.0, gt=0)
    roles: str | None = None
    experts: ExpertsOptions | None = None
    plain: float = Field(0.0, ge=0, le=1)

    later: ClassVar[frozenset[str]] = ReplayingStage.later | {"roles", "experts", "plain"}
    makes: ClassVar[str] = "adapter"
    reads: ClassVar[dict[str, tuple[str, ...]]] = {"trees": ("trees", "dialogues"), "roles": ("matcher",)}

    @property
    def uses_backbone(self) -> bool:
        return True

    @model_validator(mode="after")
    def _label_weight_fits(self) -> Self:
        if self.label_weight != 1 and self.part != "coupled":
            raise ValueError("label_weight is for the coupled part, which alone learns labels and texts together")
        if (self.roles or self.experts) and self.part != "generator":
            raise ValueError("roles and experts are for the generator, which words what was planned: set part to it")
        return self

    def check_recipe(self, recipe: "Recipe") -> None:
        if self.plain and not (self.trees and isinstance(recipe.named(self.trees), DeriveStage)):
            raise ValueError(
                f"stage {self.name!r} has plain dialogues beside derived ones: set trees to a derive stage"
            )
        searched = recipe.named(self.trees) if self.trees else None
        if isinstance(searched, TreesStage) and not searched.keeps:
            raise ValueError(
                f"stage {self.name!r} trains on what a search kept, and {self.trees!r} is a {searched.stage} stage: "
                "name a search stage, or leave out trees"
            )

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        super().check_before(recipe, corpus)
        if self.plain and not any(map(supporter_turns, corpus.train)):
            raise CorpusError(
                f"stage {self.name!r} trains on plain dialogues, and the training part has no reply with a strategy: "
                "leave plain out."
            )
        if self.experts is None:
            return
        if self.experts.embeddings == "described":
            from esckit.planning.encoder import check_encoder

            check_encoder(self.experts.encoder)
        for name in sorted({name for group in self.experts.groups for name in group.split(AND)}):
            self._check_members(name, recipe, corpus)

    def _check_members(self, name: str, recipe: "Recipe", corpus: "Corpus") -> None:
        """Refuse more experts than a group has members, of whom some would be of no use, and a group of nobody."""
        assert self.experts is not None
        stage, count = recipe.named(self.roles) if self.roles else None, self.experts.groups.get(name, 0)
        if name == STRATEGY:
            members, whose = len(TAXONOMIES[str(corpus.train[0].taxonomy or ESCONV.name)].labels), "strategies"
        elif name == "role" and isinstance(stage, MatchStage):
            members, whose = len(read_bank(stage.bank).names), "roles of its bank"
        else:
            if not (self.trees and name == "role"):  # which are derived later
                self._values(name, corpus.train)
            return
        if count > members:
            raise CorpusError(
                f"stage {self.name!r} has {count} experts for the {members} {whose}, and some would be of no use: set "
                f"experts.groups.{name} to {members} at most."
            )

    def depends_on(self, run: "RunFolder") -> Any:
        if self.experts is None or self.experts.embeddings == "learned":
            return super().depends_on(run)
        return [super().depends_on(run), run.source(self.experts.encoder)]

    def trained_lora(self, recipe: "Recipe") -> LoraOptions:
        if self.experts is None:
            return self.lora
        shared = self.experts.rank == "total"
        rank = sum(self.lora.r if shared else self.lora.r * count for count in self.experts.groups.values())
        return self.lora.model_copy(update={"r": rank})

    def bank(self, run: "RunFolder") -> "RoleBank | None":
        """The roles that it is told of."""
        return read_bank(run.folder / self.roles / BANK) if self.roles else None

    def gates(self, run: "RunFolder") -> "Gates | None":
        """The members of each group of experts, and what is read under them; None without experts."""
        if self.experts is None:
            return None
        names = sorted({name for group in self.experts.groups for name in group.split(AND)})
        members = {name: self._members(run, name) for name in names}
        parts = {group: [members[name] for name in group.split(AND)] for group in self.experts.groups}
        groups = {group: tuple(map(AND.join, product(*own))) for group, own in parts.items()}
        return Gates(groups, self.experts.gate_scope)

    def _members(self, run: "RunFolder", name: str) -> tuple[str, ...]:
        """Of a group of experts: strategies, the bank's roles, or the values of a label of what is trained on.

        Raises:
            CorpusError: no dialogue has the label.
        """
        if name == STRATEGY:
            return TAXONOMIES[run.taxonomy].labels
        if name == "role" and (bank := self.bank(run)):
            return bank.names
        return self._values(name, self.dialogues(run))

    def _values(self, label: str, dialogues: "Sequence[Conversation]") -> tuple[str, ...]:
        found = sorted({tree.labels[label] for tree in dialogues if tree.labels.get(label)})
        if not found:
            raise CorpusError(
                f"no dialogue has the label {label!r} that stage {self.name!r} has experts for: leave it out."
            )
        return tuple(found)

    def renderer(self, run: "RunFolder", backbone: "Backbone") -> "Renderer":
        """Of its part."""
        return run.renderer(backbone, self.gates(run), self.bank(run))

    def dialogues(self, run: "RunFolder") -> "list[Conversation]":
        """What it trains on."""
        if not self.trees:
            return run.corpus.train
        trees = read_conversations(run.folder / self.trees / TREES)
        return [*trees, *self._plain(run, trees)] if self.plain else trees

    def _plain(self, run: "RunFolder", derived: "list[Conversation]") -> "list[Conversation]":
        """Some of the dialogues that others were derived of, under no role."""
        from esckit.mining.inferential import draw_dialogues

        sources = {tree.provenance["derived_from"] for tree in derived}
        own = [replace(tree, labels=_without_role(tree.labels)) for tree in run.corpus.train if tree.id in sources]
        return draw_dialogues(own, round(self.plain * len(own)), run.seed(self))

    def held_out(self, run: "RunFolder") -> "list[Conversation]":
        """What it measures its loss on: the validation part, of derived dialogues theirs."""
        derived = self.trees and run.recipe.named(self.trees)
        return derived.read(run, "valid") if isinstance(derived, DeriveStage) else run.corpus.valid

    def adapted(self, run: "RunFolder", model: Any, gates: "Gates | None") -> Any:
        """The model under a fresh adapter, or under fresh experts."""
        from esckit.recipes.described import describe
        from esckit.training.adapters import fresh_adapter, fresh_experts

        if self.experts is None or gates is None:
            return fresh_adapter(model, self.lora, self.part)
        bank = self.bank(run)
        described = describe(self.experts, gates, TAXONOMIES[run.taxonomy], bank)
        digest = bank.digest if bank else None
        return fresh_experts(model, self.lora, self.experts, gates.groups, self.part, bank=digest, described=described)

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
        conversations = self.dialogues(run)
        derived = self.trees and isinstance(run.recipe.named(self.trees), DeriveStage)
        if self.trees and not derived and not any(map(kept_turns, conversations)):
            raise CorpusError(
                f"stage {self.name!r} has nothing to train on: {self.trees!r} kept no turn, so raise its iterations or "
                "lower theta."
            )
        return fine_tune(run, self, self, conversations, run.folder / self.name)


def _without_role(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if name != "role"}


def fine_tune(
    run: "RunFolder", stage: Stage, sft: SftStage, conversations: "Sequence[Conversation]", folder: Path
) -> dict[str, Any]:
    """Train as ``sft`` says on these conversations, on behalf of ``stage``, into ``folder/<part>``."""
    from esckit.language_models.backbone import seed_everything
    from esckit.language_models.token_tree import build_tries
    from esckit.recipes.training_work import make_tries, train_stage
    from esckit.training.adapters import save_adapter
    from esckit.training.batches import TrieDataset

    backbone = run.load_backbone()
    renderer = sft.renderer(run, backbone)
    seed_everything(run.seed(stage))
    model = sft.adapted(run, backbone.model, renderer.gates)
    train, valid = (
        make_tries(run, stage, sft, (sft.targets(c, renderer) for c in part), count=count)
        for part, count in ((conversations, True), (sft.held_out(run), False))
    )
    replayed = sft.replayed(run, stage, renderer)
    train = TrieDataset([*train.items, *(build_tries(chat, sft.max_tokens_per_row) for chat in replayed)])
    facts = train_stage(
        run, stage, sft, model, train, folder, lambda: save_adapter(model, folder, sft.part), valid=valid
    )
    facts |= {"replayed": len(replayed)} if replayed else {}
    if sft.experts:
        facts["gates"] = model.base_model.gate_use(sft.part)
    return {"trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad), **facts}


def sft_of(recipe: "Recipe", name: str) -> SftStage:
    """The sft stage at the root of a stage that makes an adapter: which part it is, which past strategies it sees.

    Every other kind that makes an adapter says in its key ``start`` from which one.
    """
    stage: Any = recipe.named(name)
    while not isinstance(stage, SftStage):
        stage = recipe.named(stage.start)
    return stage
