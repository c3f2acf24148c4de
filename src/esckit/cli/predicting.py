"""The work of ``esckit predict``: whoever is named, opened; a corpus, predicted; what came of it, told."""

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

from esckit.cli import shared
from esckit.errors import EsckitError
from esckit.quiet import quiet

__all__ = ["predict_corpus"]


def predict_corpus(told: Mapping[str, Any]) -> None:
    """Carry out `esckit predict` with its arguments.

    Raises:
        EsckitError: see `supporters.prediction.predict` and `supporters.own_model.open_named`.
    """
    from esckit.chat_models.ledger import LEDGER, Ledger

    out: Path = told["out"]
    options = shared.own_options(told["supporter"], told)
    conversations = shared.read_dialogues(told["corpus"], labels=told["labels"])
    quiet()
    from esckit.decoding import Decoding
    from esckit.measures import read_predictions
    from esckit.rendering import PastStrategies
    from esckit.strategy import ESCONV, TAXONOMIES
    from esckit.supporters import predict
    from esckit.supporters.own_model import open_named
    from esckit.supporters.prediction import stopped_turns

    past = told["past_strategies"]
    if past is not None and past not in get_args(PastStrategies):
        raise EsckitError(f"--past-strategies {past!r} is unknown: use gold, predicted or hidden.")
    taxonomy = next((TAXONOMIES[each.taxonomy] for each in conversations if each.taxonomy), ESCONV)
    with ExitStack() as opened:
        ledger = None
        if options.is_remote:
            ledger = opened.enter_context(Ledger(told["ledger"] or out.with_name(LEDGER)))
            ledger.forget_failed()
        loaded = open_named(options, ledger, taxonomy)
        loaded = loaded if told["role"] is None else loaded.recast(role=told["role"])
        if loaded.card.generator == "retrieval" or options.is_remote:
            print(loaded.about)
        rows = predict(
            loaded,
            conversations,
            out,
            seed=told["seed"],
            planning=Decoding(greedy=not told["sample_strategy"]),
            wording=Decoding(greedy=told["greedy"], **_length(told["max_new_tokens"])),
            past=past,
            stop_at_danger=told["stop_at_danger"],
        )
    if told["stop_at_danger"]:
        stopped = sum(len(stopped_turns(conversation)) for conversation in conversations)
        print(f"{stopped} of {rows} replies are the fixed text, as the seeker speaks of danger before them")
    if options.is_remote:
        _tell_states(Counter(str(row.extra.get("state")) for row in read_predictions(out)), out)
    print(f"{rows} turns predicted into {out}; next: esckit evaluate {out}")


def _length(most: int | None) -> dict[str, int]:
    return {} if most is None else {"max_new_tokens": most}


def _tell_states(states: "Counter[str]", out: Path) -> None:
    """Say which replies did not come, and how to ask again for those that failed."""
    if missing := sum(states.values()) - states["done"]:
        told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()) if state != "done")
        again = f": remove {out} and run again, and what failed is asked for again" if states["failed"] else ""
        print(f"{missing} replies did not come ({told}){again}.")
