"""``esckit export preferences``, ``sft``, ``replies`` and ``model``; ``check preferences``; heavy imports inside."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from esckit.cli import shared
from esckit.errors import CorpusError, EsckitError
from esckit.quiet import quiet

if TYPE_CHECKING:
    from esckit.conversation import Conversation
    from esckit.mining.export import Exported
    from esckit.mining.pairs import Pair, PairReport

export_app = typer.Typer(
    help="Write what other tools read.\n\nExample: esckit export preferences trees.jsonl pairs.jsonl --to trl",
    no_args_is_help=True,
    rich_markup_mode=None,
)
check_app = typer.Typer(
    help="Look for what would spoil training, a judgement or a run.\n\nExample: esckit check preferences trees.jsonl",
    no_args_is_help=True,
    rich_markup_mode=None,
)

TreeArgument = Annotated[Path, typer.Argument(help="Conversation trees with preferences (a mine stage's trees.jsonl).")]
LayoutOption = Annotated[str, typer.Option(help="What each part reads and says: shared-prefix or paper.")]
PastOption = Annotated[
    str | None, typer.Option(help="gold or hidden; default: gold for the coupled part, hidden for the others.")
]
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
    to: Annotated[
        str,
        typer.Option(
            help="trl, llamafactory or ms-swift, a pair a line (DPO); with -kto behind it, a reply a line (KTO)."
        ),
    ],
    part: PartOption = None,
    layout: LayoutOption = "shared-prefix",
    past_strategies: PastOption = None,
    drop_faulty: Annotated[bool, typer.Option(help="Leave faulty and duplicate pairs out.")] = False,
) -> None:
    """Write preference pairs in the form of another trainer, a pair or (-kto) a reply a line.

    docs/mining.md says where TRL's figures on such a file differ from esckit's.

    Example: esckit export preferences runs/starter/planner-pairs/trees.jsonl pairs.jsonl --to trl
    """
    from esckit.conversation import read_conversations
    from esckit.mining.export import DEFAULT_PAST, TRAINERS, export_judged, export_pairs

    _known("--to", to, tuple(f"{name}{kto}" for name in TRAINERS for kto in ("", "-kto")))
    _check_form(out, tree, layout, past_strategies)
    wanted, pairs = _pairs(tree, read_conversations(tree), part, drop_faulty)
    past: Any = past_strategies or DEFAULT_PAST[wanted]
    form: Any = layout
    kto = to.endswith("-kto")
    rows = list((export_judged if kto else export_pairs)(pairs, wanted, past, form))
    trainer = to.removesuffix("-kto")
    told = _write_rows(out, trainer, rows)
    kind = "replies" if kto else "pairs"
    print(f"{len(rows)} {kind} of the {wanted}, {layout}, past strategies {past}, in {out}{told}")


@export_app.command("sft")
def export_sft_command(
    corpus: Annotated[Path, typer.Argument(help="Dialogues with strategies, in any format of docs/corpora.md.")],
    out: Annotated[Path, typer.Argument(help="The JSON Lines file to write.")],
    to: Annotated[str, typer.Option(help="trl, llamafactory or ms-swift.")],
    part: Annotated[str, typer.Option(help="planner, generator or coupled.")] = "coupled",
    layout: LayoutOption = "shared-prefix",
    past_strategies: PastOption = None,
    format: Annotated[str | None, typer.Option(help="Of the dialogues; default: as the file looks.")] = None,
    labels: shared.LabelsOption = None,
) -> None:
    """Write what a part is fine-tuned on in the form of another trainer, a labelled reply a line with all before it.

    Of a search's trees (trees.jsonl) these are the turns that it kept, on any of its paths.

    Only the last message of a line is to be learned: what is printed says how the trainer is told so.

    Example: esckit export sft train.json sft.jsonl --to llamafactory --part generator --layout paper
    """
    from esckit.mining.export import DEFAULT_PAST, TRAINERS, export_replies

    _known("--to", to, tuple(TRAINERS))
    _check_form(out, corpus, layout, past_strategies)
    wanted = _part(part)
    past: Any = past_strategies or DEFAULT_PAST[wanted]
    form: Any = layout
    dialogues = shared.read_dialogues(corpus, format=format, labels=labels)
    rows = list(export_replies(dialogues, wanted, past, form))
    if not rows:
        raise EsckitError(f"{corpus} has no reply with a strategy: nothing can be learned from it, label it first.")
    told = _write_rows(out, to, rows)
    print(f"{len(rows)} replies of the {wanted}, {layout}, past strategies {past}, in {out}{told}{_LAST_ONLY[to]}")


_LAST_ONLY: dict[str, str] = {
    "trl": "\nSFTTrainer learns the completion alone",
    "llamafactory": "\ntrain with mask_history: true, so that earlier replies are read and not learned again",
    "ms-swift": "\ntrain with --loss_scale last_round, so that earlier replies are read and not learned again",
}


def _check_form(out: Path, source: Path, layout: str, past: str | None) -> None:
    from esckit.rendering import Layout

    _known("--layout", layout, get_args(Layout))
    if past:
        _known("--past-strategies", past, ("gold", "hidden"))
    if out.exists() and source.exists() and out.samefile(source):
        raise EsckitError(f"{out} is the file that is read: write to another one.")


def _write_rows(out: Path, trainer: str, exported: "Sequence[Exported]") -> str:
    """Write rows; return what the trainer has to be told about the file."""
    from esckit.files import write_jsonl
    from esckit.mining.export import TRAINERS, dataset_info

    rows = [TRAINERS[trainer](row) for row in exported]
    write_jsonl(out, rows)
    if trainer != "llamafactory" or not rows:
        return ""
    return f"\ninto dataset_info.json: {json.dumps(dataset_info(out.name, rows[0]))}"


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
    role: Annotated[str | None, typer.Option(help="Of a generator of experts: whose voice it is merged under.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Of a generator of experts: what it is merged under.")] = None,
    trust_remote_code: shared.TrustOption = False,
) -> None:
    """Write a whole model for other tools: an adapter merged into its base, with tokenizer and chat template.

    transformers, vLLM and llama.cpp's converter read the folder (docs/backbone.md). Experts are merged under one role,
    strategy or both; adapters for each pair of them: esckit export adapters.

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

    members = {kind: member for kind, member in (("role", role), ("strategy", strategy)) if member}
    written = export_model(model, out, asked, stored, members)  # type: ignore[arg-type]
    what = f"the {written.part} on {written.base}" if written.part else written.base
    print(f"{what}, {written.parameters:,} parameters in {stored}, in {out}")


