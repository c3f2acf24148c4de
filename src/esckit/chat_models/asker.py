"""Asking a chat model so that no answer is lost: each item ends in one recorded state, whatever happens on the way.

Everything that happens to a run is an event in one queue (a result, a batch's end, a wait that is over), and one loop
takes them in turn: it records, decides, and starts what may be started.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from esckit.chat_models.json_replies import ReplyError, parse_reply, repair_turn
from esckit.chat_models.ledger import DRAFT, REPLY, Call, Ledger, Outcome, UsageSummary
from esckit.chat_models.pacing import Budget, Concurrency, Pace
from esckit.chat_models.protocol import CallFailure, ChatModel, ChatReply, ChatRequest
from esckit.errors import BudgetSpent, ChatError, EsckitError
from esckit.progress import progress

__all__ = ["Asker", "Estimate"]

_PER_MESSAGE: Final = 32  # tokens that a chat template may put around a message, generously
_DOUBTS: Final = 8  # items refused before any reply came, after which no other is asked until one comes
_BYTES_PER_TOKEN: Final = 4  # of English text; an estimate only, no budget rests on it


class Estimate(NamedTuple):
    """What asking would take.

    Attributes:
        items: different ones that have no state yet.
        recorded: that have one.
        prompt_tokens: about, for one call an item.
        completion_tokens: at most, likewise.
    """

    items: int
    recorded: int
    prompt_tokens: int
    completion_tokens: int

    def __str__(self) -> str:
        return (
            f"{self.items} questions to ask ({self.recorded} on record), about {self.prompt_tokens:,} prompt tokens, "
            f"at most {self.completion_tokens:,} completion tokens"
        )


@dataclass
class _Item:
    """One thing to be answered, and where it stands in the requests."""

    key: str
    asked: ChatRequest
    places: list[int]
    attempts: int = 0
    drafted: bool = False

    @property
    def bound(self) -> int:
        """The most tokens that a call can cost: a token is a byte or more."""
        around = _PER_MESSAGE * (len(self.asked.messages) + 1)
        return self.asked.prompt_bytes + around + self.asked.decoding.max_new_tokens

    def repair(self, text: str) -> None:
        """From now on ask for the repair of a broken reply."""
        assert self.asked.schema is not None
        problem = _problem(text, self.asked) or ReplyError("it cannot be read")
        turns = repair_turn(text, problem, self.asked.schema)
        self.asked = replace(self.asked, messages=(*self.asked.messages, *turns))
        self.attempts, self.drafted = 0, True


class _Result(NamedTuple):
    item: _Item
    result: ChatReply | CallFailure
    number: int
    seconds: float


class _Ended(NamedTuple):
    task: "asyncio.Task[None]"


_Event = _Result | _Ended | _Item
"""A call's result; the end of a batch of calls; an item whose wait is over."""


