"""``esckit judge`` and ``esckit check judge``. Heavy imports happen inside commands."""

import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esckit.cli import shared
from esckit.cli.measures import name_files
from esckit.errors import EsckitError

if TYPE_CHECKING:
    from esckit.conversation import Conversation
    from esckit.measures.judging_results import Judging

RubricsOption = Annotated[
    str, typer.Option("--rubrics", "--rubric", help="decoupled-esc, empath, self-evolution, or your folder.")
]

CapsOption = Annotated[bool, typer.Option("--caps", help="Tell the judge the rubrics' limits and deductions as well.")]
BankOption = Annotated[
    str | None, typer.Option(metavar="shipped|FOLDER", help="Roles that replies were made in, for role_alignment.")
]
LanguageOption = Annotated[
    str | None, typer.Option(help="Of the judge's prompts: en or zh; default: the dialogue's, if rubrics have it.")
]
FailedOption = Annotated[
    Path | None, typer.Option(help="Dialogues of failed support (FailedESConv.json), a fourth known group.")
]
KnownGroupsOption = Annotated[
    bool, typer.Option("--known-groups", help="Judge human, foreign and stock replies as well.")
]


def judge_command(
    files: Annotated[list[Path], typer.Argument(help="Predictions files, then the folder to write.")],
    model: shared.ModelOption,
    base_url: shared.BaseUrlOption = None,
    extra_body: shared.ExtraBodyOption = None,
    leave_out: shared.LeaveOutOption = None,
    conversations: Annotated[
        Path | None,
        typer.Option(
            help="The dialogues predicted; default: conversations.jsonl or trees.jsonl beside the first file."
        ),
    ] = None,
    labels: shared.LabelsOption = None,
    turns: Annotated[int, typer.Option(min=1, help="Turns to judge, the same for all files.")] = 100,
    rubrics: RubricsOption = "decoupled-esc",
    bank: BankOption = None,
    language: LanguageOption = None,
    caps: CapsOption = False,
    prompts: shared.PromptsOption = None,
    reference: Annotated[str, typer.Option(help="Does the judge see the human reply: both, shown or hidden.")] = "both",
    pairs: Annotated[bool, typer.Option("--pairs", help="Compare every two files as well, in both orders.")] = False,
    known_groups: KnownGroupsOption = False,
    failed: FailedOption = None,
    mined: Annotated[
        list[Path] | None, typer.Option(help="Trees whose preferences were trained on: was this judge their judge?")
    ] = None,
    ledger: shared.LedgerOption = None,
    trust_remote_code: shared.TrustOption = False,
    max_new_tokens: shared.NewTokensOption = None,
    concurrency: shared.ConcurrencyOption = None,
    budget_calls: shared.CallsOption = None,
    budget_tokens: shared.TokensOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample, bootstrap and permutations.")] = 0,
) -> None:
    """Let a language model score predicted replies by rubrics, and test the systems against each other.

    The same command continues a judging that was stopped; nothing that was answered is asked again.

    Example: esckit judge coupled.jsonl decoupled.jsonl judged --model remote:MODEL --pairs --known-groups
    """
    told = locals()
    *predictions, out = files
    if not predictions or out.is_file():
        raise EsckitError(f"{out} is the last path and has to be the folder to write: give predictions, then a folder.")
    from esckit.chat_models.ledger import LEDGER
    from esckit.corpora import read_corpus
    from esckit.judging.judge_run import check_options, judge_files
    from esckit.judging.plan import JudgingOptions, mining_judges
    from esckit.measures import import_predictions
    from esckit.measures.context import in_dialogues

    options = shared.options_of(JudgingOptions, told)
    check_options(options)
    miners = sorted({miner for path in mined or () for miner in mining_judges(read_corpus(path))})
    systems = {name: import_predictions(path) for name, path in name_files(predictions).items()}
    how: dict[str, Any] = {"ledger": ledger or out / LEDGER, "miners": miners, "seed": seed}
    dialogues = _dialogues(predictions, conversations, labels)
    systems = {name: in_dialogues(rows, dialogues) for name, rows in systems.items()}
    _show(judge_files(systems, dialogues, options, out, **how, tell=lambda line: print(line, file=sys.stderr)), out)


