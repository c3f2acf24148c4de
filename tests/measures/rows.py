"""Predictions for tests."""

import random
from typing import Any

from esckit.measures import Prediction, evaluate
from esckit.strategy import ESCONV

LABELS = ESCONV.labels


def row(
    gold: str | None, predicted: str | None, *, dialogue: str | int = 0, turn: str | int = 0, **rest: Any
) -> Prediction:
    """One turn with some text."""
    texts = {"gold_text": "How are you?", "predicted_text": "I see."} | rest
    return Prediction(conversation_id=dialogue, turn_id=turn, gold_strategy=gold, predicted_strategy=predicted, **texts)


def random_rows(n: int = 120, dialogues: int = 10, seed: int = 1) -> list[Prediction]:
    """A planner that is right about a third of the time, with an unparsed prediction now and then."""
    rng = random.Random(seed)
    words = ["i", "you", "feel", "sad", "happy", "so", ".", "why", "do", "that", "hard", "really", "think"]
    rows = []
    for turn in range(n):
        gold = rng.choice(LABELS)
        predicted = gold if rng.random() < 0.3 else rng.choice([*LABELS, "Confrontation"])
        texts = [" ".join(rng.choices(words, k=rng.randint(1, 12))) for _ in range(2)]
        rows.append(
            row(
                gold, predicted, dialogue=f"d{turn % dialogues}", turn=turn, gold_text=texts[0], predicted_text=texts[1]
            )
        )
    return rows


def measured(rows: list[Prediction], **how: Any) -> Any:
    """What ``evaluate`` returns, for tests that know which figures there are."""
    return evaluate(rows, **how)
