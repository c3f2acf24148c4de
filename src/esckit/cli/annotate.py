"""``esckit annotate``, ``esckit train annotator``, ``esckit check annotator``. Heavy imports happen inside commands."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esckit.cli import shared
from esckit.errors import EsckitError
from esckit.quiet import quiet

if TYPE_CHECKING:
    from esckit.conversation import Conversation
    from esckit.corpora.error_labels import LabelledReply
    from esckit.judging.open_annotator import AnnotatorOptions

LabelsArgument = Annotated[
    Path, typer.Argument(help="Labelled replies: DecoupledESC's records (JSON) or examples (docs/error-examples.md).")
]
DialoguesOption = Annotated[
    Path | None,
    typer.Option(help="Where the records' replies were said (FailedESConv.json): gives them their context."),
]
AnnotatorOption = Annotated[
    str,
    typer.Option(
        help="embedded, a trained annotator's folder, remote:MODEL (a chat model behind a URL), a chat model's folder "
        "or Hub id, smollm2, or a supporter's folder."
    ),
]
ExamplesOption = Annotated[Path | None, typer.Option(help="Your own examples for a chat model's prompt.")]


def annotate_command(
    trees: Annotated[Path, typer.Argument(help="Dialogues in any format of docs/corpora.md, or a predictions file.")],
    out: Annotated[Path, typer.Argument(help="The trees with verdicts to write.")],
    model: AnnotatorOption = "embedded",
    conversations: Annotated[
        Path | None, typer.Option(help="The dialogues predicted, where TREES is a predictions file.")
    ] = None,
    labels: shared.LabelsOption = None,
    base_url: shared.BaseUrlOption = None,
    extra_body: shared.ExtraBodyOption = None,
    leave_out: shared.LeaveOutOption = None,
    trust_remote_code: shared.TrustOption = False,
    ledger: shared.LedgerOption = None,
    examples: ExamplesOption = None,
    prompts: shared.PromptsOption = None,
    max_new_tokens: shared.NewTokensOption = None,
    concurrency: shared.ConcurrencyOption = None,
    budget_calls: shared.CallsOption = None,
    budget_tokens: shared.TokensOption = None,
) -> None:
    """Look for psychological errors in every supporter turn, and write what is found into the trees.

    The same command continues an annotation that was stopped; a turn that was judged is not judged again.

    Example: esckit annotate dialogues.jsonl annotated.jsonl
    """
    told = locals()
    read = _read(trees, conversations, labels)
    quiet()
    from esckit.chat_models.ledger import LEDGER
    from esckit.judging.annotation import annotate
    from esckit.judging.open_annotator import AnnotatorOptions, check_language, open_annotator

    wanted = shared.options_of(AnnotatorOptions, told)
    check_language(wanted, read)
    with open_annotator(wanted, ledger or out.with_name(LEDGER)) as judge:
        done = annotate(read, judge, out)
    found = ", ".join(f"{outcome} {count}" for outcome, count in done.outcomes.most_common())
    left = f"; {done.open} could not be judged, the same command tries them again" if done.open else ""
    print(f"{done.turns} turns judged by {judge.judge}, {done.new} of them now: {found or 'nothing'}{left}; in {out}")


def train_annotator_command(
    labels: LabelsArgument,
    out: Annotated[Path, typer.Argument(help="The annotator's folder to write.")],
    dialogues: DialoguesOption = None,
) -> None:
    """Fit the embedded annotator on labelled replies; how strongly is chosen by cross-validation over dialogues.

    The folder may hold what can be told of the labels: pass it on as you would pass on the labels.

    Example: esckit train annotator labels.json runs/annotator --dialogues FailedESConv.json
    """
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]) and not (out / "annotator.json").exists():
        raise EsckitError(f"{out} holds something else than an annotator: choose another folder.")
    replies = _labelled(labels, dialogues).replies
    quiet()
    from esckit.judging.embedded_annotator import save_annotator
    from esckit.judging.error_fit import fit_annotator
    from esckit.planning.encoder import EMBEDDED, load_encoder

    save_annotator(out, fit_annotator(replies, load_encoder(EMBEDDED), f"{len(replies)} replies of {labels.name}"))
    print(f"fitted on {len(replies)} replies: {out}; next: esckit annotate dialogues.jsonl out.jsonl --model {out}")


def check_annotator_command(
    labels: LabelsArgument,
    model: AnnotatorOption = "embedded",
    cross_validate: Annotated[
        bool, typer.Option("--cross-validate", help="Measure what train annotator would reach on such labels instead.")
    ] = False,
    dialogues: DialoguesOption = None,
    base_url: shared.BaseUrlOption = None,
    extra_body: shared.ExtraBodyOption = None,
    leave_out: shared.LeaveOutOption = None,
    trust_remote_code: shared.TrustOption = False,
    ledger: Annotated[
        Path | None, typer.Option(help="Answers of a chat model; default ledger.sqlite in this folder.")
    ] = None,
    examples: ExamplesOption = None,
    prompts: shared.PromptsOption = None,
    max_new_tokens: shared.NewTokensOption = None,
    concurrency: shared.ConcurrencyOption = None,
    budget_calls: shared.CallsOption = None,
    budget_tokens: shared.TokensOption = None,
    as_json: shared.JsonOption = False,
    seed: shared.SeedOption = 0,
) -> None:
    """Measure an annotator against labelled replies: kappa, each type, confusion, and the labels' own noise.

    Example: esckit check annotator labels.json --dialogues FailedESConv.json
    """
    told = locals()
    from esckit.chat_models.ledger import LEDGER
    from esckit.judging.open_annotator import AnnotatorOptions
    from esckit.measures.intervals import Draws
    from esckit.measures.psychological_errors import error_agreement, label_noise

    wanted = shared.options_of(AnnotatorOptions, told)
    found = _labelled(labels, dialogues)
    quiet()
    if cross_validate:
        said, name = dict(enumerate(_cross_validated(found.replies))), "cross-validated"
    else:
        said, name = _said(found.replies, wanted, ledger or Path(LEDGER))
    if not said:
        raise EsckitError(f"{name} judged none of the {len(found.replies)} replies: see its answers in the ledger.")
    replies = [found.replies[place] for place in said]
    gold = [reply.error for reply in replies]
    figures = error_agreement(gold, list(said.values()), [reply.group for reply in replies], Draws(seed))
    shown = [(tuple(turn.text for turn in r.context), r.strategy, " ".join(r.response.split())) for r in replies]
    left = len(found.replies) - len(replies)
    figures |= {"annotator": name, "placed": found.placed, "unjudged": left, "label_noise": label_noise(shown, gold)}
    if as_json:
        shared.print_json(figures)
    else:
        _show(figures, f"Annotator {name} against {labels.name}")


def _show(figures: dict[str, Any], title: str) -> None:
    from esckit.report.figure_tables import draw
    from esckit.report.judging_tables import confusion_table, types_table

    print(draw(types_table(figures, title)), draw(confusion_table(figures)), sep="\n\n")
    if figures["unjudged"]:
        print(f"note: {figures['unjudged']} replies have no verdict (refused, unparsed or failed) and are left out")
    if noise := figures["label_noise"]:
        print(
            f"note: the labels themselves: {noise['pairs']} pairs of equal replies in equal contexts, "
            f"{100 * noise['agree']:.0f}% with equal labels ({100 * noise['by_chance']:.0f}% by chance)"
        )


def _read(path: Path, conversations: Path | None, labels: Path | None) -> "list[Conversation]":
    if conversations is None:
        return shared.read_dialogues(path, labels=labels)
    from esckit.measures import add_predictions, read_predictions

    name = path.resolve().parent.name if path.stem == "predictions" else path.stem  # a run's file: its stage's name
    rows = [row for row in read_predictions(path) if (row.predicted_text or "").strip()]
    if not rows:
        raise EsckitError("the predictions hold no text: nothing can be annotated.")
    predicted = {str(row.conversation_id) for row in rows}
    dialogues = shared.read_dialogues(conversations, labels=labels)
    return [tree for tree in add_predictions(dialogues, rows, name) if tree.id in predicted]


def _labelled(path: Path, dialogues: Path | None) -> Any:
    from esckit.corpora import read_corpus
    from esckit.corpora.error_labels import read_error_labels

    return read_error_labels(path, read_corpus(dialogues) if dialogues else ())


def _said(
    replies: "Sequence[LabelledReply]", wanted: "AnnotatorOptions", ledger: Path
) -> tuple[dict[int, str | None], str]:
    """The error that an annotator finds in each reply that it judges, by the reply's place; and its name."""
    from esckit.judging.evidence import Case
    from esckit.judging.open_annotator import open_annotator

    cases = [Case(reply.context, reply.strategy, reply.response) for reply in replies]
    with open_annotator(wanted, ledger) as annotator, closing(annotator.verdicts([cases])) as groups:
        verdicts = [verdict for group in groups for verdict in group]
    judged = {place: each.error for place, each in enumerate(verdicts) if each is not None and each.state == "done"}
    return judged, annotator.judge


def _cross_validated(replies: Any) -> list[str | None]:
    from esckit.judging.error_fit import cross_validate
    from esckit.judging.error_model import OUTCOMES
    from esckit.planning.encoder import EMBEDDED, load_encoder

    best = cross_validate(replies, load_encoder(EMBEDDED)).argmax(1)
    return [None if place == 0 else OUTCOMES[place] for place in best]
