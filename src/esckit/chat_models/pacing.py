"""How fast a chat model is asked: waiting times, calls at once, budgets."""

import random
from dataclasses import dataclass

from esckit.chat_models.ledger import Spent


@dataclass(frozen=True)
class Pace:
    """How patiently, and for how much."""

    attempts: int = 6  # calls for one reply before the item fails
    first_wait: float = 1.0  # seconds after the first failure; doubled after each other one
    longest_wait: float = 60.0  # seconds; the cap of that. A server's own ``Retry-After`` may be longer.
    patience: float = 600.0  # seconds; a server that asks for a longer wait stops the run
    budget_calls: int | None = None  # calls of the asker's role in the ledger, earlier runs included; None is no limit
    # likewise, prompts and replies; a lost reply counts as the most that it can have cost
    budget_tokens: int | None = None
    seed: int = 0  # of the jitter

    def wait(self, key: str, attempt: int, asked: float | None) -> float:
        """Seconds to wait after an item's failed attempt (1 is the first): exponential, capped, up to half of it off.

        Never less than the server ``asked`` for.
        """
        full = min(self.longest_wait, self.first_wait * 2.0 ** min(attempt - 1, 60))
        jitter = random.Random(f"{self.seed} {key} {attempt}").uniform(0.5, 1.0)
        return max(full * jitter, asked or 0.0)


class Concurrency:
    """Calls at once: the most at first, half of it when the model is crowded, one more for each round of replies.

    This is additive increase, multiplicative decrease (Chiu and Jain 1989). Calls that were under way when it was
    halved say nothing of the smaller number, so one crowd halves it once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._limit = float(most)
        self._started = 0
        self._halved_at = 0

    @property
    def limit(self) -> int:
        """Calls that may be under way now, at least 1."""
        return int(self._limit)

    def start(self) -> int:
        """Count a call; return its number."""
        self._started += 1
        return self._started

    def answered(self) -> None:
        """A reply came."""
        self._limit = min(float(self.most), self._limit + 1 / self._limit)

    def crowded(self, call: int) -> None:
        """The model had too much to do, as this call was told."""
        if call > self._halved_at:
            self._limit = max(1.0, self._limit / 2)
            self._halved_at = self._started


class Budget:
    """Calls and tokens that may still be used; what a call under way may cost is set aside."""

    def __init__(self, pace: Pace, spent: Spent) -> None:
        self._pace = pace
        self._calls, self._tokens = spent
        self._aside = 0

    def short_of(self, bound: int) -> str | None:
        """The limit that one more call of at most ``bound`` tokens might exceed; None where there is enough."""
        calls, tokens = self._pace.budget_calls, self._pace.budget_tokens
        if calls is not None and self._calls >= calls:
            return "budget_calls"
        if tokens is not None and self._tokens + self._aside + bound > tokens:
            return "budget_tokens"
        return None

    def set_aside(self, bound: int) -> None:
        """A call begins."""
        self._calls += 1
        self._aside += bound

    def settle(self, bound: int, charged: int) -> None:
        """It ended."""
        self._aside -= bound
        self._tokens += charged
