"""What a turn costs in a tree of 5,000 turns, against one of 500 and against copying; and what reading them costs.

    python benchmarks/tree.py [--turns N] [--rounds R]

Each step of the search adds one turn under a turn drawn by chance and backs a value up to the first one. No model is
asked. benchmarks/README.md says what each number means; the last line is one JSON object of ratios.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from esckit.conversation import Conversation, GrowingTree, Turn, read_conversations, write_conversations
from esckit.strategy import ESCONV

SMALLER: Final = 10  # so many times fewer turns in the small tree
DEEPEST: Final = 20  # turns before the last of a dialogue
SAMPLED: Final = 25  # sizes at which copying is timed; all of them would take minutes


def drawn_turns(count: int) -> list[Turn]:
    """Turns of a search, each under an earlier one drawn by chance; paths are as long in a small tree as in a large."""
    draw = random.Random(0)
    levels = [["0"]]
    turns = [Turn("0", None, "seeker", "I failed my exam.")]
    for number in range(1, count):
        level = min(draw.randint(1, DEEPEST), len(levels))
        if level == len(levels):
            levels.append([])
        levels[level].append(str(number))
        label = draw.choice(ESCONV.labels)
        parent = draw.choice(levels[level - 1])
        turns.append(Turn(str(number), parent, "supporter", "That must hurt. What happened?", label, "search"))
    return turns


def search(turns: list[Turn]) -> Conversation:
    """Grow a tree by one turn at a time, and back a value up its path after each."""
    tree = GrowingTree(Conversation("search", []))
    for number, turn in enumerate(turns):
        tree.add(turn)
        for above in tree.conversation.path(turn.id):
            visits = above.scores.get("visits", 0) + 1
            value = above.scores.get("value", 0.0)
            tree.update(above.id, scores={"visits": visits, "value": value + (number % 5 - value) / visits})
    return tree.finish()


def seconds(work: Callable[[], object]) -> float:
    """CPU time of it, which a busy machine changes less than wall time."""
    started = time.process_time()
    work()
    return time.process_time() - started


def by_copying(turns: list[Turn]) -> float:
    """Mean seconds of one `Conversation.grow` by one turn, over sizes from none to all; no value is backed up."""
    places = [len(turns) * part // SAMPLED for part in range(SAMPLED)]
    steps = [partial(Conversation("copied", turns[:place]).grow, [turns[place]]) for place in places]
    return statistics.fmean(map(seconds, steps))


def reading(turns: list[Turn], trees: int, folder: str) -> float:
    """Seconds a turn of reading and checking a file of so many trees."""
    path = Path(folder) / "trees.jsonl"
    write_conversations(path, (Conversation(str(number), turns) for number in range(trees)))
    return seconds(lambda: read_conversations(path)) / trees / len(turns)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    large = drawn_turns(options.turns)
    small = large[: len(large) // SMALLER]
    found: dict[str, list[float]] = {"size": [], "copying": [], "reading": []}
    with TemporaryDirectory() as folder:
        for number in range(options.rounds):
            few = seconds(lambda: [search(small) for _ in range(SMALLER)]) / len(large)
            many = seconds(lambda: search(large)) / len(large)
            copied = by_copying(large)
            read = [reading(turns, trees, folder) for turns, trees in ((small, 4 * SMALLER), (large, 4))]
            found["size"].append(many / few)
            found["copying"].append(copied / many)
            found["reading"].append(read[1] / read[0])
            print(
                f"round {number + 1}: a turn and its back-up {few * 1e6:.1f} us in a tree of {len(small)} turns, "
                f"{many * 1e6:.1f} us of {len(large)}; copied {copied * 1e6:,.0f} us; "
                f"read {read[0] * 1e6:.1f} and {read[1] * 1e6:.1f} us"
            )
    size, copying, read_ratio = (round(statistics.median(found[name]), 3) for name in ("size", "copying", "reading"))
    print(
        json.dumps(
            {
                "turn_in_large_over_small_tree": size,
                "copying_over_growing": copying,
                "reading_large_over_small_trees": read_ratio,
            }
        )
    )


if __name__ == "__main__":
    main()
