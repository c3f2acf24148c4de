"""The newcomer's file: how a recipe becomes a report, top to bottom.

A run lives in one folder. Each stage reads what earlier stages made, writes into a folder of its own name, and leaves
a record ``stages/<name>.json``; a stage that is done and unchanged is skipped, so the same command continues after a
stop. What a stage does stands in its kind (`recipes.stages`).
"""

import sys
import time
from pathlib import Path

from esckit.corpora import Corpus
from esckit.errors import CorpusError, RunError
from esckit.hub import code_allowed
from esckit.judging.open_annotator import check_annotator
from esckit.language_models.backbone import check_backbone
from esckit.measures.results import Comparison
from esckit.measures.ways import Ways
from esckit.recipes.folder import RunFolder
from esckit.recipes.recipe import Recipe
from esckit.recipes.stage import Stage
from esckit.rendering import supporter_turns
from esckit.report.figure_tables import draw, evaluation_tables
from esckit.report.reading import read_record
from esckit.report.ways_tables import costs_table, gains_table
from esckit.training.processes import from_main, is_main, join_processes, wait


def run(recipe: Recipe, out: Path | str, *, fresh: bool = False) -> RunFolder:
    """Carry out a recipe in a folder; continue where an earlier run of the same recipe stopped.

    Where a launcher started several processes, all train, and the first one does the rest and all writing. With
    ``fresh``, changed stages (and all that read them) run again instead of being refused.

    Raises:
        RunError: the folder holds a stage that was run with other settings, and ``fresh`` is not set.
        EsckitError: another run is at work in the folder; any stage's own.
    """
    with code_allowed(recipe.model.trust_remote_code):
        return _run(recipe, Path(out), fresh)


def _run(recipe: Recipe, out: Path, fresh: bool) -> RunFolder:
    join_processes()
    if recipe.model.path:
        check_backbone(recipe.model.path)
    folder = RunFolder(recipe, out, load_checked(recipe))
    with folder.alone():
        if not fresh:
            from_main(folder.refuse_outdated)
        folder.describe()
        for stage in recipe.stages:
            if not from_main(folder.is_done, stage):
                _carry_out(folder, stage)
            from_main(folder.remove_checkpoints, stage)
    return folder


def load_checked(recipe: Recipe) -> Corpus:
    """Load the corpus, and refuse before anything is written what would fail after hours.

    Raises:
        RunError: the recipe has no backbone, or stages that do not fit the corpus.
        CorpusError: the corpus cannot be read, or lacks what a stage needs.
        EsckitError: a model or an encoder that a stage names cannot be had.
    """
    if recipe.needs_backbone and not recipe.model.path and not recipe.makes_backbone:
        raise RunError("the recipe has no backbone: add a pretrain stage, or set model.path to a causal LM.")
    corpus = recipe.corpus.load()
    if recipe.asks_annotator:
        check_annotator(recipe.annotator, corpus.train)
    labelled = any(stage.labels_corpus for stage in recipe.stages)
    if not labelled and not any(supporter_turns(conversation) for conversation in corpus.train):
        raise CorpusError(
            f"the training part of {corpus.source} has no supporter turn with a strategy: nothing can be trained on it."
        )
    for stage in recipe.stages:
        stage.check_before(recipe, corpus)
    return corpus


def _carry_out(folder: RunFolder, stage: Stage) -> None:
    """Do a stage's work, between the record that it runs and the one that it is done; or record why it is skipped."""
    if why := from_main(stage.skips, folder):
        from_main(folder.begin, stage)
        folder.record(stage, state="skipped", facts={"why": why})
        if is_main():
            print(f"esckit: {stage.name} is skipped: {why}.", file=sys.stderr)
        return
    started = time.monotonic()
    from_main(folder.begin, stage)
    facts = stage.work(folder) if is_main() or stage.in_all_processes else {}
    wait()
    folder.record(stage, state="done", facts=facts, seconds=round(time.monotonic() - started, 1))


def print_results(folder: Path) -> None:
    """Print every evaluation and comparison of a run's folder with its tests, and where its report is."""
    for path in _left(folder, "evaluation.json"):
        evaluation = read_record(path, Comparison)
        print(*map(draw, evaluation_tables(evaluation)), sep="\n")
    for path in _left(folder, "comparison.json"):
        ways = read_record(path, Ways)
        print(draw(costs_table(ways)))
        print(draw(gains_table(ways)))
    report = folder / "report.html"
    print(f"report: {report}" if report.exists() else f"run: {folder}")


def _left(folder: Path, name: str) -> list[Path]:
    """A file that stages left; their records stand under their names in a folder of their own."""
    return sorted(path for path in folder.glob(f"*/{name}") if path.parent.name != "stages")
