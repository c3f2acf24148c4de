"""General ability: what lm-eval (EleutherAI) measures of a model here, an adapter applied and not merged."""

import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from math import isfinite, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from esckit.chat_models.opening import REMOTE, is_chat_model
from esckit.errors import EsckitError, ModelError
from esckit.supporters.wrong_folders import not_a_supporter

if TYPE_CHECKING:
    from esckit.language_models.backbone import Backbone

__all__ = [
    "Ability",
    "AbilityOptions",
    "Score",
    "Tasks",
    "check_measurable",
    "difference",
    "main_figures",
    "measure_ability",
    "open_tasks",
]

_MAIN: Final = (
    "exact_match,flexible-extract",
    "exact_match",
    "prompt_level_strict_acc",
    "acc_norm",
    "acc",
)
"""Which figure of a task goes into the mean over tasks: the first that begins so, else the task's first."""

_Z: Final = 1.96
_RESAMPLES: Final = 1000


@dataclass(frozen=True)
class AbilityOptions:
    """How tasks are asked; what is None is as the task says."""

    shots: int | None = None  # examples before each question
    limit: int | None = None  # so many questions of each task, the first ones
    batch_size: int = 8
    chat: bool = False  # in the model's chat messages


class Tasks(NamedTuple):
    """Tasks that lm-eval knows, and who knows them."""

    names: list[str]
    manager: Any


@dataclass(frozen=True)
class Score:
    """One figure of a task, between 0 and 1 for shares.

    Attributes:
        n: questions.
        stderr: lm-eval's standard error; None where it gives none.
        values: by question, for paired differences; empty where the figure is no mean over questions.
    """

    n: int
    value: float
    stderr: float | None
    values: tuple[float, ...] = field(default=(), repr=False)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of 95%, by the standard error."""
        return None if self.stderr is None else (self.value - _Z * self.stderr, self.value + _Z * self.stderr)


@dataclass(frozen=True)
class Ability:
    """What one model reached: by task and figure (``acc_norm``, or ``exact_match,strict-match`` with its filter)."""

    model: str
    shots: Mapping[str, int]
    scores: Mapping[tuple[str, str], Score]


def open_tasks(names: Sequence[str], folder: Path | None = None) -> Tasks:
    """Find tasks, and fetch their data, before any model is loaded.

    Args:
        names: tasks, groups or tags of lm-eval.
        folder: with tasks of the user's own (lm-eval's YAML files).

    Raises:
        ModuleNotFoundError: lm-eval is not installed.
        EsckitError: it does not know a task, or its data cannot be had.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from datasets import disable_progress_bars
    from lm_eval.tasks import TaskManager

    disable_progress_bars()
    manager = TaskManager(include_path=str(folder), include_defaults=False) if folder else None
    if manager is None or not set(names) <= set(manager.all_tasks):  # its own thousands take seconds to find
        manager = TaskManager(include_path=str(folder) if folder else None)
    if unknown := sorted(set(names) - set(manager.all_tasks)):
        raise EsckitError(f"lm-eval knows no task {unknown[0]!r}: choose among those that `lm-eval ls tasks` prints.")
    try:
        manager.load(list(names))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise EsckitError(
            f"the data of {', '.join(names)} cannot be had ({reason}): let lm-eval fetch them once where the Hub can "
            "be reached."
        ) from error
    return Tasks(list(names), manager)


def check_measurable(source: str) -> None:
    """Refuse, before anything is fetched or loaded, what is no model on this machine.

    Raises:
        ModelError: one sentence says what it is.
    """
    from esckit.language_models.backbone import check_source
    from esckit.supporters.supporter_folder import read_card

    if (Path(source) / "supporter.json").exists():
        card = read_card(Path(source))
        if card.generator != "language":
            raise ModelError(f"no language model words the replies of {source}: name a supporter that has one.")
        if card.own is not None:
            check_measurable(str(card.base))
    elif source.startswith(REMOTE):
        raise ModelError(f"{source} is behind a URL: lm-eval asks such models by itself (its local-chat-completions).")
    elif not is_chat_model(source):
        raise not_a_supporter(source)
    else:
        check_source(source)


