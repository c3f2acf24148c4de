"""Stage ``mine``: preferences from what a trained part says on the training part's contexts."""

import json
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from esckit.chat_models.ledger import LEDGER
from esckit.conversation import PSYCHOLOGICAL_ERRORS, Conversation, read_conversations
from esckit.files import write_json
from esckit.judging.open_annotator import annotator_identity, open_annotator
from esckit.mining.mining_options import MiningOptions
from esckit.mining.pairs import pair_statistics
from esckit.recipes.identity import prompt_texts
from esckit.recipes.stages.sft import SftStage, fine_tune, sft_of
from esckit.recipes.trees import PAIRS, TREES, TreesStage, mined_trees
from esckit.rendering import Part
from esckit.strategy import TAXONOMIES

if TYPE_CHECKING:
    from esckit.corpora import Corpus
    from esckit.mining.inferential import Miner
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe

SAMPLED: Final = "sampled.jsonl"
"""In a mine stage's folder: the trees with what was sampled, before anyone has judged it."""

_STATES: Final = ("unparsed", "refused", "failed")

_EVENTS: Final = {
    "beyond_budget": "beyond budget_calls",
    "equal_to_gold": "equal to gold",
    "sampled_twice": "sampled twice",
    "empty": "empty",
    "cut": "cut at max_new_tokens",
    "blames_gold": "blames what is gold's",
    "chosen_faulty": "chosen faulty",
    "chosen_unjudged": "chosen not judged",
}
"""What miners and keepers count, and the words for it among the run's events."""


