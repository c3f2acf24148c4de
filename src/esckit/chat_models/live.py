"""Asking one question at a time, from many tasks at once: calls are started as concurrency, batches and budget allow.

Everything happens in the event loop's own thread: a call's task records what came back, decides, and starts what may be
started. So nothing stands between a reply and its row in the ledger.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from esckit.chat_models.json_replies import UNENDED, ReplyError, parse_reply, repair_turn
from esckit.chat_models.ledger import DRAFT, REPLY, Call, Ledger, Outcome, UsageSummary
from esckit.chat_models.pacing import Budget, Concurrency, Pace
from esckit.chat_models.protocol import CallFailure, ChatModel, ChatReply, ChatRequest
from esckit.conversation.thoughts import without_thought
from esckit.errors import BudgetSpent, ChatError

_PER_MESSAGE: Final = 32  # tokens that a chat template may put around a message, generously
_DOUBTS: Final = 8  # items refused without a reply between them, after which no other is asked until one comes
_NOTHING: Final = "(no reply)"  # servers refuse a message without any text
_TURNS: Final = 8  # of the event loop that a batch which is not full waits for more


@dataclass(eq=False)
class _Item:
    """One question, and where it stands."""

    key: str  # in the ledger
    asked: ChatRequest  # the request, or that for the repair of its broken reply
    answer: "asyncio.Future[Outcome]"  # its outcome, once it has one
    attempts: int = 0  # calls for ``asked``
    alike: Counter[str] = field(default_factory=Counter)  # of them, failures by kind
    drafted: bool = False  # whether ``asked`` is a repair
    blamed: bool = False  # whether another refusal is its own fault

    @property
    def bound(self) -> int:
        """The most tokens that a call can cost: a token is a byte or more."""
        around = _PER_MESSAGE * (len(self.asked.messages) + 1)
        return self.asked.prompt_bytes + around + self.asked.decoding.max_new_tokens

    def repair(self, text: str) -> None:
        """From now on ask for the repair of a broken reply."""
        assert self.asked.schema is not None
        problem = _problem(text, self.asked) or ReplyError("it cannot be read")
        turns = repair_turn((without_thought(text) or "").strip() or _NOTHING, problem, self.asked.schema)
        self.asked = replace(self.asked, messages=(*self.asked.messages, *turns))
        self.attempts, self.drafted = 0, True


class LiveAsker:
    """Takes questions as they arise (`Asker.open`), under one limit of calls at once and one budget."""

    def __init__(self, model: ChatModel, ledger: Ledger, step: str, pace: Pace) -> None:
        self.usage = UsageSummary()
        self._model, self._ledger, self._step, self._pace = model, ledger, step, pace
        self._identity = model.identity
        self._concurrency = Concurrency(model.concurrency)
        self._budget = Budget(pace, ledger.spent(step))
        self._run: int | None = None
        self._pending: dict[str, _Item] = {}
        self._ready: deque[_Item] = deque()
        self._waits: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._doubtful: list[tuple[_Item, CallFailure]] = []
        self._blamed = 0  # items found at fault since the last reply
        self._reached = self._answered = self._replied = False  # here: anybody, a reply; a reply on record too
        self._stop: BaseException | None = None
        self._stopped: str | None = None
        self._woken = self._closed = False
        self._begun = time.monotonic()

    async def ask(self, request: ChatRequest) -> Outcome:
        """Ask one question; what is on record is not asked again, and what is under way is waited for.

        Tasks of one event loop may ask at the same time. A task that is cancelled cancels no call: its answer is
        recorded.

        Raises:
            BudgetSpent, ChatError, LedgerError: see `Asker.answers`; every later question is told the same.
        """
        key = request.key(self._step, self._identity)
        if key not in self._pending:
            if (known := self.recorded([key]).get(key)) is not None:
                return known
            self.submit({key: request})
        return await asyncio.shield(self._pending[key].answer)

    def recorded(self, keys: Iterable[str]) -> dict[str, Outcome]:
        """The outcomes that are on record, by key."""
        known = self._ledger.outcomes(keys)
        self.usage.items += len(known)
        self.usage.recorded += len(known)
        self._replied |= any(outcome.state != "failed" for outcome in known.values())
        return known

    def submit(self, requests: Mapping[str, ChatRequest]) -> "dict[str, asyncio.Future[Outcome]]":
        """Ask what is neither on record nor under way, by key; return where its outcomes will be."""
        assert not self._closed, "asked after the end of the block"
        if self._stop is not None:
            raise self._stop
        if self._run is None:
            self._run = self._ledger.begin(self._step, self._identity, len(requests))
        loop = asyncio.get_running_loop()
        items = {key: _Item(key, request, loop.create_future()) for key, request in requests.items()}
        for key, draft in self._ledger.drafts(items).items():
            items[key].repair(draft)
        self.usage.items += len(items)
        self._pending |= items
        self._ready.extend(items.values())
        self._wake()
        return {key: item.answer for key, item in items.items()}

    async def close(self) -> None:
        """Cancel what is still under way, and record how the run ended."""
        self._closed = True
        for wait in self._waits.values():
            wait.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._model.close()
        unsettled = [item for item in self._pending.values() if item.answer.cancel()]
        self.usage.seconds = time.monotonic() - self._begun
        if self._run is not None:
            self._ledger.end(self._run, self._stopped or ("interrupted" if unsettled else None), self.usage)

    # ------------------------------------------------------------------------------------------------------- calling

    def _wake(self, turns: int = 1) -> None:
        """Start calls after so many turns of the event loop: what other tasks ask until then joins the batch."""
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._start, turns)

    def _start(self, turns: int) -> None:
        """Start as many calls as concurrency and budget allow."""
        self._woken = False
        if self._closed:
            return
        if self._doubtful and not self._tasks:
            self._resolve_doubts()
        if 0 < len(self._ready) < self._model.batch_size and turns < _TURNS:
            self._wake(turns + 1)
            return
        while self._may_start and (batch := self._affordable()):
            task = asyncio.create_task(self._call(batch, self._concurrency.start()))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        if self._stop is not None and not self._tasks:
            self._tell(self._stop)

    @property
    def _may_start(self) -> bool:
        free = self._stop is None and len(self._tasks) < self._concurrency.limit
        return bool(self._ready) and free and not self._suspicious

    @property
    def _suspicious(self) -> bool:
        """Whether too much was refused to ask on: eight items, or one call that was forbidden before any reply."""
        forbidden = any(failure.then == "deny" for _, failure in self._doubtful)
        most = 1 if forbidden and not self._answered else _DOUBTS
        return bool(self._doubtful) and self._blamed + len(self._doubtful) >= most

    def _resolve_doubts(self) -> None:
        """Nothing is under way, and all that came back were refusals of items: are they at fault, or all we send?"""
        if self._suspicious:
            failure = next((failure for _, failure in self._doubtful if failure.stop), self._doubtful[-1][1])
            message = (
                f"every request was refused ({failure.detail}): mend the model's name or the settings "
                "(--max-new-tokens, --leave-out, --extra-body), then run the same again."
            )
            self._halt("all_refused", failure.stop or ChatError(message))
        elif not self._ready and not self._waits:
            self._blamed += len(self._doubtful)
            self._blame()

    def _blame(self) -> None:
        """Ask again what was refused: where it is refused once more, it is itself at fault."""
        for item, _ in self._doubtful:
            item.blamed = True
            self._ready.append(item)
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
        settled, limit = self.usage.recorded + self.usage.states.total(), getattr(self._pace, short)
        return BudgetSpent(
            f"{short} {limit} is used up with {settled} of {self.usage.items} items answered: "
            "raise it and run the same again, which asks only for the rest."
        )

    async def _call(self, batch: list[_Item], number: int) -> None:
        started = time.monotonic()
        async for place, result in self._model.answer([item.asked for item in batch]):
            self._take(batch[place], result, number, time.monotonic() - started)
            self._wake()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """A batch is through. A model raises nothing but errors that nobody can wait out, and so does the ledger."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._halt("interrupted", error)
            self._tell(error)
        self._wake()

    def _halt(self, why: str, error: BaseException) -> None:
        if self._stop is None:
            self._stopped, self._stop = why, error

    def _tell(self, error: BaseException) -> None:
        """Everyone who waits learns why no answer will come."""
        for item in self._pending.values():
            if not item.answer.done():
                item.answer.set_exception(error)
                item.answer.exception()  # nobody has to be waiting any more

    # -------------------------------------------------------------------------------------------------------- taking

    def _take(self, item: _Item, result: ChatReply | CallFailure, number: int, seconds: float) -> None:
        """Record a call, and with it its item's final state where it has one now; else it will be asked again."""
        item.attempts += 1
        bound = item.bound
        if isinstance(result, CallFailure):
            outcome, name, text, usage = self._fail(item, result, number), result.kind, result.detail, None
            charged = bound if result.lost else 0
        else:
            outcome = self._read(item, result)
            self._concurrency.answered()
            self._reached = self._answered = self._replied = True
            self._blamed = 0
            self._blame()
            name, text, usage = REPLY if outcome else DRAFT, result.text, result.usage
            charged = usage.prompt + usage.completion if usage else bound
        self._budget.settle(bound, charged)
        self._count(item, result, outcome)
        assert self._run is not None
        self._ledger.record(self._run, Call(item.key, name, text, usage, charged, seconds), outcome)
        if name == DRAFT:
            item.repair(text)
            self._ready.appendleft(item)
        if outcome is not None:
            del self._pending[item.key]
            if not item.answer.done():
                item.answer.set_result(outcome)

    def _fail(self, item: _Item, failure: CallFailure, number: int) -> Outcome | None:
        if failure.crowded:
            self._concurrency.crowded(number)
        if failure.then != "wait":
            self._reached = True
        item.alike[failure.kind] += 1
        # Where nobody has been reached yet, waiting would only put off telling that the URL is wrong.
        last = item.attempts >= self._pace.attempts or not self._reached
        # What no call has been spared may stay so; once there are replies it is more likely to pass.
        last |= failure.attempts is not None and item.alike[failure.kind] >= failure.attempts + self._replied
        always = failure.then == "retry" and failure.stop is not None and not self._replied
        if failure.then == "again":
            item.attempts -= 1
            self._ready.appendleft(item)
        elif failure.then == "stop" or (last and (failure.then == "wait" or always)):
            assert failure.stop is not None
            self._halt(failure.kind, failure.stop)
        elif failure.then == "deny" and item.blamed:
            return Outcome("refused", failure.detail, failure=failure.kind)
        elif failure.then == "deny" or (failure.then == "doubt" and not self._replied and not item.blamed):
            self._doubtful.append((item, failure))
        elif failure.then in ("doubt", "give_up") or last:
            return Outcome("failed", failure=failure.kind, detail=failure.detail)
        elif failure.after is not None and failure.after > self._pace.patience:
            message = f"the model asks to wait {failure.after:.0f} s ({failure.detail}): run the same again then."
            self._halt(failure.kind, ChatError(message))
        else:
            delay = self._pace.wait(item.key, item.attempts, failure.after)
            self._waits[item.key] = asyncio.get_running_loop().call_later(delay, self._waited, item)
        return None

    def _waited(self, item: _Item) -> None:
        del self._waits[item.key]
        self._ready.append(item)
        self._wake()

    def _read(self, item: _Item, reply: ChatReply) -> Outcome | None:
        """The state that a reply settles; None where it is to be repaired."""
        left_out = ",".join(reply.left_out)
        if reply.finish == "refused":
            return Outcome("refused", reply.text, reply.finish, left_out=left_out)
        problem = _problem(reply.text, item.asked)
        if problem is None:
            return Outcome("done", reply.text, reply.finish, left_out=left_out)
        silent = not (without_thought(reply.text) or "").strip()
        if item.asked.schema is not None and not item.drafted and not (silent and reply.finish == "length"):
            return None  # the same limit would cut the same thought again
        self.usage.cut += reply.finish == "length"
        return Outcome("unparsed", reply.text, reply.finish, detail=str(problem), left_out=left_out)

    def _count(self, item: _Item, result: ChatReply | CallFailure, outcome: Outcome | None) -> None:
        usage = self.usage
        usage.calls += 1
        usage.retries += item.attempts > 1
        usage.repairs += item.drafted and item.attempts == 1
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
        said = without_thought(text)
        return None if said and said.strip() else ReplyError("it is blank" if said is not None else UNENDED)
    try:
        parse_reply(text, request.schema)
    except ReplyError as error:
        return error
    return None
