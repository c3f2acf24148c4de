"""``esckit check server``: what a chat server can do, and what asking it would cost. Heavy imports happen inside."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from esckit.cli import shared
from esckit.errors import EsckitError


def check_server_command(
    model: shared.ModelOption,
    corpus: Annotated[
        Path | None, typer.Argument(help="Dialogues that you would ask about; default: the starter corpus's test.")
    ] = None,
    base_url: shared.BaseUrlOption = None,
    extra_body: shared.ExtraBodyOption = None,
    leave_out: shared.LeaveOutOption = None,
    as_json: shared.JsonOption = False,
) -> None:
    """Ask a chat server five cheap questions: what it can do, and what a run on a corpus would cost.

    Exit code 2 where it cannot be asked; the sentence says what to mend.

    Example: esckit check server --model remote:MODEL --base-url http://localhost:8000/v1
    """
    told: dict[str, Any] = locals()
    from esckit.chat_models.opening import REMOTE, ChatModelOptions, open_remote
    from esckit.corpora import read_corpus
    from esckit.corpora.starter import read_starter

    options = shared.options_of(ChatModelOptions, told)
    if not model.startswith(REMOTE):
        raise EsckitError(f"{model} is behind no URL: name a server's model, --model {REMOTE}MODEL.")
    conversations = read_corpus(corpus) if corpus else read_starter().test
    from esckit.chat_models.probe import probe
    from esckit.judging.run_costs import run_costs

    opened = open_remote(options)

    found = asyncio.run(probe(opened))
    costs = {each.command: each.cost for each in run_costs(opened, conversations)}
    if as_json:
        tokens = {name: {**cost._asdict(), "items": cost.items} for name, cost in costs.items()}
        shared.print_json({**found._asdict(), "identity": opened.identity, "costs": tokens})
        return
    wide = max(map(len, (*found.facts, *costs))) + 2
    print(f"{opened.model} at {opened.base_url}, {found.calls} calls:")
    print(*(f"  {name:<{wide}}{fact}" for name, fact in found.facts.items()), sep="\n")
    turns = f"{len(conversations)} dialogues of {corpus.name if corpus else 'the starter corpus'}"
    print(f"\nA run on the {turns} would ask, one call a question:")
    print(*(f"  {name:<{wide}}{_cost(cost)}" for name, cost in costs.items()), sep="\n")
    if found.reply_tokens is not None:
        print(f"A reply here took {found.reply_tokens} tokens, its thought included; take that times the calls.")


def _cost(cost: Any) -> str:
    tokens = f"about {cost.prompt_tokens:,} prompt tokens, at most {cost.completion_tokens:,} of replies"
    return f"{cost.items:,} calls, {tokens}"
