"""An encoder without weights for tests of judging: a text's vector counts its letters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esckit.conversation import Turn
from esckit.corpora.error_labels import LabelledReply


class LetterEncoder:
    """As much of an `Encoder` as annotators use."""

    source = "letters"
    weights_hash = "0" * 64
    width = 8

    def embed(self, texts: Sequence[str], max_tokens: int = 128) -> NDArray[np.float32]:
        rows = np.array([[text.lower().count(letter) + 0.01 for letter in "aeioutsr"] for text in texts]).reshape(-1, 8)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def letters() -> Any:
    return LetterEncoder()


def labelled(response: str, error: str | None, group: str) -> LabelledReply:
    context = (Turn("0", None, "seeker", "I lost my job and I am so scared."),)
    return LabelledReply(context, "Question", response, error, group)


def some_labels(dialogues: int = 6) -> list[LabelledReply]:
    """Replies whose error can be seen, three a dialogue."""
    return [
        labelled(response, error, f"d{number}")
        for number in range(dialogues)
        for response, error in (
            (f"That must be so scary, losing your job {number}.", None),
            (f"Look on the bright side and smile {number}!", "early_emotion_shift"),
            (f"You stupid loser {number}.", "other"),
        )
    ]
