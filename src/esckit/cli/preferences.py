"""``esckit export preferences``, ``replies`` and ``model``, and ``check preferences``; heavy imports inside."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from esckit.cli import shared
from esckit.errors import CorpusError, EsckitError
from esckit.quiet import quiet

if TYPE_CHECKING:
    from esckit.conversation import Conversation
    from esckit.mining.pairs import Pair, PairReport

export_app = typer.Typer(
    help="Write what other tools read.\n\nExample: esckit export preferences trees.jsonl pairs.jsonl --to trl",
    no_args_is_help=True,
    rich_markup_mode=None,
)
check_app = typer.Typer(
    help="Look for what would spoil training.\n\nExample: esckit check preferences trees.jsonl",
    no_args_is_help=True,
    rich_markup_mode=None,
)

TreeArgument = Annotated[Path, typer.Argument(help="Conversation trees with preferences (a mine stage's trees.jsonl).")]
PartOption = Annotated[
    str | None, typer.Option(help="planner, generator or coupled; default: the one whose pairs the file holds.")
]


@export_app.callback()
@check_app.callback()
def _group() -> None:
    """A callback keeps ``preferences`` a command of its own where a group has only one."""


@export_app.command("preferences")
def export_command(
    tree: TreeArgument,
    out: Annotated[Path, typer.Argument(help="The JSON Lines file to write.")],
    to: Annotated[str, typer.Option(help="trl (DPOTrainer: prompt, chosen, rejected) or trl-kto (KTOTrainer).")],
    part: PartOption = None,
    past_strategies: Annotated[
        str | None, typer.Option(help="gold or hidden; default: gold for the coupled part, hidden for the others.")
    ] = None,
    drop_faulty: Annotated[bool, typer.Option(help="Leave faulty and duplicate pairs out.")] = False,
) -> None:
    """Write preference pairs in TRL's conversational form, a pair (trl) or a reply (trl-kto) a line.

    docs/mining.md says where TRL's figures on such a file differ from esckit's.

    Example: esckit export preferences runs/starter/planner-pairs/trees.jsonl pairs.jsonl --to trl
    """
    from esckit.conversation import read_conversations
    from esckit.files import write_jsonl
    from esckit.mining.export import DEFAULT_PAST, to_kto, to_trl

    _known("--to", to, ("trl", "trl-kto"))
    if past_strategies:
        _known("--past-strategies", past_strategies, ("gold", "hidden"))
    if out.exists() and tree.exists() and out.samefile(tree):
        raise EsckitError(f"{out} is the file that is read: write to another one.")
    wanted, pairs = _pairs(tree, read_conversations(tree), part, drop_faulty)
    past: Any = past_strategies or DEFAULT_PAST[wanted]
    rows = list(to_trl(pairs, past) if to == "trl" else to_kto(pairs, past))
    write_jsonl(out, rows)
    print(f"{len(rows)} {'pairs' if to == 'trl' else 'replies'} of the {wanted}, past strategies {past}, in {out}")


@export_app.command("replies")
def export_replies_command(
    tree: TreeArgument,
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    part: PartOption = None,
) -> None:
    """Write chosen and rejected replies as two predictions files, so that judges and measures read them.

    DecoupledESC's table 3. Beside chosen.jsonl and rejected.jsonl stands conversations.jsonl, the talks before them.

    Example: esckit export replies runs/starter/generator-pairs/trees.jsonl pairs
    """
    from esckit.conversation import read_conversations, write_conversations
    from esckit.files import write_jsonl
    from esckit.measures import prediction_to_json
    from esckit.mining.export import to_predictions

    conversations = read_conversations(tree)
    wanted, pairs = _pairs(tree, conversations, part, drop_faulty=True)
    try:
        sides = to_predictions(pairs)
    except CorpusError as error:
        raise CorpusError(f"{tree}: {error}") from error
    talks = out / "conversations.jsonl"
    if talks.exists() and talks.samefile(tree):
        raise EsckitError(f"{out} holds the file that is read: write to another folder.")
    for name, side in zip(("chosen", "rejected"), sides, strict=True):
        write_jsonl(out / f"{name}.jsonl", map(prediction_to_json, side))
    write_conversations(talks, conversations)
    print(f"{len(sides[0])} chosen and as many rejected replies of the {wanted} ({len(pairs)} pairs), in {out}")


@export_app.command("model")
def export_model_command(
    model: Annotated[Path, typer.Argument(help="A supporter's folder, an adapter's, or a GGUF file.")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    part: Annotated[
        str | None, typer.Option(help="Of a supporter: planner, generator or coupled; default: what words its replies.")
    ] = None,
    stored: Annotated[
        str, typer.Option(help="Number format of the weights: float32, bfloat16 or float16.")
    ] = "float32",
    trust_remote_code: shared.TrustOption = False,
) -> None:
    """Write a whole model for other tools: an adapter merged into its base, with tokenizer and chat template.

    transformers, vLLM and llama.cpp's converter read the folder (docs/backbone.md).

    Example: esckit export model runs/starter/decoupled merged --part generator
    """
    asked: Any = _part(part)
    _known("--stored", stored, ("float32", "bfloat16", "float16"))
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / "esckit.json").exists():
        raise EsckitError(f"{out} holds something else than an exported model: choose another folder.")
    if model.exists() and out.exists() and out.samefile(model):
        raise EsckitError(f"{out} is the folder that is read: write to another one.")
    quiet()
    from esckit.supporters.export_model import export_model

    written = export_model(model, out, asked, stored)  # type: ignore[arg-type]
    what = f"the {written.part} on {written.base}" if written.part else written.base
    print(f"{what}, {written.parameters:,} parameters in {stored}, in {out}")


@check_app.command("preferences")
def check_command(
    tree: TreeArgument,
    part: Annotated[
        str | None, typer.Option(help="planner, generator or coupled; default: each that has pairs.")
    ] = None,
) -> None:
    """Count what would spoil training on preference pairs, a row a part.

    Exit code 0: every pair can be trained on; 1: some must not be, or there is none; 2: the file cannot be read.

    Example: esckit check preferences runs/starter/planner-pairs/trees.jsonl
    """
    from esckit.conversation import read_conversations
    from esckit.mining.pairs import ASPECTS, lint_pairs, pairs_of

    asked = _part(part)
    conversations = read_conversations(tree)
    reports = {name: lint_pairs(pairs_of(conversations, name)) for name in ([asked] if asked else ASPECTS)}
    _print_reports({name: report for name, report in reports.items() if report.pairs})
    _print_reasons({name: pairs_of(conversations, name) for name in reports})
    if not any(report.pairs for report in reports.values()) or any(report.equal for report in reports.values()):
        raise typer.Exit(1)


def _pairs(
    tree: Path, conversations: "Sequence[Conversation]", part: str | None, drop_faulty: bool
) -> "tuple[Any, list[Pair]]":
    from esckit.mining.export import guess_part
    from esckit.mining.pairs import check_pairs, pairs_of

    try:
        wanted = _part(part) or guess_part(conversations)
        return wanted, check_pairs(pairs_of(conversations, wanted), drop=drop_faulty)
    except CorpusError as error:
        raise CorpusError(f"{tree}: {error}") from error


def _part(part: str | None) -> Any:
    from esckit.rendering import Part

    if part is not None:
        _known("--part", part, get_args(Part))
    return part


def _known(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise EsckitError(f"{option} {value!r} is unknown: use {', '.join(allowed[:-1])} or {allowed[-1]}.")


def _print_reports(reports: "dict[Any, PairReport]") -> None:
    from rich.console import Console
    from rich.table import Table

    if not reports:
        print("there is no preference pair in this file")
        return
    table = Table("part", box=None, pad_edge=False)
    for title in ("pairs", "equal", "duplicates", "longer chosen", "length ratio"):
        table.add_column(title, justify="right")
    for name, report in reports.items():
        *counts, ratio = report
        table.add_row(name, *(f"{count:,}" for count in counts), f"{ratio:.2f}")
    Console().print(table)


def _print_reasons(pairs: "dict[Any, list[Pair]]") -> None:
    """What is wrong with rejected sides and who said so, for pairs that were judged."""
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    from esckit.mining.pairs import kind_of

    table = Table("reason", "pairs", "share", "kind", "part", "judge", box=None, pad_edge=False)
    for name, own in pairs.items():
        judged = [pair for pair in own if pair.preference.reason]
        kinds = [kind_of(pair) if name == "coupled" else None for pair in judged]
        rows = Counter((p.preference.reason, kind, p.preference.judge) for p, kind in zip(judged, kinds, strict=True))
        for (reason, kind, judge), count in sorted(rows.items(), key=lambda row: (-row[1], str(row[0]))):
            table.add_row(reason, f"{count:,}", f"{count / len(own):.0%}", kind or "-", name, judge or "-")
    if table.row_count:
        print()
        Console().print(table)
