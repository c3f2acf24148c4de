"""Reads a run's folder. A file that a finished stage must have left is there and whole, or the error says which."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from esckit.conversation import Conversation, read_conversations
from esckit.errors import RunError
from esckit.measures import Prediction, predictions_of
from esckit.measures.judging_results import Judging
from esckit.measures.results import Comparison, Difference, Evaluation
from esckit.measures.text import Tokenizer, make_tokenizer
from esckit.measures.ways import Ways
from esckit.report.reading import read_lines, read_record
from esckit.report.rounds import Kept, Round, read_kept, read_rounds, skipped_stages
from esckit.report.run_records import (
    Alignment,
    CorpusRecord,
    Event,
    MinedPairs,
    Point,
    RecipeRecord,
    StageConfig,
    StageRecord,
)
from esckit.report.searches import Search, read_search
from esckit.strategy import ESCONV, TAXONOMIES, Taxonomy

__all__ = ["SERIES", "ReportedRun", "System", "read_run"]

SERIES: Final = 4
"""Supporters with a colour of their own (style.css); after these, markers and names tell them apart."""

_MINING: Final = ("mine", "search", "refine")


@dataclass(frozen=True)
class System:
    """A supporter and what it predicted."""

    name: str  # the supporter's name; the stage's where one supporter predicts more than once, and of a baseline
    stage: str
    parts: tuple[str, ...]
    split: str
    number: int  # from 0, in recipe order: its colour and marker everywhere
    taxonomy: Taxonomy
    conversations: list[Conversation]
    predictions: list[Prediction]
    figures: Evaluation | None

    @property
    def colour(self) -> str:
        """The CSS variable and class of its colour."""
        return f"series-{self.number % SERIES}"

    @property
    def tokenizer(self) -> Tokenizer:
        """What its text figures were made with; the figures name it, and then its version."""
        assert self.figures
        assert self.figures.text
        return make_tokenizer(self.figures.text.tokenizer.split()[0])  # type: ignore[arg-type]

    @cached_property
    def _by_id(self) -> dict[str, Conversation]:
        return {conversation.id: conversation for conversation in self.conversations}

    @cached_property
    def rows(self) -> dict[tuple[str, str], Prediction]:
        """The predictions by conversation and turn."""
        return {(str(row.conversation_id), str(row.turn_id)): row for row in self.predictions}

    def dialogue(self, row: Prediction) -> Conversation:
        """The conversation that a row was predicted in."""
        return self._by_id[str(row.conversation_id)]


@dataclass(frozen=True)
class ReportedRun:
    """All that a report shows. Stages are those that are done, in recipe order, without reports."""

    recipe: RecipeRecord
    recipe_json: dict[str, Any]
    corpus: CorpusRecord
    versions: dict[str, Any]
    stages: list[StageRecord]
    pending: list[str]  # names of stages that are neither done nor skipped
    skipped: dict[str, list[str]]  # by reason the names of stages that had nothing to do
    events: list[Event]
    curves: dict[str, list[Point]]
    alignments: dict[str, Alignment]
    mined: dict[str, MinedPairs]  # by mine, search or refine stage
    searches: dict[str, Search]  # by search stage
    rounds: list[Round]
    kept: list[Kept]
    systems: list[System]
    differences: list[Difference]  # every test between two of the systems
    judgings: dict[str, Judging]  # by judge stage
    ways: dict[str, Ways]  # by compare stage


def read_run(folder: Path) -> ReportedRun:
    """Read and check a run's folder.

    Raises:
        RunError: a file is missing or broken; one sentence names it.
        CorpusError, PredictionsError: the same, for trees and what is predicted in them.
    """
    if not folder.is_dir():
        raise RunError(f"{folder} is not a folder: give the folder of a run, which holds recipe.json.")
    recipe_json = read_record(folder / "recipe.json", dict[str, Any])
    recipe = read_record(folder / "recipe.json", RecipeRecord)
    records = [record for stage in recipe.stages if (record := _stage_record(folder, stage.name))]
    ended = {record.name for record in records}
    stages = [record for record in records if record.state == "done" and record.stage != "report"]
    done = {record.name: record for record in stages}
    rounds = read_rounds(folder, stages)
    evaluations = [
        read_record(folder / s.name / "evaluation.json", Comparison) for s in stages if s.stage == "evaluate"
    ]
    return ReportedRun(
        recipe=recipe,
        recipe_json=recipe_json,
        corpus=read_record(folder / "corpus.json", CorpusRecord),
        versions=read_record(folder / "versions.json", dict[str, Any]),
        stages=stages,
        pending=[stage.name for stage in recipe.stages if stage.name not in ended and stage.stage != "report"],
        skipped=skipped_stages(records),
        events=read_lines(folder / "events.jsonl", Event),
        # A pretrain stage that had nothing to train (model.path is given) is done and has no steps.
        alignments={s.name: Alignment.model_validate(s.facts) for s in stages if s.stage == "preference"},
        mined={s.name: read_record(folder / s.name / "pairs.json", MinedPairs) for s in stages if s.stage in _MINING},
        searches={s.name: read_search(folder / s.name) for s in stages if s.stage == "search"},
        rounds=rounds,
        kept=read_kept(folder, recipe, stages, rounds),
        curves={s.name: read_lines(folder / s.name / "curve.jsonl", Point) for s in stages if "steps" in s.facts},
        systems=_systems(folder, recipe, done, {name: f for each in evaluations for name, f in each.files.items()}),
        differences=[difference for each in evaluations for difference in each.comparisons],
        judgings={s.name: read_record(folder / s.name / "judging.json", Judging) for s in stages if s.stage == "judge"},
        ways={s.name: read_record(folder / s.name / "comparison.json", Ways) for s in stages if s.stage == "compare"},
    )


def _stage_record(folder: Path, name: str) -> StageRecord | None:
    """The record of a stage that is done or was skipped; None for any other, whose files are not read."""
    path = folder / "stages" / f"{name}.json"
    if not path.exists():
        return None
    record = read_record(path, StageRecord)
    return record if record.state in ("done", "skipped") else None


def _systems(
    folder: Path, recipe: RecipeRecord, done: dict[str, StageRecord], figures: dict[str, Evaluation]
) -> list[System]:
    predicting = [stage for stage in recipe.stages if stage.stage in ("predict", "baseline") and stage.name in done]
    uses = Counter(stage.supporter for stage in predicting)
    supporters = {stage.name: stage for stage in recipe.stages if stage.stage == "supporter"}
    systems = []
    for number, stage in enumerate(predicting):
        conversations = read_conversations(folder / stage.name / "trees.jsonl")
        taxonomy = _taxonomy(conversations)
        systems.append(
            System(
                name=stage.supporter if stage.supporter and uses[stage.supporter] == 1 else stage.name,
                stage=stage.name,
                parts=supporter_parts(supporters.get(stage.supporter or "")),
                split=str(done[stage.name].facts.get("split", "predicted")),
                number=number,
                taxonomy=taxonomy,
                conversations=conversations,
                predictions=predictions_of(conversations, stage.name, taxonomy),
                figures=figures.get(stage.name),
            )
        )
    return systems


def supporter_parts(supporter: StageConfig | None) -> tuple[str, ...]:
    """What a supporter is made of: (coupled), (planner, generator), (planner), or a model as it is, with a planner."""
    return tuple(
        part for part in ("coupled", "planner", "generator", "model") if supporter and getattr(supporter, part)
    )


def _taxonomy(conversations: list[Conversation]) -> Taxonomy:
    return next((TAXONOMIES[each.taxonomy] for each in conversations if each.taxonomy), ESCONV)
