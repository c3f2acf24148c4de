"""``esckit train matcher``, ``check matcher`` and ``check experiences``. Heavy imports happen inside commands."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esckit.cli import shared
from esckit.errors import CorpusError, EsckitError
from esckit.quiet import quiet

if TYPE_CHECKING:
    from esckit.planning.questions import Question
    from esckit.roles import RoleBank

CorpusArgument = Annotated[
    str, typer.Argument(help="Dialogues or questions, in any format of docs/corpora.md, or starter.")
]
FormatOption = Annotated[
    str | None, typer.Option("--format", help="The dialogues' format, where the file could be several.")
]
FolderArgument = Annotated[Path, typer.Argument(help="A role matcher's folder (esckit train matcher, stage match).")]


def train_matcher_command(
    corpus: CorpusArgument,
    out: Annotated[Path, typer.Argument(help="The matcher's folder to write.")],
    bank: Annotated[str, typer.Option(help="shipped, or a folder of roles.")] = "shipped",
    encoder: Annotated[
        str, typer.Option(help="embedded (English alone), a folder or a Hub id; none: characters and words alone.")
    ] = "embedded",
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="It abstains below this probability; default: chosen.")
    ] = None,
    keywords: Annotated[bool, typer.Option("--keywords", help="Read the corpus's keywords too.")] = False,
    format: FormatOption = None,
    labels: shared.LabelsOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds.")] = 0,
    as_json: shared.JsonOption = False,
    trust_remote_code: shared.TrustOption = False,
) -> None:
    """Train a role matcher, and show how well it does on dialogues that it has not seen, beside the topic alone.

    The gold role is a dialogue's label role, else that of its topic (docs/matching.md).

    Example: esckit train matcher PsyQA.json runs/matcher
    """
    from esckit.files import alone
    from esckit.planning.encoder import load_encoder
    from esckit.planning.matcher_fitting import train_matcher
    from esckit.planning.matcher_options import MatcherOptions
    from esckit.planning.role_matcher import MATCHER
    from esckit.roles import read_bank

    if out.exists() and any(out.iterdir() if out.is_dir() else [out]) and not (out / MATCHER).exists():
        raise EsckitError(f"{out} holds something else than a role matcher: choose another folder.")
    roles = read_bank(bank)
    questions = _questions(corpus, format, labels, roles)
    quiet()
    options = MatcherOptions(threshold=threshold, keywords=keywords)
    reader = None if encoder == "none" else load_encoder(encoder)
    with alone(out, out.with_name(f".{out.name}.lock")):
        facts = train_matcher(questions, roles, reader, out, options=options, seed=seed)
    if as_json:
        shared.print_json({"format": 1, **facts})
        return
    for language, own in facts["languages"].items():
        if "unseen" in own:
            _show(f"Roles of unseen dialogues in {language}, by cross-validation", own["unseen"])
        told = f"{own['questions']} questions, read by {own['reads']}, abstains below {own['threshold']}"
        felt = f"emotion scores correlate {own['emotions']['correlation']['mean']:.2f} with the bank's, unseen"
        print(f"{language}: {told}; {felt}")
    print(f"matcher: {out}; next: esckit check matcher {out} OTHER_DIALOGUES, esckit check experiences {out}")


def check_matcher_command(
    matcher: FolderArgument,
    corpus: CorpusArgument,
    format: FormatOption = None,
    labels: shared.LabelsOption = None,
    as_json: shared.JsonOption = False,
    trust_remote_code: shared.TrustOption = False,
) -> None:
    """Measure a role matcher on other dialogues than it was trained on, beside the topic alone.

    Example: esckit check matcher runs/matcher cpsycoune.jsonl
    """
    from esckit.planning.matcher_fitting import measure_matcher
    from esckit.planning.role_matcher import RoleMatcher

    quiet()
    loaded = RoleMatcher.load(matcher)
    questions = _questions(corpus, format, labels, loaded.bank)
    if not questions:
        raise CorpusError(f"no dialogue of {corpus} has a gold role: give dialogues with a label role, or a topic.")
    found = measure_matcher(loaded, questions)
    if as_json:
        shared.print_json({"format": 1, "matcher": loaded.identity, "languages": found})
        return
    for language, own in found.items():
        _show(f"Roles in {language}", own)


def check_experiences_command(
    matcher: FolderArgument,
    pairs: Annotated[
        Path | None, typer.Option(help="Texts with the experience that suits each (JSON Lines); default: the shipped.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, max=2, help="Centred cosines no further apart count as equal.")
    ] = None,
    as_json: shared.JsonOption = False,
    trust_remote_code: shared.TrustOption = False,
) -> None:
    """Measure how often the experience that suits a person is found, beside chance and words alone.

    Example: esckit check experiences runs/matcher
    """
    from esckit.planning.experience_figures import experience_figures, read_own_pairs
    from esckit.planning.role_matcher import RoleMatcher
    from esckit.roles.pairs import read_pairs
    from esckit.roles.telling import TOLERANCE

    quiet()
    loaded = RoleMatcher.load(matcher)
    equal = TOLERANCE if tolerance is None else tolerance
    found = experience_figures(loaded, read_own_pairs(pairs) if pairs else read_pairs(), equal)
    if as_json:
        shared.print_json({"format": 1, "matcher": loaded.identity, "tolerance": equal, "languages": found})
        return
    from esckit.report.figure_tables import Table, draw

    rows = [
        [language, way, str(own["n"]), _percent(own["hit"], own.get("interval"))]
        for language, ways in found.items()
        for way, own in ways.items()
    ]
    title = "Experiences found at once (hit@1, per cent; brackets: 95% bootstrap over pairs; chance is exact)"
    notes = [f"as told: by centred cosine of eight scores; of those at most {equal:g} below the best, the likest words"]
    print(draw(Table(title, ["language", "chosen by", "pairs", "hit@1"], 2, rows, notes)))


def _questions(corpus: str, format: str | None, labels: Path | None, bank: "RoleBank") -> "list[Question]":
    """Questions with a gold role; what is left out is told."""
    from esckit.corpora import load_corpus
    from esckit.corpora.starter import starter_roles
    from esckit.planning.questions import questions_with_gold

    if corpus == "starter":
        trees = [tree for part in load_corpus("starter").parts.values() for tree in part]
    else:
        trees = shared.read_dialogues(Path(corpus), format=format, labels=labels)
    found, left_out = questions_with_gold(trees, bank, starter_roles())
    told = ", ".join(f"{number} have {reason}" for reason, number in left_out.items())
    by = sorted({question.by for question in found if question.by})
    print(
        f"{len(found)} questions, gold role by {' and '.join(by) or 'nothing'}" + (f"; {told}" if told else ""),
        file=sys.stderr,
    )
    return found


def _show(title: str, ways: Mapping[str, Mapping[str, Any]]) -> None:
    from esckit.report.figure_tables import Table, draw

    columns = {"recall": "R", "precision": "P", "f1": "F1", "macro_f1": "macro-F1"}
    rows = [
        [
            way,
            str(own["n"]),
            f"{100 * own['answered']:.0f}",
            *(_percent(own[name], own[f"{name}_interval"]) for name in columns),
            _percent(own["over_topic"]["f1"], own["over_topic"]["interval"]) if "over_topic" in own else "-",
        ]
        for way, own in ways.items()
    ]
    heading = f"{title} (per cent; weighted by role, so R is accuracy; brackets: 95% bootstrap over sources)"
    print(draw(Table(heading, ["way", "questions", "answered", *columns.values(), "F1 over topic"], 1, rows, [])))
    roles = list(dict.fromkeys(role for own in ways.values() for role in own["by_role"]))
    each = [[way, *(f"{100 * own['by_role'].get(role, 0):.1f}" for role in roles)] for way, own in ways.items()]
    print("\n" + draw(Table("F1 by role (per cent)", ["way", *roles], 1, each, [])) + "\n")


def _percent(value: float, interval: Any) -> str:
    ends = f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""
    return f"{100 * value:.1f}{ends}"