class MineStage(TreesStage, MiningOptions):
    """Mines preferences on the training part's trees with a trained part, named by its sft or preference stage.

    Attributes:
        model: name of an sft or a preference stage.
        trees: name of an earlier mine or search stage, whose trees are grown further; null starts from the training
            part. Then turns and preferences of both stand in the trees, and what is counted is this stage's own.
        wording: rule ``judged``, planner: the generator's stage that words what it chose, so that it can be judged.
    """

    stage: Literal["mine"]
    model: str
    trees: str | None = None
    wording: str | None = None

    reads: ClassVar[dict[str, tuple[str, ...]]] = {"model": ("adapter",), "trees": ("trees",), "wording": ("adapter",)}
    later: ClassVar[frozenset[str]] = frozenset({"budget_calls", "top_k_tokens", "repetition_penalty"})
    in_all_processes: ClassVar[bool] = True
    version: ClassVar[int] = 2  # names of counts in the trees

    @property
    def asks_annotator(self) -> bool:
        return self.rule == "judged"

    @property
    def grows(self) -> str | None:
        return self.trees

    @property
    def source(self) -> str:
        """The name under which its turns and counts stand in the trees; at random, no model said what is mined."""
        return "random" if self.rule == "random" else self.model

    @property
    def rejected_sides(self) -> int:
        return self.top_k or self.samples

    @property
    def for_more_pairs(self) -> str:
        judged = "set its clean_chosen to false, take another annotator, or " if self.asks_annotator else ""
        return f"{judged}raise its samples or its temperature"

    def parts(self, recipe: "Recipe") -> tuple[Part, ...]:
        return (sft_of(recipe, self.model).part,)

    def check_recipe(self, recipe: "Recipe") -> None:
        part = sft_of(recipe, self.model).part
        if self.folds > 1 and not isinstance(recipe.named(self.model), SftStage):
            raise ValueError(f"stage {self.name!r} mines in folds, which needs an sft stage as its model")
        if self.folds > 1 and sft_of(recipe, self.model).trees:
            raise ValueError(
                f"stage {self.name!r} mines in folds of the training part, and {self.model!r} is trained on a search's "
                "trees: leave out folds"
            )
        if self.folds > 1 and self.rule == "random":
            raise ValueError(f"stage {self.name!r} mines at random, which asks no model: leave out folds")
        if self.top_k and (self.rule == "random" or part == "generator"):
            raise ValueError(f"stage {self.name!r} chooses no strategy by its probability: leave out top_k")
        if self.rule != "judged" and "clean_chosen" in self.model_fields_set:
            raise ValueError(f"stage {self.name!r} asks no annotator: leave out clean_chosen, or set rule to judged")
        try:
            self.contexts(self._asks_model(recipe))
        except ValueError as error:
            raise ValueError(f"stage {self.name!r}: {error}") from error
        for earlier in self.builds_on(recipe):
            if isinstance(earlier, MineStage) and earlier.source == self.source:
                raise ValueError(
                    f"stage {self.name!r} grows the trees of {earlier.name!r}, which mined with {self.source} too: "
                    "mine with another model, or leave out trees"
                )
        self._check_wording(recipe, part)

    def _asks_model(self, recipe: "Recipe") -> bool:
        """True where a chat model judges."""
        return self.asks_annotator and recipe.annotator.asks

    def _calls(self, run: "RunFolder", counts: Counter[str]) -> int:
        """Questions: replies that a model was to write, and a chat model's verdicts."""
        part = sft_of(run.recipe, self.model).part
        wrote = self.rule != "random" and (part != "planner" or self.wording is not None)
        said = counts["sampled"] + counts["empty"]
        said -= (counts["equal_to_gold"] + counts["sampled_twice"]) * (part == "planner")  # these are not worded
        judged = sum(number for name, number in counts.items() if name.startswith(("judged:", "gold_judged:")))
        return wrote * said + self._asks_model(run.recipe) * judged

    def _check_wording(self, recipe: "Recipe", part: str) -> None:
        """A planner's strategies are judged by the replies that follow them; nobody else's need wording."""
        wanted = self.rule == "judged" and part == "planner"
        if wanted and self.wording is None:
            raise ValueError(
                f"stage {self.name!r} judges a planner by the replies that follow its strategies: "
                "set wording to a stage of the generator"
            )
        if self.wording is None:
            return
        if not wanted:
            raise ValueError(f"stage {self.name!r} needs no wording, which is for judged pairs of the planner")
        if sft_of(recipe, self.wording).part != "generator":
            raise ValueError(f"stage {self.name!r} needs a stage of the generator as wording")
        if sft_of(recipe, self.wording).past_strategies != sft_of(recipe, self.model).past_strategies:
            raise ValueError(
                f"the model and the wording of {self.name!r} must be trained with the same past_strategies"
            )

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        """What the corpus's trees hold must not be taken for what is mined here."""
        self.check_source(self.source, "train", corpus)

    def depends_on(self, run: "RunFolder") -> Any:
        if not self.asks_annotator:
            return None
        annotator = run.recipe.annotator
        prompts = prompt_texts(annotator.read_prompts(), run.languages) if annotator.asks else None
        return [annotator_identity(annotator), run.source(annotator.model), prompts]

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Sample, and keep preferences for gold in the trees; under the rule ``judged`` all is sampled, then judged."""
        from esckit.mining.inferential import draw_dialogues, mining_counts
        from esckit.training.processes import is_main

        drawn = draw_dialogues(self.started_from(run), self.dialogues, run.recipe.seed)
        if self.folds > 1:  # all first: here, other processes take part
            self._train_folds(run, drawn)
        if not is_main():
            return {}
        trees = run.folder / self.name / TREES
        mined = trees.with_name(SAMPLED) if self.asks_annotator else trees
        if not mined.exists():  # a stop may have come after it
            _sample(run, self, drawn, mined)
        if self.asks_annotator and not trees.exists():
            _judge(run, self, mined, trees)
        counts = mining_counts(read_conversations(trees), self.source)
        self._count(run, counts)
        write_json(trees.with_name(PAIRS), pair_statistics(mined_trees(run, self.name)))
        kept = counts["pairs"] / counts["sampled"] if counts["sampled"] else 0.0
        facts = {"turns": counts["turns"], "sampled": counts["sampled"], "pairs": counts["pairs"]}
        facts["calls"] = self._calls(run, counts)
        return {**facts, "kept": round(kept, 4), **(_judged_facts(counts) if self.asks_annotator else {})}

    def adapter_folder(self, run: "RunFolder", fold: int) -> Path:
        """The folder of the model that mines a fold."""
        return run.folder / self.name / f"fold-{fold}" if self.folds > 1 else run.folder / self.model

    def _train_folds(self, run: "RunFolder", drawn: list[Conversation]) -> None:
        """Train a model for each fold on the dialogues that it will not mine."""
        from esckit.mining.inferential import fold_of
        from esckit.training.processes import from_main, is_main

        for fold in range(self.folds):
            held_out = {each.id for i, each in enumerate(drawn) if fold_of(i, len(drawn), self.folds) == fold}
            others = [conversation for conversation in run.corpus.train if conversation.id not in held_out]
            events = self.adapter_folder(run, fold) / "events.json"
            if not from_main(events.exists):
                fine_tune(run, self, sft_of(run.recipe, self.model), others, events.parent)
                if is_main():  # of folds before a stop too
                    write_json(events, run.events.pop(self.name, {}))

    def _count(self, run: "RunFolder", counts: Counter[str]) -> None:
        """Count into the run's events what was mined, judged, and cut in the training of folds."""
        for name, event in _EVENTS.items():
            run.count(self, event, counts[name])
        for state in _STATES:
            run.count(self, f"judged {state}", counts[f"judged:{state}"] + counts[f"gold_judged:{state}"])
        for path in sorted((run.folder / self.name).glob("fold-*/events.json")):
            for event, number in json.loads(path.read_text(encoding="utf-8")).items():
                run.count(self, event, number)


