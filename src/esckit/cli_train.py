"""``esckit train planner``: a supporter without a language model from a corpus, in one command."""

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from esckit.errors import EsckitError

__all__ = ["train_app"]

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
    encoder: Annotated[str, typer.Option(help="embedded, a folder or a Hub id.")] = "embedded",
    model: Annotated[str, typer.Option(help="encoder, linear, majority or chance.")] = "encoder",
    seed: Annotated[int, typer.Option(help="Of folds, nets and their training.")] = 0,
    replies: Annotated[
        bool, typer.Option("--replies", help="Also store the corpus's replies: a supporter that answers.")
    ] = False,
) -> None:
    """Train a strategy planner on an encoder, calibrated on dialogues that its nets did not see.

    The same command continues a training that was stopped. The folder is a supporter for esckit predict; with --replies
    it answers with what people said in similar places.

    Example: esckit train planner train.json runs/planner --replies
    """
    from esckit.corpora import read_corpus
    from esckit.files import alone
    from esckit.training.options import PlannerOptions

    kinds = get_args(PlannerOptions.model_fields["model"].annotation)
    if model not in kinds:
        raise EsckitError(f"--model {model!r} is unknown: use one of {', '.join(kinds)}.")
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]) and not (out / "supporter.json").exists():
        raise EsckitError(f"{out} holds something else than a supporter: choose another folder.")
    conversations = read_corpus(corpus)
    with alone(out, out.with_name(f".{out.name}.lock")):
        facts = _train(
            conversations, corpus.name, out, encoder, PlannerOptions.model_validate({"model": model}), seed, replies
        )
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
    print(f"{told}\nplanner: {out}; next: esckit predict {out} dialogues.json predictions.jsonl")


def _train(
    conversations: Any, name: str, out: Path, encoder_source: str, options: Any, seed: int, replies: bool
) -> dict[str, Any]:
    """Train beside the folder, then put it together."""
    import shutil
    from collections import Counter

    from esckit.errors import CorpusError
    from esckit.models.encoder import load_encoder
    from esckit.rendering import supporter_turns
    from esckit.strategy import TAXONOMIES
    from esckit.supporters.retrieval import build_store
    from esckit.supporters.supporter import SupporterCard, save_supporter
    from esckit.training.encoder import train_planner

    if not any(supporter_turns(conversation) for conversation in conversations):
        raise CorpusError(f"{name} has no supporter turn with a strategy: a planner cannot be trained on it.")
    encoder, taxonomy = load_encoder(encoder_source), TAXONOMIES[str(conversations[0].taxonomy)]
    work = out.with_name(f".{out.name}.training")
    facts = train_planner(conversations, encoder, taxonomy, options, work / "planner", seed=seed, title="planner")
    facts = {key: facts[key] for key in ("dialogues", "turns")}
    parts = {"planner": work / "planner"}
    if replies:
        left_out: Counter[str] = Counter()
        licence = str(conversations[0].provenance.get("licence", "as the corpus's"))
        build_store(conversations, encoder, name, licence, left_out).save(work / "generator")
        parts["generator"] = work / "generator"
        facts = {**facts, "replies_left_out": sum(left_out.values())}
    kind: Any = "retrieval" if replies else "none"
    card = SupporterCard("decoupled", "gold", taxonomy=taxonomy.name, planner="encoder", generator=kind)
    save_supporter(out, card, parts)
    shutil.rmtree(work)
    return facts
