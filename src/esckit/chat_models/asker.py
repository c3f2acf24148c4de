"""Asking a chat model so that no answer is lost: each item ends in one recorded state, whatever happens on the way."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple

from esckit.chat_models.ledger import Ledger, Outcome, UsageSummary
from esckit.chat_models.live import LiveAsker
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import ChatModel, ChatRequest
from esckit.progress import progress

BYTES_PER_TOKEN: Final = 4
"""Of English text; an estimate only, no budget rests on it."""


@contextmanager
def runner() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """What runs coroutines, one after the other: here, or where a loop runs already (a notebook), on a thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with asyncio.Runner() as runner:
            yield runner.run
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        runner = asyncio.Runner()
        try:
            yield lambda coroutine: thread.submit(runner.run, coroutine).result()
        finally:
            thread.submit(runner.close).result()


class ToAsk(NamedTuple):
    """What asking would take."""

    items: int  # different ones that have no state yet
    recorded: int  # that have one
    prompt_tokens: int  # about, for one call an item
    completion_tokens: int  # at most, likewise

    def __str__(self) -> str:
        return (
            f"{self.items:,} questions to ask ({self.recorded:,} on record), about {self.prompt_tokens:,} prompt "
            f"tokens, at most {self.completion_tokens:,} completion tokens"
        )


class Asker:
    """Asks a model for a step's items, once each.

    Everything is recorded in the ledger, which is open. ``step`` is name and version of what asks ("judge/empathy/1"),
    part of each item's key; what stands before its first ``/`` is the role whose calls a budget counts. ``usage`` says
    what the last run cost.
    """

    def __init__(self, model: ChatModel, ledger: Ledger, step: str, pace: Pace | None = None) -> None:
        self.model = model
        self.ledger = ledger
        self.step = step
        self.pace = pace or Pace()
        self.usage = UsageSummary()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[LiveAsker]:
        """Take questions as they arise: ``async with asker.open() as live: outcome = await live.ask(request)``.

        Any number of tasks may ask at the same time; open one for all of them, as each counts its budget by itself.
        What is under way at the end of the block is cancelled; what came until then is on record.
        """
        live = LiveAsker(self.model, self.ledger, self.step, self.pace)
        self.usage = live.usage
        try:
            yield live
        finally:
            await live.close()

    def estimate(self, requests: Sequence[ChatRequest]) -> ToAsk:
        """Count what is left to ask, and its tokens."""
        places = self._places(requests)
        known = self.ledger.outcomes(places)
        left = [requests[own[0]] for key, own in places.items() if key not in known]
        prompt = sum(request.prompt_bytes for request in left) // BYTES_PER_TOKEN
        return ToAsk(len(left), len(known), prompt, sum(request.decoding.max_new_tokens for request in left))

    def recorded(self, requests: Sequence[ChatRequest]) -> list[Outcome | None]:
        """Each request's outcome, None where there is none yet."""
        places = self._places(requests)
        known = self.ledger.outcomes(places)
        found = {place: known.get(key) for key, own in places.items() for place in own}
        return [found[place] for place in range(len(requests))]

    def ask(self, requests: Sequence[ChatRequest]) -> list[Outcome]:
        """Ask, showing progress; return each request's outcome, in order.

        Raises:
            BudgetSpent, ChatError, LedgerError: see `answers`; what came until then is on record.
        """
        with runner() as run:
            found: list[Outcome] = run(self._collect(requests))
            return found

    async def _collect(self, requests: Sequence[ChatRequest]) -> list[Outcome]:
        found: dict[int, Outcome] = {}
        with progress(self.step, len(requests)) as bar:
            async for place, outcome in self.answers(requests):
                found[place] = outcome
                bar.advance()
        return [found[place] for place in range(len(requests))]

    def stream(self, requests: Sequence[ChatRequest]) -> Generator[tuple[int, Outcome], None, None]:
        """`answers` for callers that are not asynchronous; close it, so that what is under way ends in good order.

        Calls go on only while the next answer is waited for: take answers quickly.
        """
        answers = self.answers(requests)

        async def following() -> tuple[int, Outcome] | None:
            return await anext(answers, None)

        async def end() -> None:
            await answers.aclose()

        with runner() as run:
            try:
                while (found := run(following())) is not None:
                    yield found
            finally:
                run(end())

    async def answers(self, requests: Sequence[ChatRequest]) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Ask; yield (place of the request, its outcome): first what is on record, then the rest as it comes.

        Equal requests are asked once. Where the run has to stop, calls under way are waited for and recorded first.

        Raises:
            BudgetSpent: calls or tokens are used up.
            ChatError: no call can succeed: the key is refused, the quota spent, the model unknown, nobody there.
            LedgerError: the ledger cannot be written.
        """
        places = self._places(requests)
        async with self.open() as live:
            known = live.recorded(places)
            for key, outcome in known.items():
                for place in places[key]:
                    yield place, outcome
            left = {key: requests[own[0]] for key, own in places.items() if key not in known}
            if not left:
                return
            settled: asyncio.Queue[asyncio.Future[Outcome]] = asyncio.Queue()
            keys = {future: key for key, future in live.submit(left).items()}
            for future in keys:
                future.add_done_callback(settled.put_nowait)
            for _ in left:
                future = await settled.get()
                outcome = future.result()
                for place in places[keys[future]]:
                    yield place, outcome

    def _places(self, requests: Sequence[ChatRequest]) -> Mapping[str, list[int]]:
        """Where each item stands in the requests, by its key."""
        identity = self.model.identity
        places: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            places.setdefault(request.key(self.step, identity), []).append(place)
        return places
