"""What stages that train a language model share: datasets with their counts, training with checkpoints, the curve."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from esckit.files import sync, write_jsonl, writing
from esckit.language_models.token_tree import TokenTrie, build_tries
from esckit.recipes.folder import CHECKPOINTS, RunFolder
from esckit.recipes.stage import Stage
from esckit.rendering import Example
from esckit.training.batches import ConversationDataset, TrieDataset
from esckit.training.processes import is_main
from esckit.training.trainer import Objective, train
from esckit.training.training_options import TrainingOptions


def make_tries(
    run: RunFolder,
    stage: Stage,
    options: TrainingOptions,
    conversations: Iterable[list[Example]],
    *,
    count: bool = True,
) -> TrieDataset:
    """Merge each conversation's targets; count what was cut or divided unless ``count`` is false."""
    rows = list(conversations)
    tries = [build_tries(examples, options.max_tokens_per_row) for examples in rows]
    if count:
        count_cuts(run, stage, (example for examples in rows for example in examples), tries)
    return TrieDataset(tries)


def count_cuts(run: RunFolder, stage: Stage, examples: Iterable[Example], tries: Iterable[list[TokenTrie]]) -> None:
    """Count targets whose context was cut, and conversations that do not fit one row."""
    run.count(stage, "targets whose context lost its oldest turns", sum(e.dropped > 0 for e in examples))
    run.count(stage, "conversations divided over rows", sum(len(own) > 1 for own in tries))


def train_stage(
    run: RunFolder,
    stage: Stage,
    options: TrainingOptions,
    model: Any,
    dataset: ConversationDataset,
    folder: Path,
    save: Callable[[], None],
    *,
    objective: Objective | None = None,
    valid: ConversationDataset | None = None,
) -> dict[str, Any]:
    """Train with checkpoints on behalf of ``stage``, save, sync, and write the curve, last; return facts.

    The checkpoints stay until the stage is done: what follows in it may be stopped too.
    """
    trained = train(
        model,
        dataset,
        options,
        folder=folder / CHECKPOINTS,
        title=stage.name if folder.name == stage.name else f"{stage.name} {folder.name}",
        seed=run.seed(stage),
        objective=objective,
        valid=valid,
    )
    if is_main():
        with writing(folder):
            save()
            sync(folder)  # or a power cut could leave a stage that is done and its files empty
        write_jsonl(folder / "curve.jsonl", trained.curve)
    facts = {"steps": trained.steps, "scored_tokens": trained.scored_tokens, "tokens_read": trained.nodes}
    return {**facts, **({"planned_steps": trained.planned, "best_step": trained.best} if trained.best else {})}
