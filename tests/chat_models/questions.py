"""A step of questions with JSON answers for tests of asking, and a process of its own that asks them.

python -m tests.chat_models.questions URL LEDGER COUNT
"""

import sys
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel

from esckit.chat_models.asker import Asker
from esckit.chat_models.ledger import Ledger
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import ChatRequest
from esckit.chat_models.remote import RemoteChatModel
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from tests.server import MODEL

STEP: Final = "test/1"
QUICK: Final = Pace(attempts=8, first_wait=0.01, longest_wait=0.1)
AT_ONCE: Final = 16


class Judgement(BaseModel):
    """What the test server's good answers are."""

    score: Literal[1, 2, 3, 4, 5]
    reason: str


def questions(count: int, *, json: bool = True) -> list[ChatRequest]:
    """Different questions."""
    schema = Judgement if json else None
    how = Decoding(greedy=True, max_new_tokens=50)
    return [ChatRequest((Message("user", f"Question {place}?"),), how, schema) for place in range(count)]


def remote(url: str, *, model: str = MODEL, concurrency: int = AT_ONCE, timeout: float = 0.5) -> RemoteChatModel:
    """The test server as a chat model; its key stands in OPENAI_API_KEY."""
    return RemoteChatModel(model, url, concurrency=concurrency, timeout=timeout)


if __name__ == "__main__":
    with Ledger(Path(sys.argv[2])) as ledger:
        Asker(remote(sys.argv[1]), ledger, STEP, QUICK).ask(questions(int(sys.argv[3])))
