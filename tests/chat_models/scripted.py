"""A chat model without any network, whose results a test writes down."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from esckit.chat_models.protocol import CallFailure, ChatReply, ChatRequest

Script = Callable[[str, int], ChatReply | CallFailure]
"""From a request's last message, and how often it was asked before, to what comes of the call."""


class ScriptedModel:
    """Answers by a script; counts what it was asked and how much of it at once."""

    def __init__(self, script: Script, *, concurrency: int = 4, batch_size: int = 1, delay: float = 0.0) -> None:
        self.script = script
        self.concurrency = concurrency
        self.batch_size = batch_size
        self.delay = delay
        self.asked: Counter[str] = Counter()
        self.batches: list[int] = []
        self.at_once = 0
        self.most_at_once = 0
        self.closed = 0

    @property
    def identity(self) -> Any:
        return "scripted"

    async def answer(self, requests: Sequence[ChatRequest]) -> AsyncIterator[tuple[int, ChatReply | CallFailure]]:
        self.batches.append(len(requests))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.delay)
            for place, request in reversed(list(enumerate(requests))):  # replies need not come in order
                text = request.messages[-1].content
                before = self.asked[text]
                self.asked[text] += 1
                yield place, self.script(text, before)
        finally:
            self.at_once -= 1

    async def close(self) -> None:
        self.closed += 1


def says(text: str) -> Script:
    """Always the same reply."""
    return lambda question, before: ChatReply(text, "stop")
