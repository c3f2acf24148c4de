"""``esckit search``: preferences from a tree search over strategies and replies. Heavy imports happen inside."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from esckit.cli import shared
from esckit.errors import EsckitError

_ROLES: Final = ("seeker", "supporter", "strategy", "reward", "check")
_KEYS: Final = (
    *("method", "mode", "dialogues", "iterations", "theta", "leaves", "patience", "concurrency"),
    *("budget_calls", "share_budget"),
)

RoleOption = Annotated[str | None, typer.Option(help="Who plays it: as --model says of other commands.")]


def search_command(
    corpus: Annotated[Path, typer.Argument(help="Dialogues with strategies, in any format of docs/corpora.md.")],
    out: Annotated[Path, typer.Argument(help="The folder to write: trees.jsonl, search.json.")],
    method: Annotated[str | None, typer.Option(help="search, the default; or a control: best_of, random.")] = None,
    mode: Annotated[str | None, typer.Option(help="ours, the default; paper or as_coded (docs/mining.md).")] = None,
    seeker: RoleOption = None,
    supporter: RoleOption = None,
    strategy: Annotated[str | None, typer.Option(help="A chat model that scores strategies.")] = None,
    planner: Annotated[str | None, typer.Option(help="A planner's or a supporter's folder, or embedded.")] = None,
    reward: Annotated[
        str | None, typer.Option(help="A chat model, an annotator's folder, embedded, or patterns.")
    ] = None,
    check: Annotated[str | None, typer.Option(help="Who judges a sample of the pairs again; default: nobody.")] = None,
    by: Annotated[
        str | None, typer.Option(help="How a chat model rewards: words, or digits (on this machine).")
    ] = None,
    base_url: shared.BaseUrlOption = None,
    prompts: shared.PromptsOption = None,
    options: Annotated[
        Path | None, typer.Option(help="A YAML or JSON file of these and all other keys (docs/mining.md).")
    ] = None,
    dialogues: Annotated[int | None, typer.Option(min=1, help="So many, drawn by the seed; default: all.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Of a dialogue.")] = None,
    theta: Annotated[float | None, typer.Option(help="What is kept is worth more; default: the reward role's.")] = None,
    leaves: Annotated[int | None, typer.Option(min=1, help="Turns expanded at once in one tree.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Iterations without a pair, then a dialogue ends.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Most questions at once.")] = None,
    budget_calls: Annotated[int | None, typer.Option(min=1, help="Most questions; then it ends in good order.")] = None,
    share_budget: Annotated[bool | None, typer.Option(help="What a dialogue leaves goes to others.")] = None,
    format: Annotated[str | None, typer.Option(help="Of the dialogues; default: as the file looks.")] = None,
    labels: shared.LabelsOption = None,
    ledger: shared.LedgerOption = None,
    trust_remote_code: shared.TrustOption = False,
    seed: Annotated[int, typer.Option(min=0, help="Another one draws other dialogues and answers.")] = 0,
) -> None:
    """Search for preferences from dialogues, by Monte Carlo tree search over strategies and replies.

    Without options all runs here: SmolLM2 speaks, the embedded planner chooses, the embedded annotator rewards, which
    means little. The same command continues where it was stopped.

    Example: esckit search train.json runs/search --dialogues 10 --reward remote:qwen --base-url http://localhost:8000/v1
    """
    told = locals()
    from esckit.mining.tree_search.open_roles import check_roles
    from esckit.mining.tree_search.options import SearchOptions
    from esckit.mining.tree_search.run import search_dialogues
    from esckit.strategy import TAXONOMIES

    given = shared.read_options(options, "a search") if options else {}
    given |= {key: told[key] for key in _KEYS if told[key] is not None}
    given |= _roles(given, told)
    wanted = shared.options_of(SearchOptions, given)
    conversations = shared.read_dialogues(corpus, format=format, labels=labels)
    for taxonomy in {str(conversation.taxonomy) for conversation in conversations} & TAXONOMIES.keys():
        check_roles(wanted, TAXONOMIES[taxonomy], conversations)
    print(_line(search_dialogues(conversations, wanted, out, ledger=ledger, seed=seed), out))


def _roles(given: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """The roles as the command line says, over what stands in the file of options.

    Raises:
        EsckitError: a base URL is given, and no role is behind one.
    """
    roles = {role: {**(given.get(role) or {}), **own} for role in _ROLES if (own := _role(role, told))}
    if told["base_url"] and not any("base_url" in role for role in roles.values()):
        raise EsckitError("--base-url is for roles that are remote:MODEL: name one (--reward remote:MODEL).")
    return roles


def _role(role: str, told: dict[str, Any]) -> dict[str, Any]:
    """What the command line says of a role."""
    own: dict[str, Any] = {"model": told[role]} if told[role] else {}
    if role == "strategy" and told["planner"]:
        own["planner"] = told["planner"]
    if role == "reward" and told["by"]:
        own["by"] = told["by"]
    if str(told[role] or "").startswith("remote:") and told["base_url"]:
        own["base_url"] = told["base_url"]
    speaks = role in ("seeker", "supporter") or told[role] not in (None, "embedded")
    if told["prompts"] and speaks:
        own["prompts"] = str(told["prompts"])
    return own


def _line(found: dict[str, Any], out: Path) -> str:
    calls = sum(found["calls"].values())
    each = f" ({found['calls_per_pair']:.1f} a pair)" if found["pairs"] else ""
    checked = found["checked"]
    sign = ""
    if checked and checked["pairs"]:
        sign = f"; {checked['judge']} agrees on {checked['kept_sign']:.0%} of {checked['pairs']}"
    trees = out / "trees.jsonl"
    told = f"{found['pairs']} pairs from {found['seeds']} dialogues by {calls} calls{each}{sign}, in {trees}"
    advice = f"next: esckit tree {trees}"
    if not found["pairs"]:
        advice = "no turn was worth more than theta with one beside it worth less: search longer, or change theta"
    return f"{told}; {advice}"
