"""``esckit corpus``: look at, check, divide and convert dialogue files. Heavy imports happen inside commands."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from esckit.cli import shared
from esckit.errors import EsckitError

if TYPE_CHECKING:
    from esckit.conversation import Conversation
    from esckit.corpora.linter import CheckReport

corpus_app = typer.Typer(
    help="Look at, check, divide and convert dialogue corpora.\n\nExample: esckit corpus stats ESConv.json",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_NAMES = (
    "tree, esconv, failed_esconv, extes, annomi, cpsycoun, smile, soulchat, emollm, augesc, escot, psyqa, messages, "
    "sharegpt or marked_lines"
)
FormatOption = Annotated[
    str | None,
    typer.Option("--format", help=f"{_NAMES}; default: as the file looks."),
]


@corpus_app.command("stats")
def stats_command(
    files: Annotated[list[Path], typer.Argument(help="Dialogue files, or folders of them.")],
    format: FormatOption = None,
    labels: shared.LabelsOption = None,
    as_json: shared.JsonOption = False,
    picture: Annotated[Path | None, typer.Option(help="Draw strategy by stage: .svg, .png or .pdf.")] = None,
) -> None:
    """Count dialogues, utterances, chat messages, strategies (by stage too), labels such as role and topic.

    Example: esckit corpus stats train.json valid.json --picture stages.svg
    """
    from esckit.corpora import corpus_statistics

    if picture:
        _refuse_overwriting(picture, files)
    corpora = {str(path): shared.read_dialogues(path, format=format, labels=labels) for path in files}
    statistics = {name: corpus_statistics(dialogues) for name, dialogues in corpora.items()}
    if as_json:
        shared.print_json(statistics)
    else:
        _print_statistics(statistics)
        for name, dialogues in corpora.items():
            if rules := sorted({tree.provenance["turn_rule"] for tree in dialogues if "turn_rule" in tree.provenance}):
                print(f"{name}: turn rule {'; '.join(rules)}: compare with figures under this rule alone")
    if picture:
        from esckit.corpora.corpus_statistics import draw_sixths

        draw_sixths({Path(name).name: figures for name, figures in statistics.items()}, picture)


@corpus_app.command("check")
def check_command(
    files: Annotated[list[Path], typer.Argument(help="Dialogue files, each a part of one corpus.")],
    format: FormatOption = None,
    labels: shared.LabelsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every finding.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Most findings to print; all are counted.")] = 100,
) -> None:
    """Look for mistakes, past the first one, and for near-duplicate dialogues within files and across.

    Exit code 0: nothing found; 1: something found; 2: a file cannot be read.

    Example: esckit corpus check train.json valid.json
    """
    from esckit.corpora.linter import check_files

    report = check_files(files, format, labels=labels)
    shared.tell_several(", ".join(map(str, files)), report.several)
    if as_json:
        findings = [
            {**finding._asdict(), "other": finding.other and finding.other._asdict()} for finding in report.findings
        ]
        counts = {**report.counts, "near-duplicate-across-files": report.across}
        shared.print_json({"dialogues": report.dialogues, "counts": counts, "findings": findings})
    else:
        _print_findings(report, limit)
    if report.findings:
        raise typer.Exit(1)


@corpus_app.command("split")
def split_command(
    source: Annotated[Path, typer.Argument(help="The file to divide.")],
    folder: Annotated[Path, typer.Argument(help="Where train, valid, test and ids.json are written.")],
    ratios: Annotated[str | None, typer.Option(help="train:valid:test, drawn by dialogue; default 8:1:1.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    ids: Annotated[Path | None, typer.Option(help='{"train": [ids], "valid": [ids], "test": [ids]}.')] = None,
    decoupled_esc: Annotated[
        bool, typer.Option(help="The parts of the DecoupledESC paper, less 12 retellings; needs ESConv.json.")
    ] = False,
    decoupled_esc_published: Annotated[
        bool, typer.Option(help="Its parts as published, 1,040 / 130 / 130, the retellings among them.")
    ] = False,
    in_order: Annotated[bool, typer.Option(help="Cut the file by the ratios instead of drawing.")] = False,
    format: FormatOption = None,
    labels: shared.LabelsOption = None,
) -> None:
    """Divide a file into train, valid and test, in its own format where esckit writes that, else as trees.

    ids.json lists the parts, so that --ids divides the same file in the same way again.

    Example: esckit corpus split ESConv.json parts --ratios 8:1:1 --seed 0
    """
    from esckit.corpora import write_corpus
    from esckit.corpora.formats import FORMATS, find_format
    from esckit.corpora.splits import split_by
    from esckit.files import write_json

    how = _split_of(ratios, ids, decoupled_esc, decoupled_esc_published, in_order)
    found = find_format(source, format)
    target = found if FORMATS[found].write else "tree"
    ending = "jsonl" if target == "tree" else "json"
    parts = split_by(shared.read_dialogues(source, format=found, labels=labels), how, seed=seed)._asdict()
    paths = {part: folder / f"{part}.{ending}" for part, dialogues in parts.items() if dialogues}
    for path in (*(folder / f"{part}.{end}" for part in parts for end in ("json", "jsonl")), folder / "ids.json"):
        if path.exists():
            raise EsckitError(f"{path} exists already: choose an empty folder, or remove it.")
    for part, path in paths.items():
        write_corpus(path, parts[part], target)
        print(f"{len(parts[part])} conversations written to {path}")
    write_json(folder / "ids.json", {part: [dialogue.id for dialogue in parts[part]] for part in paths})


def _split_of(ratios: str | None, ids: Path | None, ours: bool, published: bool, in_order: bool) -> str:
    """The options as `splits.split_by` names a split."""
    from esckit.corpora.splits import DECOUPLED_ESC, DECOUPLED_ESC_PUBLISHED

    if sum(map(bool, (ratios, ids, ours, published))) > 1:
        raise EsckitError(
            "--ratios, --ids, --decoupled-esc and --decoupled-esc-published exclude each other: give one."
        )
    if in_order and (ids or ours or published):
        raise EsckitError("--in-order goes with --ratios: leave it out.")
    if ours or published:
        return DECOUPLED_ESC if ours else DECOUPLED_ESC_PUBLISHED
    return str(ids or f"{ratios or '8:1:1'}{' in order' if in_order else ''}")


@corpus_app.command("convert")
def convert_command(
    source: Annotated[Path, typer.Argument(help="The file to read.")],
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    from_format: Annotated[
        str | None, typer.Option("--from", "--format", help="A format; default: as the file looks.")
    ] = None,
    to_format: Annotated[str, typer.Option("--to", help="tree, esconv, failed_esconv or messages.")] = "tree",
    system: Annotated[
        str | None, typer.Option(metavar="TEXT|FILE", help="System text of --to messages; default: esckit's own.")
    ] = None,
    labels: shared.LabelsOption = None,
    turn_rule: Annotated[
        str, typer.Option(help="merged joins a speaker's utterances in a row into one turn; default decoupled-esc.")
    ] = "decoupled-esc",
    merged_label: Annotated[
        str | None, typer.Option(help="Of --turn-rule merged, whose strategy counts: first (default), last or longest.")
    ] = None,
) -> None:
    """Convert a corpus file to trees, and trees back to ESConv's form without loss, or to chat messages.

    Example: esckit corpus convert ESConv.json esconv.jsonl --from esconv --to tree
    """
    from esckit.corpora import write_corpus

    _refuse_overwriting(out, [source])
    if system is not None and to_format != "messages":
        raise EsckitError(f"--system goes with --to messages, not with --to {to_format}: leave it out.")
    rule = _turn_rule(turn_rule, merged_label)
    conversations = rule(shared.read_dialogues(source, format=from_format, labels=labels))
    if to_format == "messages":
        _write_messages(out, conversations, system)
    else:
        write_corpus(out, conversations, to_format)
    print(f"{len(conversations)} conversations written to {out}")
    if dropped := conversations[0].provenance.get("dropped"):
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if reason != "dialogues")
        print(f"{dropped['dialogues']} dialogues left out for replies with: {reasons}")


def _turn_rule(name: str, label: str | None) -> "Callable[[list[Conversation]], list[Conversation]]":
    """What a turn rule does to dialogues."""
    from esckit.conversation.turn_rule import MergedLabel, TurnRule, merge_turns

    for option, value, allowed in (("--turn-rule", name, TurnRule), ("--merged-label", label or "first", MergedLabel)):
        if value not in get_args(allowed):
            raise EsckitError(f"{option} {value!r} is unknown: use {' or '.join(get_args(allowed))}.")
    if name == "decoupled-esc" and label is not None:
        raise EsckitError("--merged-label goes with --turn-rule merged: leave it out.")
    kept: Any = label or "first"
    return lambda trees: trees if name == "decoupled-esc" else [merge_turns(tree, kept) for tree in trees]


def _write_messages(out: Path, conversations: Sequence[Any], system: str | None) -> None:
    from esckit.corpora.formats import conversation_to_messages, write_list
    from esckit.files import read_text
    from esckit.prompts import load_prompt
    from esckit.strategy import TAXONOMIES

    if system is None:
        taxonomies = {conversation.taxonomy for conversation in conversations}
        if len(taxonomies) != 1 or None in taxonomies:
            raise EsckitError(
                "esckit's own system text names the strategies of one taxonomy: give another by --system."
            )
        taxonomy = TAXONOMIES[taxonomies.pop()]

        def system_of(language: str) -> str:
            return load_prompt("support", "system", language, strategies=taxonomy.listed_in(language))

    else:
        is_file = "\n" not in system and len(system) < 256 and Path(system).is_file()
        given = read_text(Path(system), what="a system text").strip() if is_file else system

        def system_of(language: str) -> str:
            return given

    write_list(out, [conversation_to_messages(each, system_of(each.language)) for each in conversations])


def _refuse_overwriting(out: Path, sources: Sequence[Path]) -> None:
    if any(out.exists() and source.exists() and out.samefile(source) for source in sources):
        raise EsckitError(f"{out} is a file that is read: write to another one.")


# -------------------------------------------------------------------------------------------------------------- tables


def _print_findings(report: "CheckReport", limit: int) -> None:
    for finding in report.findings[:limit]:
        print(finding)
    if len(report.findings) > limit:
        print(f"... and {len(report.findings) - limit} more: raise --limit, or use --json.")
    counts = [f"{count} {kind}" for kind, count in report.counts.items()]
    if len(report.dialogues) > 1:
        counts.append(f"{report.across} of the near-duplicates across files")
    size = f"{sum(report.dialogues.values())} dialogues in {len(report.dialogues)} files"
    print(f"{size}: {', '.join(counts) if report.findings else 'nothing found'}")


def _print_statistics(statistics: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console

    console = Console()
    for name, figures in statistics.items():
        console.print(f"\n{name}", style="bold", highlight=False)
        console.print(_size_table(figures))
        if figures["strategy_counts"]:
            console.print(_strategy_table(figures))
        else:
            print("no table of strategies: no reply carries a strategy")
        for title in ("emotion_types", "problem_types", "topics", "roles"):
            if figures[title]:
                listed = ", ".join(f"{label} {count:,}" for label, count in figures[title].items())
                console.print(f"{title.replace('_', ' ')}: {listed}", highlight=False)


def _size_table(figures: dict[str, Any]) -> Any:
    """DecoupledESC's table 2: of the utterances as they were said, and of the chat messages that are trained on."""

    def row(title: str, *keys: str, of: dict[str, Any] = figures) -> None:
        table.add_row(title, *("-" if of[key] is None else f"{of[key]:,.2f}".removesuffix(".00") for key in keys))

    table = _table("", "all", "supporter", "seeker")
    who = ("", "supporter_", "seeker_")
    row("dialogues", "dialogues")
    row("utterances", *(f"{each}utterances" for each in who))
    row("utterances a dialogue", "mean_utterances_per_dialogue")
    row("characters a dialogue", "mean_characters_per_dialogue")
    row("words an utterance", *(f"mean_words_per_{each}utterance" for each in who))
    row("characters an utterance", *(f"mean_characters_per_{each}utterance" for each in who))
    role = ("", "assistant_", "user_")
    row("chat messages", *(f"{each}messages" for each in role), of=figures["messages"])
    row("chat messages a dialogue", "mean_messages_per_dialogue", of=figures["messages"])
    row("characters a chat message", *(f"mean_characters_per_{each}message" for each in role), of=figures["messages"])
    table.add_row("utterances directly after another", "", f"{figures['supporter_utterances_after_another']:,}")
    table.add_row("utterances without a strategy", "", f"{figures['supporter_utterances_without_strategy']:,}")
    table.add_row("dialogues opened", "", f"{figures['dialogues_opened_by_supporter']:,}")
    return table


def _strategy_table(figures: dict[str, Any]) -> Any:
    """DecoupledESC's table 8, and its figure 8: shares within each sixth of the dialogue."""
    stages = figures["strategy_by_stage"]
    table = _table("strategy", "number", "share", *(f"{place}/{len(stages)}" for place in range(1, len(stages) + 1)))
    for strategy, count in figures["strategy_counts"].items():
        shares = [f"{shares[strategy]:.0%}" for shares in stages]
        table.add_row(strategy, f"{count:,}", f"{figures['strategy_shares'][strategy]:.2%}", *shares)
    table.add_row("all", f"{sum(figures['strategy_counts'].values()):,}")
    return table


def _table(*titles: str) -> Any:
    """Names on the left, figures on the right, no wider than eighty characters."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(*titles, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    return table