@check_app.command("preferences")
def check_command(
    tree: TreeArgument,
    part: Annotated[
        str | None, typer.Option(help="planner, generator or coupled; default: each that has pairs.")
    ] = None,
    relevance: Annotated[
        bool, typer.Option(help="Also measure how near replies are to the seeker's words, and to each other.")
    ] = False,
    encoder: Annotated[
        str, typer.Option(help="Of --relevance: embedded (English), a model's folder, or its id on the Hub.")
    ] = "embedded",
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
    pairs = {name: pairs_of(conversations, name) for name in reports}
    _print_reasons(pairs)
    if relevance:
        _print_relevance(pairs, encoder)
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


def _print_relevance(pairs: "dict[Any, list[Pair]]", encoder: str) -> None:
    """The figures of self-evolution's figure 5, a row a part with worded pairs."""
    from esckit.mining.relevance import pair_relevance
    from esckit.planning.encoder import load_encoder
    from esckit.report.figure_tables import Table, draw, interval

    quiet()
    embed, names = load_encoder(encoder).embed, ("chosen", "rejected", "difference", "likeness")
    measured = {part: found for part, own in pairs.items() if (found := pair_relevance(own, embed))}
    rows = [
        [part, f"{found['pairs']:,}"]
        + [f"{found[name]:.3f} {interval(found[f'{name}_interval'], 1, 3)}" for name in names]
        for part, found in measured.items()
    ]
    title = "Mean cosines with the seeker's turns, and of chosen with rejected (likeness); brackets: 95% over dialogues"
    notes = [] if rows else ["no pair has two replies after words of the seeker: there is no relevance to measure"]
    print(f"\n{draw(Table(title, ['part', 'pairs', *names], 1, rows, notes))}")
