"""Stage ``preference``: a part, aligned on mined preferences; and how far that moved it."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from esckit.errors import CorpusError
from esckit.mining.pairs import Pair, PairKind, check_pairs, kind_of, length_matched, lint_pairs, pairs_of, render_pairs
from esckit.recipes.replay import ReplayingStage
from esckit.recipes.stages.keep import KeepStage
from esckit.recipes.stages.sft import SftStage, sft_of
from esckit.recipes.trees import TreesStage, Whose, mined_trees
from esckit.rendering import PairExample, Part, supporter_turns
from esckit.training.training_options import LoraOptions, PreferenceOptions

if TYPE_CHECKING:
    from esckit.conversation import Conversation
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe
    from esckit.rendering import Example, Renderer
    from esckit.training.adapters import Policy
    from esckit.training.preferences import PairDataset, PairItem


class PreferenceStage(ReplayingStage, PreferenceOptions):
    """Aligns a part on mined preferences, starting from an sft (or an earlier preference) stage, which it refers to.

    Attributes:
        start: name of the stage whose adapter is aligned and is the reference.
        pairs: name of the mine or search stage.
        dialogues: train on the pairs of so many dialogues that have any, drawn by the recipe's seed; more of them hold
            the fewer. Null is all.
        preferences: ``mined``, what that stage mined; ``accumulated``, also what the mine stages did whose trees it
            grew; ``all``, also what the corpus's trees brought.
        earlier: of the accumulated pairs that earlier stages mined, the share that is trained on, 0 to 1, drawn by the
            stage's seed; null is all of them. 0.1 is what is usually advised.
        held_out: share of the pairs, by dialogue, 0 to below 1, that are never trained on and measured instead
            (``evaluations``), with the stage's own loss; drawn by the recipe's seed, so that rounds tend to hold out
            the same dialogues. At least one dialogue's, unless it is 0. ``patience`` needs it.
        if_none: where there is no pair to train on: ``refuse``, or ``skip`` the stage and all that reads it.
        kinds: of the coupled part's pairs, the kinds that are trained on (`mining.pairs.kind_of`); null is all.
        drop_faulty: leave out pairs that the linter finds faulty or twice, instead of refusing them.
        length_matched: train on the largest subset whose lengths do not tell chosen from rejected.
        lora: of the fresh adapter where the reference is ``merged``. Only SFT is merged: where the start is an aligned
            adapter, it is trained as it is beside a frozen copy, so that its rank does not grow with every round.
    """

    stage: Literal["preference"]
    start: str
    pairs: str
    dialogues: int | None = Field(None, ge=1)
    preferences: Whose = "mined"
    earlier: float | None = Field(None, ge=0, le=1)
    held_out: float = Field(0.0, ge=0, lt=1)
    if_none: Literal["refuse", "skip"] = "refuse"
    kinds: list[PairKind] | None = Field(None, min_length=1)
    epochs: int = Field(1, ge=1)
    drop_faulty: bool = False
    length_matched: bool = False
    lora: LoraOptions = LoraOptions()

    makes: ClassVar[str] = "adapter"
    reads: ClassVar[dict[str, tuple[str, ...]]] = {"start": ("adapter",), "pairs": ("trees",)}
    later: ClassVar[frozenset[str]] = ReplayingStage.later | {"earlier", "held_out", "if_none"}

    @property
    def measures_valid(self) -> bool:
        return False

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.patience and not self.held_out:
            raise ValueError("patience waits for a lower loss on pairs that are held out: set held_out, such as 0.1")
        if self.earlier is not None and self.preferences != "accumulated":
            raise ValueError("earlier is a share of the pairs that earlier stages mined: set preferences: accumulated")
        if self.replay and not self.likelihood_weight:
            raise ValueError("replay adds to the likelihood, which weighs nothing here: set sft_weight, such as 1")
        return self

    def check_recipe(self, recipe: "Recipe") -> None:
        part = self.root(recipe).part
        if self.root(recipe).experts and self.effective_reference(recipe) == "merged":
            raise ValueError(
                f"stage {self.name!r} cannot merge experts, of which there is no one sum: set reference to frozen"
            )
        if recipe.model.quantisation and self.reference == "merged":
            raise ValueError(f"stage {self.name!r} cannot merge into 4-bit weights: set reference to frozen")
        if part not in self._mined(recipe).parts(recipe):
            raise ValueError(f"stage {self.name!r} aligns a part on pairs that were mined for another part")
        if self.kinds and part != "coupled":
            raise ValueError(f"stage {self.name!r} chooses kinds of pairs, which only a coupled part's differ in")

    def _mined(self, recipe: "Recipe") -> TreesStage:
        stage = recipe.named(self.pairs)
        assert isinstance(stage, TreesStage)
        return stage

    def effective_reference(self, recipe: "Recipe") -> Literal["frozen", "merged", "stored"]:
        """The form of the reference: only SFT is merged."""
        merges = self.reference != "merged" or isinstance(recipe.named(self.start), SftStage)
        return self.reference if merges else "frozen"

    def trained_lora(self, recipe: "Recipe") -> LoraOptions:
        if self.effective_reference(recipe) == "merged":
            return self.lora
        start = recipe.named(self.start)
        while isinstance(start, KeepStage):  # it keeps this adapter, or one that is no larger
            start = recipe.named(start.start)
        return (
            start.saved_lora(recipe) if isinstance(start, PreferenceStage) else self.root(recipe).trained_lora(recipe)
        )

    def saved_lora(self, recipe: "Recipe") -> LoraOptions:
        """Of the adapter that it leaves: over merged SFT, both side by side."""
        own, sft = self.trained_lora(recipe), self.root(recipe).lora
        return own.model_copy(update={"r": own.r + sft.r}) if self.effective_reference(recipe) == "merged" else own

    def root(self, recipe: "Recipe") -> SftStage:
        return sft_of(recipe, self.start)

    def rejected_sides(self, recipe: "Recipe") -> int:
        return self._mined(recipe).rejected_sides

    def frozen_copy(self, recipe: "Recipe") -> bool:
        return self.needs_reference and self.effective_reference(recipe) == "frozen"

    def as_dataset(self, recipe: "Recipe", targets: "list[list[Example]]") -> "PairDataset":
        """Preferences are not mined yet: rejected sides are taken to be as long as gold, of tokens of their own."""
        from esckit.training.preferences import PairDataset

        def pairs(examples: "list[Example]") -> "Iterator[PairExample]":
            for example in examples:
                for side in range(self.rejected_sides(recipe)):
                    yield PairExample(example, replace(example, scored=tuple(-1 - side for _ in example.scored)))

        return PairDataset(self._item(list(pairs(examples))) for examples in targets)

    def _item(self, pairs: list[PairExample]) -> "PairItem":
        from esckit.training.preferences import make_item

        return make_item(pairs, self.max_tokens_per_row, mismatched=self.loss == "kto")

    def skips(self, run: "RunFolder") -> str | None:
        if (why := super().skips(run)) or self.if_none == "refuse":
            return why
        part = self.root(run.recipe).part
        mined = pairs_of(mined_trees(run, self.pairs, self.preferences), part)
        none = not any(self.kinds is None or kind_of(pair) in self.kinds for pair in mined)
        return self._no_pairs(run.recipe, len(mined)).removesuffix(".") if none else None

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Train a part on its preferences, starting from the model after SFT (or the round before), the reference."""
        from esckit.language_models.backbone import seed_everything
        from esckit.recipes.training_work import train_stage
        from esckit.training.adapters import load_policy, save_policy
        from esckit.training.preferences import PreferenceObjective

        sft, source = self.root(run.recipe), run.backbone_source
        folder, start = run.folder / self.name, run.folder / self.start
        form = self.effective_reference(run.recipe)
        pairs, earlier = self._pairs(run, sft)
        pairs, held_out = self._divided(pairs, run.recipe.seed)
        seed_everything(run.seed(self))
        backbone, policy = load_policy(source, start, sft.part, form, self.lora, run.recipe.model.quantisation)
        renderer = sft.renderer(run, backbone)
        saved_as = self.model_copy(update={"reference": form})
        replayed = self.replayed(run, self, renderer)
        facts = train_stage(
            run,
            self,
            self,
            policy.model,
            self._dataset(run, pairs, policy, renderer, replayed),
            folder,
            lambda: save_policy(policy, source, start, folder, sft.part, saved_as),
            objective=PreferenceObjective(self, policy.reference),
            valid=self._dataset(run, held_out, policy, renderer) if held_out else None,
        )
        told: dict[str, Any] = {"preferences": self.preferences, "reference": form}
        told |= {"earlier_pairs": earlier} if self.earlier is not None else {}
        told |= {"held_out_pairs": len(held_out)} if held_out else {}
        told |= {"replayed": len(replayed)} if replayed else {}
        return {**lint_pairs(pairs)._asdict(), **told, **facts, **moved(policy, renderer, sft, run.corpus.valid)}

    def _pairs(self, run: "RunFolder", sft: SftStage) -> tuple[list[Pair], int]:
        """The pairs that the stage uses, and how many of them earlier stages mined; the others are counted."""
        mined = pairs_of(mined_trees(run, self.pairs, self.preferences), sft.part)
        offered, earlier = self._with_earlier(run, mined, sft.part)
        wanted = [pair for pair in offered if self.kinds is None or kind_of(pair) in self.kinds]
        if not wanted:
            raise CorpusError(self._no_pairs(run.recipe, len(offered)))
        pairs = check_pairs(self.drawn(wanted, run.recipe.seed), drop=self.drop_faulty)
        pairs = length_matched(pairs, run.seed(self)) if self.length_matched else pairs
        run.count(self, "pairs left out", len(offered) - len(pairs))
        return pairs, sum(_key(pair) in earlier for pair in pairs)

    def _with_earlier(self, run: "RunFolder", mined: list[Pair], part: Part) -> tuple[list[Pair], set[Any]]:
        """Pairs without those of earlier stages that are not drawn (`earlier`), and which ones of these are."""
        if self.earlier is None:
            return mined, set()
        own = set(map(_key, pairs_of(mined_trees(run, self.pairs), part)))
        others = [key for key in map(_key, mined) if key not in own]
        drawn = set(random.Random(run.seed(self)).sample(others, round(self.earlier * len(others))))
        run.count(self, "pairs of earlier stages left out", len(others) - len(drawn))
        return [pair for pair in mined if _key(pair) in own | drawn], drawn

    def drawn(self, pairs: list[Pair], seed: int) -> list[Pair]:
        """Those of so many dialogues."""
        return _of_dialogues(pairs, self.dialogues, seed)

    def _divided(self, pairs: list[Pair], seed: int) -> tuple[list[Pair], list[Pair]]:
        """The pairs that are trained on, and those that are held out, of other dialogues.

        Raises:
            CorpusError: all are of one dialogue.
        """
        if not self.held_out:
            return pairs, []
        dialogues = len({pair.conversation.id for pair in pairs})
        if dialogues < 2:
            raise CorpusError(
                f"stage {self.name!r} holds out the pairs of whole dialogues, and all of its pairs are of one: leave "
                "held_out and patience out, or mine more dialogues."
            )
        number = min(max(1, round(self.held_out * dialogues)), dialogues - 1)
        held_out = _of_dialogues(pairs, number, seed)
        names = {pair.conversation.id for pair in held_out}
        return [pair for pair in pairs if pair.conversation.id not in names], held_out

    def _no_pairs(self, recipe: "Recipe", mined: int) -> str:
        if mined:
            return (
                f"stage {self.name!r} finds no pair of its kinds among the {mined} of {self.pairs!r}: take other kinds."
            )
        return f"stage {self.pairs!r} kept no preference pair: {self._mined(recipe).for_more_pairs}."

    def _dataset(
        self,
        run: "RunFolder",
        pairs: list[Pair],
        policy: "Policy",
        renderer: "Renderer",
        replayed: "Sequence[list[Example]]" = (),
    ) -> "PairDataset":
        """The pairs as tries, with the reference's log-probabilities where they are stored, and what is replayed."""
        from esckit.progress import progress
        from esckit.recipes.training_work import count_cuts
        from esckit.training.preferences import PairDataset, replay_item, store_reference

        sft = self.root(run.recipe)
        rendered = render_pairs(pairs, renderer, sft.part, sft.shown)
        items = [self._item(own) for own in rendered]
        count_cuts(run, self, (side for own in rendered for pair in own for side in pair), (i.tries for i in items))
        items += [replay_item(chat, self.max_tokens_per_row) for chat in replayed]
        dataset = PairDataset(items)
        if self.reference == "stored" and self.needs_reference:
            with progress(f"{self.name} reference", len(items)) as bar:
                return store_reference(policy.model, dataset, self, bar.advance)
        return dataset


