"""``esckit check ability``. Heavy imports happen inside the command."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esckit.cli import shared
from esckit.errors import EsckitError
from esckit.quiet import quiet

if TYPE_CHECKING:
    from esckit.report.figure_tables import Table
    from esckit.supporters.ability import Ability, Score


def check_ability_command(
    models: Annotated[
        list[str],
        typer.Argument(help="A base, an adapter's folder, a supporter's; the first is what others are compared with."),
    ],
    tasks: Annotated[str, typer.Option(help="Tasks of lm-eval, with commas between them.")],
    tasks_folder: Annotated[Path | None, typer.Option(help="A folder with tasks of your own (lm-eval's YAML).")] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="Examples before a question; default: the task's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many questions of each task, to try it out.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions read at once.")] = 8,
    chat: Annotated[bool, typer.Option("--chat", help="Ask in the model's chat messages.")] = False,
    trust_remote_code: shared.TrustOption = False,
    as_json: shared.JsonOption = False,
) -> None:
    """Measure what alignment does to a model's general ability, by lm-eval, an adapter applied without merging.

    Example: esckit check ability smollm2 runs/starter-evolution/dpo-2/coupled --tasks openbookqa,ifeval
    """
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise EsckitError("--tasks names no task: give some, with commas between them.")
    if repeated := next((model for model in models if models.count(model) > 1), None):
        raise EsckitError(f"{repeated} is named twice: give each model once.")
    quiet()
    from esckit.supporters.ability import AbilityOptions, check_measurable, measure_ability, open_tasks

    for model in models:
        check_measurable(model)
    found = open_tasks(names, tasks_folder)
    options = AbilityOptions(shots, limit, batch_size, chat)
    reached = [measure_ability(model, found, options) for model in models]
    if as_json:
        told = [_as_json(each, reached[0]) for each in reached]
        shared.print_json({"format": 1, "options": asdict(options), "models": told})
    else:
        from esckit.report.figure_tables import draw

        print(draw(_table(reached)))


def _as_json(reached: "Ability", first: "Ability") -> dict[str, Any]:
    """One model's figures; after the first model each with its difference from the first's."""
    from esckit.supporters.ability import difference

    rows: list[dict[str, Any]] = [
        {"task": task, "figure": figure, "shots": reached.shots.get(task), "n": score.n}
        | {"value": score.value, "stderr": score.stderr}
        for (task, figure), score in reached.scores.items()
    ]
    for row in rows if reached is not first else ():
        one, other = (each.scores[row["task"], row["figure"]] for each in (reached, first))
        gap = difference(one, other)
        row |= {"difference": gap.value, "difference_stderr": gap.stderr, "paired": bool(one.values and other.values)}
    return {"model": reached.model, "figures": rows}


def _table(reached: "Sequence[Ability]") -> "Table":
    """A row for each figure, then the mean over tasks; each further model with its difference from the first."""
    from esckit.report.figure_tables import Table
    from esckit.supporters.ability import difference, main_figures

    first, *others = reached
    main = main_figures(first)
    columns = ["task", "figure", "shots", "n", first.model]
    columns += [title for other in others for title in (other.model, "difference")]
    shares = {key for key in first.scores if all(0 <= each.scores[key].value <= 1 for each in reached)}
    rows = []
    for key, score in first.scores.items():
        scale = 100 if key in shares else 1
        told = [key[0], key[1] + "*" * (key in main), str(first.shots.get(key[0], "-")), f"{score.n:,}"]
        told.append(_cell(score, scale))
        for other in others:
            gap = difference(other.scores[key], score)
            told += [_cell(other.scores[key], scale), _cell(gap, scale, sign="+")]
        rows.append(told)
    if shares.issuperset(main):
        means = [100 * fmean(each.scores[key].value for key in main) for each in reached]
        cells = [cell for mean in means[1:] for cell in (f"{mean:.1f}", f"{mean - means[0]:+.1f}")]
        rows.append(["mean of *", "", "", "", f"{means[0]:.1f}", *cells])
    notes = [
        "shares in per cent; brackets: 95% by lm-eval's standard error, that of differences paired by question where "
        "a figure is a mean over questions"
    ]
    return Table("General ability by lm-eval", columns, 2, rows, notes)


def _cell(score: "Score", scale: int, sign: str = "") -> str:
    told = f"{scale * score.value:{sign}.1f}"
    if score.interval is None:
        return told
    low, high = score.interval
    return f"{told} ({scale * low:.1f}, {scale * high:.1f})"
