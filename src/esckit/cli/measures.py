"""``esckit evaluate`` and ``esckit agreement``: measure files. They need no torch; heavy imports happen inside."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from esckit.cli import shared
from esckit.errors import EsckitError

if TYPE_CHECKING:
    from esckit.measures import Prediction
    from esckit.strategy import Taxonomy


def evaluate_command(
    files: Annotated[list[Path], typer.Argument(help="Predictions files; several are compared.")],
    as_json: shared.JsonOption = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print LaTeX (booktabs).")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    metrics: Annotated[
        str, typer.Option(help="Of strategy, text, meteor, patterns, bertscore, relevance, with commas.")
    ] = "strategy,text,meteor,patterns",
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Who wrote the files: esckit, trees, llamafactory or decoupled-esc; of several, one for each, with "
            "commas. Default: as the names of their fields tell.",
        ),
    ] = None,
    taxonomy: Annotated[str, typer.Option(help="Whose labels, such as esconv or cso.")] = "esconv",
    unparsed: Annotated[
        str, typer.Option(help="Predicted strategies that name no label: wrong, drop or refuse.")
    ] = "wrong",
    tokenizer: Annotated[
        str | None, typer.Option(help="nltk-words, nltk-word-tokenize or characters; default: by language.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="For bertscore and relevance: a model's folder, or its id on the Hub.")
    ] = None,
    conversations: Annotated[
        Path | None, typer.Option(help="The dialogues predicted, for strategy by stage and relevance.")
    ] = None,
    labels: shared.LabelsOption = None,
    phrases: Annotated[bool, typer.Option(help="Print frequent and overused phrases too.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of bootstrap, noise floor and permutations.")] = 0,
) -> None:
    """Measure predictions: strategy, preference bias, text, patterns over a dialogue; test files against each other.

    Example: esckit evaluate coupled.jsonl decoupled.jsonl --markdown
    """
    from esckit.measures import compare
    from esckit.measures.strategy_measures import Unparsed
    from esckit.measures.text import TokenizerName
    from esckit.report.figure_tables import draw, evaluation_tables, to_latex, to_markdown
    from esckit.strategy import TAXONOMIES

    _check("--taxonomy", taxonomy, tuple(TAXONOMIES))
    _check("--unparsed", unparsed, get_args(Unparsed))
    _check("--tokenizer", tokenizer or "nltk-words", get_args(TokenizerName))
    if as_json + as_latex + as_markdown > 1:
        raise EsckitError("--json, --latex and --markdown exclude each other: give one of them.")
    rows = _predictions(name_files(files), source, TAXONOMIES[taxonomy], conversations, labels)
    settings: dict[str, Any] = {"seed": seed, "unparsed": unparsed, "tokenizer": tokenizer, "encoder": encoder}
    measures = [name.strip() for name in metrics.split(",")]
    compared = compare(rows, TAXONOMIES[taxonomy], metrics=measures, **settings)
    alone = next(iter(compared.files.values())) if len(rows) == 1 else None
    if as_json:
        shared.print_json((alone or compared).to_json())
    else:
        show = to_latex if as_latex else to_markdown if as_markdown else draw
        print(*map(show, evaluation_tables(compared, phrases=phrases)), sep="\n\n")


def agreement_command(
    ratings: Annotated[
        Path, typer.Argument(help="A CSV file with the columns item, rater, rating, or item and one for each rater.")
    ],
    columns: Annotated[
        str | None, typer.Option(help="What item, rater and rating are called in a CSV or JSON file, with commas.")
    ] = None,
    seed: shared.SeedOption = 0,
) -> None:
    """Measure how far raters agree: Fleiss' and Cohen's kappa, Krippendorff's alpha, with intervals, as JSON.

    Example: esckit agreement ratings.csv
    """
    from esckit.measures import agreement, read_ratings

    names = columns and [name.strip() for name in columns.split(",")]
    if names and len(names) != 3:
        raise EsckitError(f"--columns {columns!r} names {len(names)} columns: give three, item, rater and rating.")
    shared.print_json(agreement(read_ratings(ratings, names or None), seed=seed))


def errors_command(
    trees: Annotated[list[Path], typer.Argument(help="Trees with verdicts, as esckit annotate writes them.")],
    as_json: shared.JsonOption = False,
    seed: shared.SeedOption = 0,
) -> None:
    """Show how often replies have which psychological error, by who said them and who judged.

    Several files are taken together; a dialogue that stands in two of them counts as one.

    Example: esckit errors annotated.jsonl
    """
    from esckit.conversation import iterate_conversations
    from esckit.measures.intervals import Draws
    from esckit.measures.psychological_errors import error_shares
    from esckit.report.figure_tables import draw
    from esckit.report.judging_tables import shares_table

    found = error_shares((tree for path in trees for tree in iterate_conversations(path)), Draws(seed))
    if as_json:
        shared.print_json([each.to_json() for each in found])
    else:
        print(draw(shares_table(found)))


def _predictions(
    files: Mapping[str, Path], source: str | None, taxonomy: "Taxonomy", conversations: Path | None, labels: Path | None
) -> "dict[str, list[Prediction]]":
    from esckit.measures import add_context, import_predictions
    from esckit.measures.importers import holds_trees

    sources = [name.strip() for name in source.split(",")] if source else [None]
    if len(sources) not in (1, len(files)):
        raise EsckitError(
            f"--from names {len(sources)} sources for {len(files)} files: give one, or one for each file."
        )
    rows: dict[str, list[Prediction]] = {}
    for (name, path), own in zip(files.items(), sources * (len(files) // len(sources)), strict=True):
        if own == "trees" or (own is None and holds_trees(path)):
            rows |= _systems_in(name if len(files) > 1 else "", path, taxonomy)
        else:
            rows[name] = import_predictions(path, own, taxonomy)
    if conversations is not None:
        dialogues = shared.read_dialogues(conversations, labels=labels)
        rows = {name: add_context(own, dialogues) for name, own in rows.items()}
    return rows


def _systems_in(file: str, path: Path, taxonomy: "Taxonomy") -> "dict[str, list[Prediction]]":
    """The systems whose predictions stand in trees; a file's name, where one is given, is part of theirs."""
    from esckit.conversation import read_conversations
    from esckit.measures import predictions_in

    found = predictions_in(read_conversations(path), taxonomy)
    if not found:
        raise EsckitError(f"{path} holds no predicted turn: give trees to which predictions were added.")
    return {f"{file}: {system}" if file else system: own for system, own in found.items()}


def name_files(files: Sequence[Path]) -> dict[str, Path]:
    """Name each file by as much of the end of its path as tells it from the others."""
    paths = [path.absolute() for path in files]
    for path in paths:
        if paths.count(path) > 1:
            raise EsckitError(f"{path} is given twice: give every predictions file once.")
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return dict(zip(names, files, strict=True))


def _check(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise EsckitError(f"{option} {value!r} is unknown: use one of {', '.join(allowed)}.")