def check_judge_command(
    judged: Annotated[Path, typer.Argument(help="The folder that esckit judge wrote.")],
    ratings: Annotated[Path, typer.Argument(help="People's ratings, CSV: item, rater, rating (see its sheet.csv).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    seed: shared.SeedOption = 0,
) -> None:
    """Measure how far a judge agrees with people about the same replies: Pearson, Spearman, kappa, with intervals.

    Where people rated replies of several systems to the same turns, also which system they prefer.

    Example: esckit check judge judged ratings.csv
    """
    from esckit.judging.judging_files import read_judgements
    from esckit.measures.intervals import Draws
    from esckit.measures.ratings import (
        JudgedItem,
        Ratings,
        against_people,
        few_items,
        missing_ratings,
        people_wins,
        read_ratings,
    )
    from esckit.report.figure_tables import draw
    from esckit.report.judging_tables import people_table, wins_table

    people = read_ratings(ratings)
    items = [(item, each) for item, own in read_judgements(judged).items() for each, known in own if not known]
    agreements = []

    def group(entry: Any) -> tuple[str, bool]:
        return entry[1].rubric, entry[1].reference

    for (rubric, reference), own in groupby(sorted(items, key=group), key=group):
        scored = {item: JudgedItem(e.score, e.conversation_id) for item, e in own if e.score is not None}
        kept = [place for place, item in enumerate(people.items) if item in scored]
        if kept:
            part = Ratings([people.items[k] for k in kept], people.raters, [people.table[k] for k in kept])
            agreements.append((rubric, reference, against_people(scored, part, Draws(seed))))
    if not agreements:
        raise EsckitError(f"{ratings} rates no item that {judged} judged: take the items from its sheet.csv.")
    wins = people_wins(dict(items), people, Draws(seed))
    warnings = few_items(min(figures["items"] for *_, figures in agreements)) + missing_ratings(people)
    if as_json:
        found = [{"rubric": rubric, "reference": seen, **figures} for rubric, seen, figures in agreements]
        shared.print_json({"format": 1, "agreement": found, "wins": wins, "warnings": warnings})
    else:
        table = people_table(agreements)
        table.notes.extend(warnings)
        print(*map(draw, [table, *([wins_table(wins)] if wins else [])]), sep="\n\n")


def _dialogues(predictions: Sequence[Path], given: Path | None, labels: Path | None) -> "list[Conversation]":
    beside = [predictions[0].with_name(name) for name in ("conversations.jsonl", "trees.jsonl")]
    path = given or next((path for path in beside if path.exists()), None)
    if path is None:
        raise EsckitError(
            f"a judge needs the talk before a reply, and beside {predictions[0]} stands neither conversations.jsonl "
            "nor trees.jsonl: give --conversations."
        )
    return shared.read_dialogues(path, labels=labels)


def _show(found: "Judging", out: Path) -> None:
    """Write the page and print the tables."""
    from esckit.report.figure_tables import draw
    from esckit.report.judging_tables import (
        differences_table,
        groups_table,
        pairs_table,
        problems_table,
        scores_table,
    )
    from esckit.report.page import write_judging_page

    write_judging_page(out)
    tables = [scores_table(found), *([problems_table(found)] if found.problems else [])]
    tables += [differences_table(found.differences)] if found.differences else []
    tables += [pairs_table(found.pairs)] if found.pairs else []
    tables += [groups_table(found.known_groups)] if found.known_groups else []
    print(*map(draw, tables), sep="\n\n")
    print(f"\nin {out}: judging.html, judging.json, judgements.jsonl; for people to rate the same replies: sheet.csv")
