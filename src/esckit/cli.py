"""The command line: parses, calls, prints. Heavy imports happen inside commands."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from esckit import __version__
from esckit.cli_corpus import corpus_app
from esckit.cli_judge import check_judge_command, judge_command
from esckit.cli_measures import agreement_command, evaluate_command
from esckit.cli_preferences import check_app, export_app
from esckit.cli_train import train_app
from esckit.errors import EsckitError
from esckit.quiet import quiet

__all__ = ["app", "main"]

app = typer.Typer(
    name="esckit",
    help="Build, align, measure and talk to emotional-support conversation models.\n\nExample: esckit run starter",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(corpus_app, name="corpus")
app.add_typer(export_app, name="export")
app.add_typer(check_app, name="check")
app.add_typer(train_app, name="train")


def main() -> None:
    """Run the command line; an error that a user can cause is one sentence on standard error and exit code 2."""
    try:
        app()
    except EsckitError as error:
        print(f"esckit: {error}", file=sys.stderr)
        sys.exit(2)


def _version(show: bool) -> None:
    if show:
        print(__version__)
        raise typer.Exit


@app.callback()
def _esckit(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command("run")
def run_command(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or path of a YAML file.")],
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; default runs/RECIPE.")] = None,
    fresh: Annotated[bool, typer.Option(help="Run stages whose settings changed again.")] = False,
) -> None:
    """Carry out a recipe: train, predict, measure, report.

    The same command continues a run that was stopped.

    Example: esckit run starter --set seed=1 --out runs/second
    """
    from esckit.recipes.reading import load_recipe

    loaded = load_recipe(recipe, settings)
    folder = out or Path("runs") / Path(recipe).name.removesuffix(".yaml").removesuffix(".yml")
    quiet()
    from esckit.recipes.results import print_results
    from esckit.recipes.runner import run

    try:
        finished = run(loaded, folder, fresh=fresh)
    except KeyboardInterrupt:
        print(f"\nesckit: stopped; the same command continues the run in {folder}.", file=sys.stderr)
        sys.exit(130)
    print_results(finished.folder)


@app.command("predict")
def predict_command(
    supporter: Annotated[Path, typer.Argument(help="A supporter's folder (it holds supporter.json).")],
    corpus: Annotated[Path, typer.Argument(help="Dialogues: ESConv JSON or conversation trees.")],
    out: Annotated[Path, typer.Argument(help="The predictions file to write.")],
    seed: Annotated[int, typer.Option(help="For sampling.")] = 0,
    greedy: Annotated[bool, typer.Option(help="Write the most likely text instead of sampling.")] = False,
    sample_strategy: Annotated[
        bool, typer.Option(help="Draw the strategy at .7 / .95, as the paper's code does.")
    ] = False,
    past_strategies: Annotated[str | None, typer.Option(help="gold, predicted or hidden; default as trained.")] = None,
) -> None:
    """Predict every labelled supporter turn of a corpus.

    The strategy is the most likely one, the text is sampled at temperature .7 and top-p .95.

    Example: esckit predict runs/starter/decoupled dialogues.jsonl predictions.jsonl
    """
    from typing import get_args

    from esckit.corpora import read_corpus

    conversations = read_corpus(corpus)
    quiet()
    from esckit.models.backbone import Decoding
    from esckit.rendering import PastStrategies
    from esckit.supporters import Supporter, predict

    if past_strategies is not None and past_strategies not in get_args(PastStrategies):
        raise EsckitError(f"--past-strategies {past_strategies!r} is unknown: use gold, predicted or hidden.")
    past: Any = past_strategies
    rows = predict(
        Supporter.load(supporter),
        conversations,
        out,
        seed=seed,
        planning=Decoding(greedy=not sample_strategy),
        wording=Decoding(greedy=greedy),
        past=past,
    )
    print(f"{rows} turns predicted into {out}; next: esckit evaluate {out}")


app.command("evaluate")(evaluate_command)
app.command("agreement")(agreement_command)
app.command("judge")(judge_command)
check_app.command("judge")(check_judge_command)
