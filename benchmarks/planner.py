"""Time of a planned turn on one core: the encoder planner against one forward pass of its encoder over the context.

    python benchmarks/planner.py [--planner FOLDER --corpus dialogues.json] [--turns 40]

Cold: nothing of the dialogue is remembered. Warm: all but the last reply and what answers it is, as in a chat. The peer
is what a planner that tunes an encoder and reads the context as one text pays for a turn (sequence classification, the
same encoder, as many tokens), before its head. Ratios are peer / ours; medians over turns whose context has 240 to 272
tokens, the peer and ours in turns. Without --planner one is trained on the starter corpus, with as many members.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch

from esckit.conversation import Conversation, Turn
from esckit.corpora import load_corpus, read_corpus
from esckit.language_models.precision import SLOW_BFLOAT16, fast_bfloat16
from esckit.planning.encoder import Encoder, Precision, load_encoder
from esckit.planning.encoder_planner import EncoderPlanner
from esckit.planning.fitting import train_planner
from esckit.planning.planner_options import PlannerOptions
from esckit.planning.turn_batches import TextVectors
from esckit.rendering import past_strategies, supporter_turns
from esckit.strategy import ESCONV

TOKENS: Final = (240, 272)
PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "bfloat16")


def contexts(
    dialogues: list[Conversation], encoder: Encoder, turns: int
) -> list[tuple[Conversation, Turn, list[Turn]]]:
    """Turns whose context has about 256 tokens."""
    found = []
    for dialogue in dialogues:
        for turn in supporter_turns(dialogue):
            path = dialogue.path(turn.parent)
            tokens = encoder.tokenizer([each.text or "" for each in path] or [""])["input_ids"]
            if TOKENS[0] <= sum(map(len, tokens)) <= TOKENS[1]:
                found.append((dialogue, turn, path))
    return found[:turns]


def clock(work: Callable[[], object]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


@torch.no_grad()
def whole(encoder: Encoder, path: list[Turn]) -> Callable[[], object]:
    """The peer: the context as one text, one forward pass."""
    inputs = encoder.tokenizer(" ".join(turn.text or "" for turn in path), return_tensors="pt", truncation=True)
    inputs = {name: tensor[:, : TOKENS[1]] for name, tensor in inputs.items()}

    def run() -> object:
        with torch.no_grad():
            return encoder.reader(**inputs)

    return run


def measure(folder: Path, precision: Precision, dialogues: list[Conversation], turns: int) -> dict[str, list[float]]:
    """Milliseconds a turn, by what is measured."""
    planner = EncoderPlanner.load(folder, load_encoder(precision=precision))
    assert planner.encoder is not None
    taken: dict[str, list[float]] = {"peer": [], "cold": [], "warm": [], "known": []}
    for dialogue, turn, path in contexts(dialogues, planner.encoder, turns):
        shown = past_strategies(dialogue, "gold")
        answered = next(i for i in range(len(path), -1, -1) if i == 0 or path[i - 1].speaker == "supporter")

        def plan() -> object:
            return planner.score(dialogue, [turn], shown)  # noqa: B023  called before the next turn

        taken["peer"].append(clock(whole(planner.encoder, path)))
        planner.embed = TextVectors(planner.encoder)
        taken["cold"].append(clock(plan))
        planner.embed = TextVectors(planner.encoder)
        planner.embed([(each.text or "").strip() for each in path[: max(0, answered - 1)]])
        taken["warm"].append(clock(plan))
        taken["known"].append(clock(plan))
    return taken


def main() -> None:
    """Measure, print a table, then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planner", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--turns", type=int, default=40)
    given = parser.parse_args()
    torch.set_num_threads(1)
    dialogues = read_corpus(given.corpus) if given.corpus else load_corpus("starter").train
    with TemporaryDirectory() as made:
        folder = given.planner or Path(made)
        if given.planner is None:
            train_planner(load_corpus("starter").train, load_encoder(), ESCONV, PlannerOptions(epochs=1), folder)
        precisions = PRECISIONS if fast_bfloat16() else PRECISIONS[:1]
        if precisions != PRECISIONS:
            print(f"bfloat16 is left out: {SLOW_BFLOAT16}")
        taken = {precision: measure(folder, precision, dialogues, given.turns) for precision in precisions}
    medians = {name: {part: float(np.median(each)) for part, each in parts.items()} for name, parts in taken.items()}
    for name, parts in medians.items():
        told = ", ".join(f"{part} {value:.0f}" for part, value in parts.items())
        print(f"{name}, one core, ms a turn (median of {len(taken[name]['cold'])}): {told}")
    ratios = {n: {part: round(p["peer"] / p[part], 2) for part in ("cold", "warm")} for n, p in medians.items()}
    milliseconds = {name: {part: round(value) for part, value in parts.items()} for name, parts in medians.items()}
    print(json.dumps({"ratios": ratios, "milliseconds": milliseconds}))


if __name__ == "__main__":
    main()