def _key(pair: Pair) -> Any:
    """What tells a pair from all others."""
    return pair.conversation.id, pair.preference


def _of_dialogues(pairs: list[Pair], number: int | None, seed: int) -> list[Pair]:
    """The pairs of so many dialogues, drawn by the seed; all for None."""
    from esckit.mining.inferential import draw_dialogues

    trees = {pair.conversation.id: pair.conversation for pair in pairs}
    drawn = {tree.id for tree in draw_dialogues(list(trees.values()), number, seed)}
    return [pair for pair in pairs if pair.conversation.id in drawn]


def moved(
    policy: "Policy", renderer: "Renderer", sft: SftStage, conversations: "Sequence[Conversation]"
) -> dict[str, Any]:
    """Compare a policy with the model that it started from, at the gold turns of dialogues that it was not trained on.

    Returns:
        ``tokens_changed``, the share of gold tokens' positions whose most likely token is another one, and
        ``token_kl``, the mean KL(policy || reference) there in nats; for parts that choose strategies also
        ``choices_changed`` and ``choice_kl``, the same over turns and the closed list of strategies. Nothing where
        there are no such turns.
    """
    from esckit.language_models.token_tree import build_tries
    from esckit.training.batches import TrieDataset
    from esckit.training.references import drift

    wanted = [conversation for conversation in conversations if supporter_turns(conversation)]
    found: dict[str, Any] = {}
    if wanted and sft.part != "planner":
        examples = (renderer.examples(c, sft.part, sft.shown(c)) for c in wanted)
        tokens = drift(policy.model, policy.reference, TrieDataset(map(build_tries, examples)))
        found = {"tokens_changed": round(tokens.changed, 4), "token_kl": round(tokens.divergence, 6)}
    return {**found, **_choices_moved(policy, renderer, sft, wanted)} if wanted and sft.part != "generator" else found


def _choices_moved(
    policy: "Policy", renderer: "Renderer", sft: SftStage, conversations: "Sequence[Conversation]"
) -> dict[str, Any]:
    import numpy as np

    from esckit.language_models.generation import score_strategies
    from esckit.training.references import in_evaluation

    def scores(model: Any) -> Any:
        each = [score_strategies(model, renderer, c, supporter_turns(c), sft.shown(c), sft.part) for c in conversations]
        return np.concatenate(each)

    with in_evaluation(policy.model):
        now = scores(policy.model)  # (T, K)
    with policy.reference(policy.model) as frozen:
        before = scores(frozen)
    divergence = (np.exp(now) * (now - before)).sum(1).mean()
    changed = (now.argmax(1) != before.argmax(1)).mean()
    return {"choices_changed": round(float(changed), 4), "choice_kl": round(float(divergence), 6)}