def measure_ability(model: str, tasks: Tasks, options: AbilityOptions) -> Ability:
    """Let lm-eval ask one model.

    Args:
        model: a base, an adapter's folder (of a stage, such as ``RUN/dpo/coupled``), or a supporter's, of which it is
            the model that words its replies.

    Raises:
        ModelError: it cannot be loaded; or see `check_measurable`.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    backbone, adapter = _opened(model)
    with backbone.playing(adapter) as played, redirect_stdout(sys.stderr):  # standard output is the figures'
        asked = HFLM(pretrained=played, tokenizer=backbone.tokenizer, batch_size=options.batch_size)
        found = lm_eval.simple_evaluate(
            model=asked,
            tasks=tasks.names,
            task_manager=tasks.manager,
            num_fewshot=options.shots,
            limit=options.limit,
            apply_chat_template=options.chat,
            bootstrap_iters=_RESAMPLES,
        )
    parts = {part for own in found["group_subtasks"].values() for part in own}
    named = {task: figures for task, figures in found["results"].items() if task not in parts}
    scores = {
        (task, key.removesuffix(",none")): _score(found, task, key)
        for task, figures in named.items()
        for key in figures
        if "," in key and "_stderr," not in key
    }
    return Ability(model, {task: number for task, number in found["n-shot"].items() if task in named}, scores)


def _score(found: Mapping[str, Any], task: str, key: str) -> Score:
    """One figure, with each question's value where they have the figure as their mean."""
    metric, _, kind = key.partition(",")
    figures = found["results"][task]
    value, stderr = float(figures[key]), figures.get(f"{metric}_stderr,{kind}")
    rows = [
        row
        for name in found["group_subtasks"].get(task) or [task]
        for row in found["samples"].get(name, ())
        if row["filter"] == kind and isinstance(row.get(metric), int | float)
    ]
    values = tuple(float(row[metric]) for row in rows)
    by_question = bool(values) and abs(fmean(values) - value) < 1e-9
    n = sum(found["n-samples"][name]["effective"] for name in found["group_subtasks"].get(task) or [task])
    known = isinstance(stderr, float) and isfinite(stderr)  # of one question there is none
    return Score(n, value, stderr if known else None, values if by_question else ())


def difference(one: Score, other: Score) -> Score:
    """One minus the other, paired by question where both have values by question, else as of two samples."""
    if one.values and len(one.values) == len(other.values) > 1:
        values = [a - b for a, b in zip(one.values, other.values, strict=True)]
        return Score(one.n, fmean(values), stdev(values) / sqrt(len(values)))
    both = None if one.stderr is None or other.stderr is None else sqrt(one.stderr**2 + other.stderr**2)
    return Score(one.n, one.value - other.value, both)


def main_figures(ability: Ability) -> list[tuple[str, str]]:
    """One figure of each task (`_MAIN`), whose mean is the mean over tasks."""
    by_task: dict[str, list[str]] = {}
    for task, figure in ability.scores:
        by_task.setdefault(task, []).append(figure)
    return [
        (task, next((each for begin in _MAIN for each in figures if each.startswith(begin)), figures[0]))
        for task, figures in by_task.items()
    ]


def _opened(source: str) -> "tuple[Backbone, str | None]":
    """The model, and the adapter to be active."""
    from esckit.language_models.backbone import load_backbone
    from esckit.language_models.folders import adapter_base
    from esckit.supporters.language_parts import load_adapters
    from esckit.supporters.supporter_folder import load_base, read_card

    folder = Path(source)
    if (folder / "supporter.json").exists():
        card = read_card(folder)
        if card.own is not None:
            return _opened(str(card.base))
        part = card.adapters[-1]
        return load_adapters(load_base(folder, card), {part: folder / part}), part
    if (base := adapter_base(source)) is not None:
        return load_adapters(load_backbone(base), {"coupled": folder}), "coupled"
    return load_backbone(source), None
