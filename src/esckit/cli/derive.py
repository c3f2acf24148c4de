"""``esckit derive`` and ``esckit check perplexity``. Heavy imports happen inside."""

from pathlib import Path
from typing import Annotated, Any

import typer

from esckit.cli import shared
from esckit.errors import EsckitError
from esckit.quiet import quiet

_KEYS = ("bank", "language", "dialogues")


def derive_command(
    corpus: Annotated[
        Path, typer.Argument(help="Questions with answers (PsyQA), or dialogues, in any format of docs/corpora.md.")
    ],
    out: Annotated[Path, typer.Argument(help="The folder to write: trees.jsonl, derivation.json.")],
    model: Annotated[
        str | None, typer.Option(help="The chat model that writes: remote:MODEL, a folder, smollm2; default: rules.")
    ] = None,
    roles: Annotated[
        str | None, typer.Option(help="matched, the default; all; so many, drawn; or their names, with commas.")
    ] = None,
    bank: Annotated[str | None, typer.Option(help="A folder of roles; default: those that come with esckit.")] = None,
    language: Annotated[str | None, typer.Option(help="Take sources in this language alone: en or zh.")] = None,
    steps: Annotated[
        str | None, typer.Option(help="Of dialogue, experiences, style, with commas; default: all three.")
    ] = None,
    base_url: shared.BaseUrlOption = None,
    prompts: shared.PromptsOption = None,
    options: Annotated[
        Path | None, typer.Option(help="A YAML or JSON file of these and all other keys (docs/derivation.md).")
    ] = None,
    dialogues: Annotated[int | None, typer.Option(min=1, help="So many sources, drawn by the seed.")] = None,
    format: Annotated[str | None, typer.Option(help="Of the corpus; default: as the file looks.")] = None,
    labels: shared.LabelsOption = None,
    ledger: shared.LedgerOption = None,
    trust_remote_code: shared.TrustOption = False,
    seed: Annotated[int, typer.Option(min=0, help="Another one draws other sources, roles and answers.")] = 0,
) -> None:
    """Derive dialogues with a supporter who speaks as a role, tells of its story, and keeps to a strategy (Empath).

    Without --model nobody is asked: rules cut, insert and open, and say nothing new. The same command continues where
    it was stopped.

    Example: esckit derive questions.json runs/roles --model remote:qwen --base-url http://localhost:8000/v1
    """
    told = locals()
    from esckit.mining.derivation.by_name import derive_corpus
    from esckit.mining.derivation.options import DerivationOptions

    given = shared.read_options(options, "a derivation") if options else {}
    given |= {key: told[key] for key in _KEYS if told[key] is not None}
    if roles:
        given["roles"] = _roles(roles)
    if steps:
        given["steps"] = [each.strip() for each in steps.split(",")]
    if model or base_url or prompts:
        named = {"model": model, "base_url": base_url, "prompts": str(prompts) if prompts else None}
        own = {key: value for key, value in named.items() if value is not None}
        given |= {"derived_by": "model", "deriver": {**(given.get("deriver") or {}), **own}}
    wanted = shared.options_of(DerivationOptions, given)
    conversations = shared.read_dialogues(corpus, format=format, labels=labels)
    quiet()
    print(_line(derive_corpus(conversations, out, wanted, ledger=ledger, seed=seed), out))


def _roles(told: str) -> Any:
    if told in ("matched", "all"):
        return told
    return int(told) if told.isdecimal() else [each.strip() for each in told.split(",")]


def _line(found: dict[str, Any], out: Path) -> str:
    faults = [f"{count} {name}" for counts in found["faults"].values() for name, count in counts.items()]
    sources = [f"{count} {name}" for name, count in found["left_out"].items()]
    dialogues, calls = sum(found["dialogues"].values()), sum(found["calls"].values())
    told = f"{dialogues} dialogues from {found['sources']} sources by {found['derived_by']}, {calls} calls, in {out}"
    left = f"left out: {', '.join(faults) or 'no version'}; sources left out: {', '.join(sources) or 'none'}"
    return f"{told}; {left}" + (f"; next: esckit tree {out / 'trees.jsonl'}" if dialogues else "")


def check_perplexity_command(
    corpus: Annotated[Path, typer.Argument(help="Dialogues in any format of docs/corpora.md.")],
    model: Annotated[str, typer.Option(help="A causal language model: a folder, a Hub id, smollm2.")],
    speaker: Annotated[str | None, typer.Option(help="seeker or supporter alone; default: both.")] = None,
    format: Annotated[str | None, typer.Option(help="Of the corpus; default: as the file looks.")] = None,
    trust_remote_code: shared.TrustOption = False,
) -> None:
    """Measure how improbable a model finds dialogues: perplexity per token, of all together and of each, as JSON.

    Each dialogue is one text, a line a turn. Figures of two models do not compare.

    Example: esckit check perplexity dialogues.jsonl --model smollm2
    """
    if speaker not in (None, "seeker", "supporter"):
        raise EsckitError(f"--speaker {speaker!r} is unknown: use seeker or supporter, or leave it out.")
    conversations = shared.read_dialogues(corpus, format=format)
    quiet()
    from esckit.mining.derivation.by_name import measure_dialogues

    shared.print_json(measure_dialogues(conversations, model, speaker))
