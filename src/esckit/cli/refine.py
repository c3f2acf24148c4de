"""``esckit refine``: pairs of a draft and what it was refined to. Heavy imports happen inside."""

from pathlib import Path
from typing import Annotated, Any

import typer

from esckit.cli import shared
from esckit.quiet import quiet

_KEYS = ("mode", "refined_by", "dialogues", "budget_calls")


def refine_command(
    corpus: Annotated[Path, typer.Argument(help="Dialogues with strategies, in any format of docs/corpora.md.")],
    out: Annotated[Path, typer.Argument(help="The folder to write: trees.jsonl, refinement.json.")],
    policy: Annotated[
        str, typer.Option(help="Who drafts: a supporter's folder, any causal model, or remote:MODEL.")
    ] = "smollm2",
    refined_by: Annotated[
        str | None, typer.Option(help="policy, the default; model (--refiner); or people: their replies are chosen.")
    ] = None,
    refiner: Annotated[str | None, typer.Option(help="The chat model that refines, in the policy's place.")] = None,
    accept: Annotated[
        str | None, typer.Option(help="Who has to find the chosen side better: a chat model, or embedded.")
    ] = None,
    mode: Annotated[str | None, typer.Option(help="ours, the default, or paper (docs/mining.md).")] = None,
    base_url: shared.BaseUrlOption = None,
    prompts: shared.PromptsOption = None,
    options: Annotated[
        Path | None, typer.Option(help="A YAML or JSON file of these and all other keys (docs/mining.md).")
    ] = None,
    dialogues: Annotated[int | None, typer.Option(min=1, help="So many, drawn by the seed; default: all.")] = None,
    budget_calls: Annotated[
        int | None, typer.Option(min=1, help="Most questions: drafts, refinements, verdicts.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="Of the dialogues; default: as the file looks.")] = None,
    labels: shared.LabelsOption = None,
    ledger: shared.LedgerOption = None,
    trust_remote_code: shared.TrustOption = False,
    seed: Annotated[int, typer.Option(min=0, help="Another one draws other dialogues and drafts.")] = 0,
) -> None:
    """Draft replies, let a model read the person and refine them, and keep the pairs (self-evolution).

    Without options all runs here: SmolLM2 drafts and refines, which means little. The same command continues where it
    was stopped.

    Example: esckit refine train.json runs/refined --dialogues 10 --policy remote:qwen --base-url http://localhost:8000/v1
    """
    told = locals()
    given = shared.read_options(options, "self-refinement") if options else {}
    given |= {key: told[key] for key in _KEYS if told[key] is not None}
    for role, name in (("refiner", refiner), ("accept", accept)):
        own: dict[str, Any] = {"model": name} if name else {}
        if name and name.startswith("remote:") and base_url:
            own["base_url"] = base_url
        if prompts and (role == "refiner" or name not in (None, "embedded")):
            own["prompts"] = str(prompts)
        if own:
            given[role] = {**(given.get(role) or {}), **own}
    if refiner and refined_by is None:
        given["refined_by"] = "model"
    from esckit.mining.self_refinement.options import RefinementOptions

    wanted = shared.options_of(RefinementOptions, given)
    conversations = shared.read_dialogues(corpus, format=format, labels=labels)
    quiet()
    from esckit.mining.self_refinement.by_name import refine_corpus

    url = base_url if policy.startswith("remote:") else None
    print(_line(refine_corpus(conversations, policy, wanted, out, base_url=url, ledger=ledger, seed=seed), out))


def _line(found: dict[str, Any], out: Path) -> str:
    filters = ", ".join(f"{count} {name}" for name, count in found["filters"].items() if count)
    calls, people = sum(found["calls"].values()), found["from_people"]
    told = f"{found['pairs']} pairs ({people} with a human reply) from {found['contexts']} contexts by {calls} calls"
    next_step = f"next: esckit check preferences {out / 'trees.jsonl'}" if found["pairs"] else "no draft made a pair"
    return f"{told}, in {out / 'trees.jsonl'}; left out: {filters or 'none'}; {next_step}"