def _sample(run: "RunFolder", stage: MineStage, drawn: list[Conversation], out: Path) -> None:
    """Mine with the model of each fold, in whose folder its adapter is; a planner that is judged is worded, too."""
    from esckit.mining.inferential import mine

    sft = sft_of(run.recipe, stage.model)
    mine(
        _miner_of(run, stage, sft),
        drawn,
        out,
        source=stage.source,
        folds=stage.folds,
        contexts=stage.contexts(stage._asks_model(run.recipe)),
        shown=sft.shown,
        seed=run.seed(stage),
        key=run.identity(stage),
        title=stage.name,
    )


def _miner_of(run: "RunFolder", stage: MineStage, sft: SftStage) -> "Callable[[int], Miner]":
    from esckit.mining.at_random import AtRandom
    from esckit.mining.inferential import Miner
    from esckit.supporters import Supporter

    @lru_cache(maxsize=1)  # folds come in order
    def miner_of(fold: int) -> Miner:
        if stage.rule == "random":
            return Miner(sft.part, AtRandom(run.corpus.train, TAXONOMIES[run.taxonomy]), stage.source, stage)
        adapters: dict[Part, Path] = {sft.part: stage.adapter_folder(run, fold) / sft.part}
        if stage.wording:
            adapters["generator"] = run.folder / stage.wording / "generator"
        backbone = run.load_backbone()
        supporter = Supporter.of_adapters(backbone, sft.renderer(run, backbone), adapters, sft.past_strategies)
        return Miner(sft.part, supporter, stage.source, stage, stage.wording)

    return miner_of


def _judge(run: "RunFolder", stage: MineStage, sampled: Path, out: Path) -> None:
    """Judge what was sampled, and write the trees with verdicts and preferences."""
    from esckit.mining.judged_pairs import Keeper, judge_sampled

    part = sft_of(run.recipe, stage.model).part
    with open_annotator(run.recipe.annotator, run.folder / LEDGER) as annotator:
        judge_sampled(
            read_conversations(sampled),
            annotator,
            Keeper(part, stage.model, stage.clean_chosen, annotator.judge),
            out,
            key=run.identity(stage),
            title=f"{stage.name} judged",
        )


def _judged_facts(counts: Counter[str]) -> dict[str, Any]:
    """Outcomes of sampled and gold turns, and kept pairs by reason and kind."""
    outcomes = (*PSYCHOLOGICAL_ERRORS, "none", *_STATES)

    def table(of: str, names: tuple[str, ...]) -> dict[str, int]:
        return {name: counts[f"{of}:{name}"] for name in names if counts[f"{of}:{name}"]}

    return {
        "judged": table("judged", outcomes),
        "gold_judged": table("gold_judged", outcomes),
        "reasons": table("kept", PSYCHOLOGICAL_ERRORS),
        "kinds": table("kept", ("PsNr", "NsNr", "NsPr")),
    }
