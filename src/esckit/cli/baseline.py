"""``esckit baseline``: a prompted chat model in the supporter's place. Heavy imports happen inside."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esckit.errors import EsckitError

if TYPE_CHECKING:
    from esckit.conversation import Conversation

__all__ = ["baseline_command"]


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
    model: Annotated[
        str, typer.Option(help="remote:MODEL (a chat model behind a URL), or a model's folder or Hub id.")
    ],
    base_url: Annotated[
        str | None, typer.Option(help="Of remote:MODEL, default OpenAI's; its key stands in OPENAI_API_KEY.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Of method example: dialogues to draw from; default the starter corpus's train.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="A folder of your own prompts (esckit prompts).")] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="Where answers are kept; default baselines.ledger beside OUT, for all methods.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another one draws other answers and other examples.")] = 0,
    greedy: Annotated[bool, typer.Option(help="Take the most likely answer instead of sampling at .7 / .95.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 256,
    at_once: Annotated[int, typer.Option(min=1, help="Most calls at once to a URL; prompts a batch here.")] = 16,
    budget_calls: Annotated[int | None, typer.Option(min=1, help="Most calls that the ledger may hold.")] = None,
    budget_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens, likewise.")] = None,
) -> None:
    """Predict every labelled supporter turn of a corpus by prompting a chat model, without training.

    The same command continues where it was stopped, and asks again what failed. base, direct-refine and self-refine
    share their drafts.

    Example: esckit baseline self-refine test.json out.jsonl --model remote:qwen --base-url http://localhost:8000/v1
    """
    from esckit.chat_models.ledger import Ledger
    from esckit.chat_models.opening import open_chat_model
    from esckit.chat_models.pacing import Pace
    from esckit.corpora import read_corpus
    from esckit.decoding import Decoding
    from esckit.prompts.own import read_prompts
    from esckit.supporters.baseline_run import BaselineRun, write_rows
    from esckit.supporters.baselines import METHODS, places_of

    if method not in METHODS:
        raise EsckitError(f"the baseline {method!r} is unknown: use one of {', '.join(METHODS)}.")
    if examples is not None and method != "example":
        raise EsckitError(f"--examples is for the baseline example: leave it out for {method}.")
    words = read_prompts(prompts, "baselines")
    places = places_of(read_corpus(corpus), METHODS[method], lambda: _examples(examples), seed)
    asked = open_chat_model(model, base_url, at_once=at_once)
    decoding = Decoding(greedy=greedy, max_new_tokens=max_new_tokens)
    pace = Pace(budget_calls=budget_calls, budget_tokens=budget_tokens)
    with Ledger(ledger or out.with_name("baselines.ledger")) as opened:
        if again := opened.forget_failed():
            print(f"{again} questions that failed before are asked again")
        run = BaselineRun(asked, opened, method, places, decoding=decoding, pace=pace, seed=seed, prompts=words)
        by = f", prompts {words.label}" if words.label else ""
        print(f"{method}{by}, {len(places)} turns: {run.estimate()}")
        for stage in run.ask():
            print(f"{stage.stage}: {stage.usage}")
        states = write_rows(run.rows(), out)
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()) if count)
    print(f"{len(places)} turns in {out} ({told}); next: esckit evaluate {out}")


def _examples(path: Path | None) -> "list[Conversation]":
    from esckit.corpora import read_corpus
    from esckit.corpora.starter import read_starter

    return read_starter().train if path is None else read_corpus(path)
