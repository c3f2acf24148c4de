"""``esckit train planner``: a supporter without a language model from a corpus, in one command."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from esckit.cli import shared
from esckit.errors import EsckitError
from esckit.quiet import quiet

train_app = typer.Typer(
    help="Train parts outside a recipe.\n\nExample: esckit train planner dialogues.jsonl planner",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@train_app.callback()
def _group() -> None:
    """A callback keeps ``planner`` a command of its own where the group has only one."""


@train_app.command("planner")
def planner_command(
    corpus: Annotated[Path, typer.Argument(help="Dialogues with strategies: ESConv JSON or conversation trees.")],
    out: Annotated[Path, typer.Argument(help="The supporter's folder to write.")],
    labels: shared.LabelsOption = None,
    encoder: Annotated[str, typer.Option(help="embedded, a folder or a Hub id.")] = "embedded",
    model: Annotated[str, typer.Option(help="encoder, linear or majority.")] = "encoder",
    seed: Annotated[int, typer.Option(help="Of folds, nets and their training.")] = 0,
    replies: Annotated[
        bool, typer.Option("--replies", help="Also store the corpus's replies: a supporter that answers.")
    ] = False,
    trust_remote_code: shared.TrustOption = False,
) -> None:
    """Train a strategy planner on an encoder, calibrated on dialogues that its nets did not see.

    The same command continues a training that was stopped. The folder is a supporter for esckit predict; with --replies
    it answers with what people said in similar places.

    Example: esckit train planner train.json runs/planner --replies
    """
    from esckit.files import alone
    from esckit.planning.planner_options import PlannerOptions
    from esckit.supporters.embedded import make_supporter

    kinds = get_args(PlannerOptions.model_fields["model"].annotation)
    if model not in kinds:
        raise EsckitError(f"--model {model!r} is unknown: use one of {', '.join(kinds)}.")
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]) and not (out / "supporter.json").exists():
        raise EsckitError(f"{out} holds something else than a supporter: choose another folder.")
    conversations = shared.read_dialogues(corpus, labels=labels)
    quiet()
    options = PlannerOptions.model_validate({"model": model})
    with alone(out, out.with_name(f".{out.name}.lock")):
        facts = make_supporter(
            conversations, corpus.name, out, encoder=encoder, options=options, seed=seed, replies=replies
        )
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
    print(f"{told}\nplanner: {out}; next: esckit predict {out} dialogues.json predictions.jsonl")
