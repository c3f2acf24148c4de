"""Eight emotion scores of what a person wrote, by a chat model: asked once each, with a schema, through a ledger."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from esckit.chat_models.asker import Asker
from esckit.chat_models.ledger import Ledger, Outcome, State
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import ChatModel, ChatRequest
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.prompts import load_prompt
from esckit.prompts.transcript import quote
from esckit.roles.emotions import EMOTIONS, HIGHEST, LOWEST

__all__ = ["AskedEmotions", "EmotionReply", "Felt"]

STEP: Final = "emotions/1"
_DECODING: Final = Decoding(greedy=True)

_Score = Annotated[int, Field(ge=LOWEST, le=HIGHEST)]


class EmotionReply(BaseModel):
    """What the model has to answer; whole numbers from 1 to 10."""

    joy: _Score
    acceptance: _Score
    fear: _Score
    surprise: _Score
    sadness: _Score
    disgust: _Score
    anger: _Score
    anticipation: _Score


class Felt(NamedTuple):
    """Scores (8,) in the order of `EMOTIONS`, or None, and then ``state`` and ``why`` say what came instead."""

    scores: NDArray[np.float64] | None
    state: State
    why: str = ""


class AskedEmotions:
    """Asks a chat model for emotion scores.

    Args:
        model: who is asked.
        ledger: open; nothing is asked twice.
        pace: patience and budgets.
    """

    def __init__(self, model: ChatModel, ledger: Ledger, pace: Pace | None = None) -> None:
        self._asker = Asker(model, ledger, STEP, pace)

    @property
    def identity(self) -> list[Any]:
        """JSON-ready; changes with anything that the scores depend on."""
        return [STEP, self._asker.model.identity]

    def feelings(self, texts: Sequence[str], language: str) -> list[Felt]:
        """Score texts; no score is made up where an answer is missing.

        Raises:
            EsckitError: there are no prompts in this language.
            BudgetSpent, ChatError, LedgerError: see `Asker.answers`.
        """
        return [_felt(outcome) for outcome in self._asker.ask([emotion_request(text, language) for text in texts])]


def emotion_request(text: str, language: str) -> ChatRequest:
    """What the model is asked about one text, which stands in it as quoted data."""
    prompt = load_prompt("feelings", "score", language, text=quote(text))
    return ChatRequest((Message("user", prompt),), _DECODING, EmotionReply)


def _felt(outcome: Outcome) -> Felt:
    if outcome.state != "done":
        return Felt(None, outcome.state, outcome.detail or outcome.failure or "")
    reply = outcome.value(EmotionReply)
    return Felt(np.array([getattr(reply, name) for name in EMOTIONS], dtype=np.float64), "done")
