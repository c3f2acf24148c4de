"""``esckit check toxicity``. Heavy imports happen inside the command."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from esckit.cli import shared
from esckit.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from esckit.mining.tree_search.toxicity import Toxicity

_TITLES: Final = {
    "seed_seeker": "seed, seeker",
    "seed_supporter": "seed, supporter",
    "seeker": "search, seeker",
    "kept": "search, kept (+)",
    "rejected": "search, rejected (-)",
}


def check_toxicity_command(
    trees: Annotated[Path, typer.Argument(help="Conversation trees (a search stage's trees.jsonl).")],
    model: Annotated[str, typer.Option(help="A text classifier: a folder, or a Hub id.")],
    label: Annotated[
        list[str] | None,
        typer.Option(help="A label that counts as toxic, once for each; default: those with toxic in their names."),
    ] = None,
    trust_remote_code: shared.TrustOption = False,
    as_json: shared.JsonOption = False,
    seed: shared.SeedOption = 0,
) -> None:
    """Measure how toxic the seed's, the kept and the rejected turns are, by a text classifier of yours.

    Example: esckit check toxicity runs/starter-cso/search/trees.jsonl --model models/toxic-bert
    """
    from esckit.conversation import read_conversations
    from esckit.measures.intervals import Draws

    conversations = read_conversations(trees)
    quiet()
    from esckit.mining.tree_search.toxicity import load_classifier, toxicity

    classifier = load_classifier(model, label or ())
    figures, cut = toxicity(conversations, classifier, Draws(seed=seed))
    counted = [classifier.labels[place] for place in classifier.toxic]
    if cut:
        print(f"note: {cut} texts are longer than the model reads; their beginning counts", file=sys.stderr)
    if as_json:
        parts = {part: {**row._asdict(), "interval": row.interval} for part, row in figures.items()}
        shared.print_json({"model": model, "labels": counted, "cut": cut, "parts": parts})
    else:
        _print_figures(figures, f"{model}; labels: {', '.join(counted)}")


def _print_figures(figures: "Mapping[str, Toxicity]", by: str) -> None:
    from esckit.report.figure_tables import draw, interval, lay_out

    rows = [(_TITLES[part], row) for part, row in figures.items()]
    columns = {
        "turns of": lambda row: row[0],
        "turns": lambda row: f"{row[1].turns:,}",
        "toxicity": lambda row: "-" if row[1].mean is None else f"{row[1].mean:.4f}",
        "95% interval": lambda row: interval(row[1].interval, digits=4),
    }
    notes = [f"mean probability of being toxic by {by}", "intervals: bootstrap over dialogues"]
    print(draw(lay_out("Toxicity", rows, columns, names=1, notes=notes)))