class Asker:
    """Asks a model for a step's items, once each.

    Args:
        model: who is asked.
        ledger: where everything is recorded; open.
        step: name and version of what asks ("judge/empathy/1"); part of each item's key.
        pace: how patiently, and for how much.

    Attributes:
        usage: what the last run cost.
    """

    def __init__(self, model: ChatModel, ledger: Ledger, step: str, pace: Pace | None = None) -> None:
        self.model = model
        self.ledger = ledger
        self.step = step
        self.pace = pace or Pace()
        self.usage = UsageSummary()

    def estimate(self, requests: Sequence[ChatRequest]) -> Estimate:
        """Count what is left to ask, and its tokens."""
        items = self._items(requests)
        known = self.ledger.outcomes(items)
        left = [item.asked for key, item in items.items() if key not in known]
        prompt = sum(request.prompt_bytes for request in left) // _BYTES_PER_TOKEN
        return Estimate(len(left), len(known), prompt, sum(request.decoding.max_new_tokens for request in left))

    def ask(self, requests: Sequence[ChatRequest]) -> list[Outcome]:
        """Ask, showing progress; return each request's outcome, in order.

        Raises:
            BudgetSpent, ChatError, LedgerError: see `answers`; what came until then is on record.
        """
        return asyncio.run(self._collect(requests))

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

        with asyncio.Runner() as runner:
            try:
                while (found := runner.run(following())) is not None:
                    yield found
            finally:
                runner.run(end())

    async def answers(self, requests: Sequence[ChatRequest]) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Ask; yield (place of the request, its outcome): first what is on record, then the rest as it comes.

        Equal requests are asked once. Where the run has to stop, calls under way are waited for and recorded first.

        Raises:
            BudgetSpent: calls or tokens are used up.
            ChatError: no call can succeed: the key is refused, the quota spent, the model unknown, nobody there.
            LedgerError: the ledger cannot be written.
        """
        items = self._items(requests)
        known = self.ledger.outcomes(items)
        for key, outcome in known.items():
            for place in items[key].places:
                yield place, outcome
        left = {key: item for key, item in items.items() if key not in known}
        self.usage = UsageSummary(items=len(items), recorded=len(known))
        if not left:
            return
        for key, draft in self.ledger.drafts(left).items():
            left[key].repair(draft)
        run = _Run(self, list(left.values()))
        try:
            async for item, outcome in run.outcomes():
                for place in item.places:
                    yield place, outcome
        finally:
            await run.end()

    def _items(self, requests: Sequence[ChatRequest]) -> dict[str, _Item]:
        identity = self.model.identity
        items: dict[str, _Item] = {}
        for place, request in enumerate(requests):
            key = request.key(self.step, identity)
            items.setdefault(key, _Item(key, request, [])).places.append(place)
        return items


@dataclass
class _Run:
    """One run over the items that have no state yet."""

    asker: Asker
    items: list[_Item]
    stopped: str | None = "interrupted"
    _stop: EsckitError | None = None
    _waits: dict[str, asyncio.TimerHandle] = field(default_factory=dict)
    _tasks: "set[asyncio.Task[None]]" = field(default_factory=set)

    def __post_init__(self) -> None:
        self._model, self._ledger, self._pace = self.asker.model, self.asker.ledger, self.asker.pace
        self._usage = self.asker.usage
        self._ready = deque(self.items)
        self._events: asyncio.Queue[_Event] = asyncio.Queue()
        self._concurrency = Concurrency(self._model.concurrency)
        self._budget = Budget(self._pace, self._ledger.spent())
        self._reached = False
        self._replied = self._usage.recorded > 0
        self._doubtful: list[_Item] = []
        self._refusal = ""
        self._started = time.monotonic()
        self._number = self._ledger.begin(self.asker.step, self._model.identity, len(self.items))

    async def outcomes(self) -> AsyncIterator[tuple[_Item, Outcome]]:
        """Until every item is settled, or the run has to stop and nothing is under way."""
        self._start()
        while self._tasks or (self._waits and self._stop is None):
            event = await self._events.get()
            if isinstance(event, _Result):
                if (outcome := self._take(event)) is not None:
                    yield event.item, outcome
            elif isinstance(event, _Ended):
                self._tasks.discard(event.task)
                event.task.result()  # a model raises nothing but errors that nobody can wait out
            else:
                del self._waits[event.key]
                self._ready.append(event)
            self._start()
        if self._stop is not None:
            raise self._stop
        self.stopped = None

    async def end(self) -> None:
        """Cancel what is still under way, and record how the run ended."""
        for wait in self._waits.values():
            wait.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._model.close()
        self._usage.seconds = time.monotonic() - self._started
        self._ledger.end(self._number, self.stopped, self._usage)

    def _halt(self, why: str, error: EsckitError) -> None:
        if self._stop is None:
            self.stopped, self._stop = why, error

    # ------------------------------------------------------------------------------------------------------- calling

    def _start(self) -> None:
        """Start as many calls as concurrency and budget allow."""
        if self._doubtful and not self._tasks:
            self._resolve_doubts()
        if len(self._doubtful) >= _DOUBTS:
            return
        while self._ready and self._stop is None and len(self._tasks) < self._concurrency.limit:
            batch = self._affordable()
            if not batch:
                return
            task = asyncio.create_task(self._call(batch, self._concurrency.start()))
            self._tasks.add(task)
            task.add_done_callback(lambda task: self._events.put_nowait(_Ended(task)))

    def _resolve_doubts(self) -> None:
        """Nothing is under way, and all that came back were refusals of items: are they at fault, or all we send?"""
        if len(self._doubtful) >= _DOUBTS:
            message = (
                f"every request was refused ({self._refusal}): mend the model's name or the settings, "
                "then run the same again."
            )
            self._halt("all_refused", ChatError(message))
        elif not self._ready and not self._waits:
            self._believe()

    def _believe(self) -> None:
        """From now on an item that is refused is itself at fault; those that were refused so far are asked again."""
        self._replied = True
        self._ready.extend(self._doubtful)
        self._doubtful = []

    def _affordable(self) -> list[_Item]:
        """The next batch that fits the budget; where not one item does and nothing is under way, the run stops."""
        batch: list[_Item] = []
        while self._ready and len(batch) < self._model.batch_size:
            short = self._budget.short_of(self._ready[0].bound)
            if short is not None:
                if not batch and not self._tasks:
                    self._halt(short, self._budget_error(short))
                break
            batch.append(self._ready.popleft())
            self._budget.set_aside(batch[-1].bound)
        return batch

    def _budget_error(self, short: str) -> BudgetSpent:
        settled, limit = self._usage.recorded + self._usage.states.total(), getattr(self._pace, short)
        return BudgetSpent(
            f"{short} {limit} is used up with {settled} of {self._usage.items} items answered: "
            "raise it and run the same again, which asks only for the rest."
        )

    async def _call(self, batch: list[_Item], number: int) -> None:
        started = time.monotonic()
        async for place, result in self._model.answer([item.asked for item in batch]):
            self._events.put_nowait(_Result(batch[place], result, number, time.monotonic() - started))

    # -------------------------------------------------------------------------------------------------------- taking

    def _take(self, event: _Result) -> Outcome | None:
        """Record a call; return its item's final state where it has one now, else see to it that it is asked again."""
        item, result = event.item, event.result
        item.attempts += 1
        bound = item.bound
        if isinstance(result, CallFailure):
            outcome, name, text, usage = self._fail(item, result, event.number), result.kind, result.detail, None
            charged = bound if result.lost else 0
        else:
            outcome = self._read(item, result)
            self._concurrency.answered()
            self._reached = True
            self._believe()
            name, text, usage = REPLY if outcome else DRAFT, result.text, result.usage
            charged = usage.prompt + usage.completion if usage else bound
        self._budget.settle(bound, charged)
        self._count(event, outcome)
        self._ledger.record(self._number, Call(item.key, name, text, usage, charged, event.seconds), outcome)
        if name == DRAFT:
            item.repair(text)
            self._ready.appendleft(item)
        return outcome

    def _fail(self, item: _Item, failure: CallFailure, number: int) -> Outcome | None:
        if failure.crowded:
            self._concurrency.crowded(number)
        if failure.then != "wait":
            self._reached = True
        # Where nobody has been reached yet, waiting would only put off telling that the URL is wrong.
        last = item.attempts >= self._pace.attempts or not self._reached
        if failure.then == "stop" or (failure.then == "wait" and last):
            assert failure.stop is not None
            self._halt(failure.kind, failure.stop)
        elif failure.then == "give_up" and not self._replied:
            self._doubtful.append(item)
            self._refusal = failure.detail
        elif failure.then == "give_up" or last:
            return Outcome("failed", failure=failure.kind, detail=failure.detail)
        elif failure.after is not None and failure.after > self._pace.patience:
            message = f"the model asks to wait {failure.after:.0f} s ({failure.detail}): run the same again then."
            self._halt(failure.kind, ChatError(message))
        else:
            delay = self._pace.wait(item.key, item.attempts, failure.after)
            loop = asyncio.get_running_loop()
            self._waits[item.key] = loop.call_later(delay, self._events.put_nowait, item)
        return None

    def _read(self, item: _Item, reply: ChatReply) -> Outcome | None:
        """The state that a reply settles; None where it is to be repaired."""
        if reply.finish == "refused":
            return Outcome("refused", reply.text, reply.finish)
        problem = _problem(reply.text, item.asked)
        if problem is None:
            return Outcome("done", reply.text, reply.finish)
        if item.asked.schema is not None and not item.drafted:
            return None
        return Outcome("unparsed", reply.text, reply.finish, detail=str(problem))

    def _count(self, event: _Result, outcome: Outcome | None) -> None:
        usage, result = self._usage, event.result
        usage.calls += 1
        usage.retries += event.item.attempts > 1
        usage.repairs += event.item.drafted and event.item.attempts == 1
        if outcome is not None:
            usage.states[outcome.state] += 1
        if isinstance(result, CallFailure):
            usage.failures[result.kind] += 1
        elif result.usage is not None:
            usage.prompt += result.usage.prompt
            usage.completion += result.usage.completion
            usage.cached += result.usage.cached


def _problem(text: str, request: ChatRequest) -> ReplyError | None:
    """Why a reply is not what was asked for; None where it is."""
    if request.schema is None:
        return None if text.strip() else ReplyError("it is blank")
    try:
        parse_reply(text, request.schema)
    except ReplyError as error:
        return error
    return None
