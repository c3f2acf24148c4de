"""Stage ``rejudge``: a judge that did not mine looks at pairs again, and at what was learned from them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from esckit.chat_models.ledger import LEDGER, Ledger
from esckit.chat_models.opening import PACE_KEYS
from esckit.conversation import Conversation, Turn, read_conversations
from esckit.files import write_json, write_jsonl
from esckit.judging.better_reply import acceptor_name, check_acceptor
from esckit.judging.plan import mining_judges
from esckit.judging.rubric import load_rubrics
from esckit.judging.sampling import draw_first
from esckit.measures import Prediction, predictions_of
from esckit.measures.context import gold_turn
from esckit.mining.pairs import Pair
from esckit.mining.rejudging import Looked, RejudgeOptions, look_again, looked_at, who_also_mined
from esckit.recipes.identity import prompt_texts
from esckit.recipes.stage import Stage
from esckit.recipes.trees import TREES, mined_trees
from esckit.strategy import TAXONOMIES

if TYPE_CHECKING:
    from esckit.corpora import Corpus
    from esckit.recipes.folder import RunFolder
    from esckit.recipes.recipe import Recipe

__all__ = ["REJUDGED", "VERDICTS", "RejudgeStage"]

REJUDGED: Final = "rejudged.json"
VERDICTS: Final = "verdicts.jsonl"
"""In the stage's folder: who looked at what with which result, and each verdict."""


class _Asked(NamedTuple):
    """What is looked at on behalf of a stage; ``name`` is its conversation's and turn's."""

    stage: str
    name: tuple[str, str]
    looked: Looked


class RejudgeStage(Stage, RejudgeOptions):
    """Lets a judge look at a sample of pairs, and at predictions beside others (`RejudgeOptions`).

    Attributes:
        mined: names of mine, search and refine stages whose pairs are looked at.
        sample: so many pairs of each, drawn by the recipe's seed.
        predictions: names of predict stages, each reply of which is looked at beside that of ``against``.
        against: the predict stage of what they started from.
        turns: so many turns of the predictions, the same for all.
    """

    stage: Literal["rejudge"]
    mined: list[str] = Field(min_length=1)
    sample: int = Field(60, ge=1)
    predictions: list[str] = Field(default_factory=list)
    against: str | None = None
    turns: int = Field(60, ge=1)

    makes: ClassVar[str] = "verdicts"
    reads: ClassVar[dict[str, tuple[str, ...]]] = {
        "mined": ("trees",),
        "predictions": ("predictions",),
        "against": ("predictions",),
    }
    elsewhere: ClassVar[frozenset[str]] = frozenset({"prompts", "rubrics", *PACE_KEYS})

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if bool(self.predictions) != bool(self.against):
            raise ValueError("predictions are looked at beside those of against: give both, or leave out both")
        return self

    def check_before(self, recipe: "Recipe", corpus: "Corpus") -> None:
        check_acceptor(self, corpus.train)

    def depends_on(self, run: "RunFolder") -> Any:
        rubrics = [rubric.model_dump(mode="json") for rubric in load_rubrics(self.rubrics)]
        return [prompt_texts(self.read_prompts(), run.languages), rubrics, run.source(self.model)]

    def skips(self, run: "RunFolder") -> str | None:
        return None  # what was not skipped is looked at

    def work(self, run: "RunFolder") -> dict[str, Any]:
        """Write `REJUDGED` and `VERDICTS`; a judging that was stopped continues from the run's ledger.

        Raises:
            BudgetSpent, ChatError, LedgerError: every answer so far is in the ledger.
        """
        trees = {name: list(mined_trees(run, name)) for name in self.mined if not run.was_skipped(name)}
        pairs = {name: _pairs(own) for name, own in trees.items()}
        asked = [each for name, own in pairs.items() for each in self._sampled(name, own, run.recipe.seed)]
        number = len(asked)
        asked += self._predicted(run)
        with Ledger(run.folder / LEDGER) as ledger:
            ledger.forget_failed()
            signs = look_again([each.looked for each in asked], self, ledger, run.recipe.seed)
        miners = {miner for own in trees.values() for miner in mining_judges(own)}
        also = who_also_mined(self, sorted(miners))
        found = list(zip(asked, signs, strict=True))
        folder = run.folder / self.name
        record = {
            "judge": acceptor_name(self),
            "by": self.by if self.asks else "annotator",
            "both_orders": self.both_orders,
            "also_mined": also,
            "pairs": {name: {"pairs": len(own)} | _counted(found[:number], name) for name, own in pairs.items()},
            "predictions": {name: _counted(found[number:], name) for name in self._looked_predictions(run)},
        }
        rows = [
            {"stage": each.stage, "kind": "pair" if place < number else "prediction"}
            | {"conversation_id": each.name[0], "turn_id": each.name[1], "better": sign}
            for place, (each, sign) in enumerate(found)
        ]
        write_jsonl(folder / VERDICTS, rows)
        write_json(folder / REJUDGED, record)
        return {name: record[name] for name in ("judge", "by", "also_mined")} | {"looked_at": len(found)}

    def _sampled(self, stage: str, pairs: Sequence[Pair], seed: int) -> list[_Asked]:
        """A sample of a stage's pairs; a larger one holds the smaller."""
        named = {(pair.conversation.id, f"{pair.chosen.id} > {pair.rejected.id}"): pair for pair in pairs}
        return [_Asked(stage, name, looked_at(named[name])) for name in draw_first(named, self.sample, seed)]

    def _looked_predictions(self, run: "RunFolder") -> list[str]:
        return [name for name in self.predictions if not run.was_skipped(name)]

    def _predicted(self, run: "RunFolder") -> list[_Asked]:
        """Each system's replies beside those of ``against``, at a sample of turns that all predict."""
        if self.against is None:
            return []
        names = self._looked_predictions(run)
        trees = {name: read_conversations(run.folder / name / TREES) for name in (self.against, *names)}
        taxonomy = TAXONOMIES[run.taxonomy]
        rows = {name: {_key(row): row for row in predictions_of(own, name, taxonomy)} for name, own in trees.items()}
        shared = set(rows[self.against]).intersection(*(rows[name] for name in names))
        dialogues = {tree.id: tree for tree in trees[self.against]}
        return [
            _Asked(name, key, _beside(dialogues, rows[name][key], rows[self.against][key]))
            for key in draw_first(shared, self.turns, run.recipe.seed)
            for name in names
        ]


def _pairs(trees: Sequence[Conversation]) -> list[Pair]:
    """Pairs that have texts on both sides."""
    return [Pair(tree, each) for tree in trees for each in tree.preferences if each.aspect != "strategy"]


def _beside(dialogues: Mapping[str, Conversation], row: Prediction, other: Prediction) -> Looked:
    tree, gold = gold_turn(dialogues, row)
    sides = (
        Turn(name, gold.parent, "supporter", each.predicted_text or "", each.predicted_strategy)
        for name, each in (("first", row), ("second", other))
    )
    return Looked(tree, tree.path(gold.parent), *sides)


def _key(row: Prediction) -> tuple[str, str]:
    return str(row.conversation_id), str(row.turn_id)


def _counted(found: Sequence[tuple[_Asked, int]], stage: str) -> dict[str, Any]:
    """How often the first reply was the better one."""
    signs = Counter(sign for each, sign in found if each.stage == stage)
    number = signs.total()
    rate = round((signs[1] + signs[0] / 2) / number, 6) if number else None
    return {"looked_at": number, "first": signs[1], "neither": signs[0], "second": signs[-1], "rate": rate}
