"""``esckit baseline``: a prompted chat model in the supporter's place. Heavy imports happen inside."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esckit.cli import shared
from esckit.errors import EsckitError

if TYPE_CHECKING:
    from collections import Counter

    from esckit.conversation import Conversation


def baseline_command(
    method: Annotated[
        str,
        typer.Argument(
            help="base, base-decoupled, direct-refine, self-refine, emotional-cot, example, guidelines, "
            "self-reflection."
        ),
    ],
    corpus: Annotated[Path, typer.Argument(help="Dialogues with strategies: ESConv JSON or conversation trees.")],
    out: Annotated[Path, typer.Argument(help="The predictions file to write.")],
    model: shared.ModelOption,
    base_url: shared.BaseUrlOption = None,
    extra_body: shared.ExtraBodyOption = None,
    leave_out: shared.LeaveOutOption = None,
    trust_remote_code: shared.TrustOption = False,
    examples: Annotated[
        Path | None, typer.Option(help="Of method example: dialogues to draw from; default the starter corpus's train.")
    ] = None,
    labels: shared.LabelsOption = None,
    prompts: shared.PromptsOption = None,
    ledger: shared.LedgerOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Another one draws other answers and other examples.")] = 0,
    greedy: Annotated[bool, typer.Option(help="Take the most likely answer instead of sampling at .7 / .95.")] = False,
    max_new_tokens: shared.NewTokensOption = None,
    concurrency: shared.ConcurrencyOption = None,
    budget_calls: shared.CallsOption = None,
    budget_tokens: shared.TokensOption = None,
) -> None:
    """Predict every labelled supporter turn of a corpus by prompting a chat model, without training.

    The same command continues where it was stopped, and asks again what failed. base, direct-refine and self-refine
    share their drafts.

    Example: esckit baseline self-refine test.json out.jsonl --model remote:qwen --base-url http://localhost:8000/v1
    """
    told = locals()
    from esckit.chat_models.ledger import LEDGER, Ledger
    from esckit.supporters.baselines import BaselineOptions
    from esckit.supporters.open_model import open_model
    from esckit.supporters.prompted import PromptedSupporter, corpus_requests, predict_at_once

    options = shared.options_of(BaselineOptions, told)
    if examples is not None and method != "example":
        raise EsckitError(f"--examples is for the baseline example: leave it out for {method}.")
    options.read_prompts()
    conversations = shared.read_dialogues(corpus, labels=labels)
    requests = corpus_requests(conversations, options, seed)
    asked = open_model(options)
    with Ledger(ledger or out.with_name(LEDGER)) as opened:
        if again := opened.forget_failed():
            print(f"{again} questions that failed before are asked again")
        supporter = PromptedSupporter(
            asked,
            opened,
            options,
            examples=lambda: _examples(examples, labels, conversations[0].language),
            tell=lambda question, usage: print(f"{question}: {usage}"),
        )
        print(f"{method}{_by(supporter.prompts.label)}, {len(requests)} turns: {supporter.estimate(requests)}")
        _tell(predict_at_once(supporter, conversations, requests, out), len(requests), out)


def _by(prompts: str | None) -> str:
    return f", prompts {prompts}" if prompts else ""


def _tell(states: "Counter[str]", turns: int, out: Path) -> None:
    states["without a strategy"] = states.pop("no_strategy")
    ended = ", ".join(f"{count} {state}" for state, count in sorted(states.items()) if count)
    print(f"{turns} turns in {out} ({ended}); next: esckit evaluate {out}")


def _examples(path: Path | None, labels: Path | None, language: str) -> "list[Conversation]":
    from esckit.corpora.starter import starter_in

    return starter_in(language).train if path is None else shared.read_dialogues(path, labels=labels)
