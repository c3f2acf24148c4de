"""What a row costs in a file of 20,000 predictions, against one of 2,000, and what the whole file costs.

    python benchmarks/evaluate.py [--rows N] [--rounds R]

The rows have random labels and words. No encoder is asked. benchmarks/README.md says what each number means; the last
line is one JSON object of ratios.
"""

import argparse
import json
import random
import statistics
import time
from typing import Final

from esckit.measures import Prediction, evaluate
from esckit.strategy import ESCONV

SMALLER: Final = 10  # so many times fewer rows in the small file
METRICS: Final = ("strategy", "text", "meteor")
WORDS: Final = ("i", "you", "feel", "so", "sad", "why", "is", "that", "hard", ".", "?")


def drawn_rows(count: int) -> list[Prediction]:
    """Rows of dialogues with 12 replies each."""
    draw = random.Random(0)
    return [
        Prediction(
            conversation_id=number // 12,
            turn_id=number,
            gold_strategy=draw.choice(ESCONV.labels),
            predicted_strategy=draw.choice(ESCONV.labels),
            gold_text=" ".join(draw.choices(WORDS, k=12)),
            predicted_text=" ".join(draw.choices(WORDS, k=12)),
        )
        for number in range(count)
    ]


def seconds(rows: list[Prediction], metric: str) -> float:
    """CPU time of it, which a busy machine changes less than wall time."""
    started = time.process_time()
    evaluate(rows, metrics=(metric,))
    return time.process_time() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    large = drawn_rows(options.rows)
    small = large[: len(large) // SMALLER]
    for metric in METRICS:
        seconds(small, metric)  # imports and word lists are loaded once
    found: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for number in range(options.rounds):
        for metric in METRICS:
            few, many = seconds(small, metric), seconds(large, metric)
            found[metric].append(many / SMALLER / few)
            print(f"round {number + 1}, {metric}: {few:.2f} s for {len(small)} rows, {many:.2f} s for {len(large)}")
    print(
        json.dumps(
            {f"row_in_large_over_small_{name}": round(statistics.median(each), 3) for name, each in found.items()}
        )
    )


if __name__ == "__main__":
    main()
