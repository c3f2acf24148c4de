"""Waiting, calls at once and budgets: the rules by themselves."""

import pytest

from esckit.chat_models.ledger import Spent
from esckit.chat_models.pacing import Budget, Concurrency, Pace


def test_waits_double_up_to_the_cap_with_at_most_half_taken_off() -> None:
    pace = Pace(first_wait=1.0, longest_wait=8.0)
    for attempt, full in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (5000, 8.0)):
        waits = [pace.wait(f"item {number}", attempt, None) for number in range(50)]
        assert full / 2 <= min(waits) < full * 0.6
        assert full * 0.9 < max(waits) <= full


def test_jitter_is_the_seeds_and_the_items() -> None:
    assert Pace(seed=1).wait("a", 1, None) == Pace(seed=1).wait("a", 1, None)
    assert len({Pace(seed=seed).wait(key, 1, None) for seed in (1, 2) for key in "ab"}) == 4


def test_a_server_is_never_asked_before_it_wants_to_be() -> None:
    pace = Pace(first_wait=1.0, longest_wait=2.0)
    assert pace.wait("a", 1, 30.0) == 30.0
    assert pace.wait("a", 9, 0.0) >= 1.0


def test_concurrency_starts_at_the_most_halves_and_creeps_back() -> None:
    concurrency = Concurrency(8)
    assert concurrency.limit == 8
    calls = [concurrency.start() for _ in range(8)]
    concurrency.crowded(calls[0])
    assert concurrency.limit == 4
    concurrency.crowded(calls[5])  # under way when it was halved: the same crowd
    assert concurrency.limit == 4
    concurrency.crowded(concurrency.start())
    assert concurrency.limit == 2
    for _ in range(3):
        concurrency.answered()
    assert concurrency.limit == 3
    for _ in range(100):
        concurrency.answered()
    assert concurrency.limit == 8


def test_concurrency_never_falls_below_one() -> None:
    concurrency = Concurrency(3)
    for _ in range(9):
        concurrency.crowded(concurrency.start())
    assert concurrency.limit == 1


@pytest.mark.parametrize(("calls", "short"), [(None, None), (3, None), (2, "budget_calls")])
def test_a_budget_of_calls_counts_earlier_runs(calls: int | None, short: str | None) -> None:
    assert Budget(Pace(budget_calls=calls), Spent(2, 0)).short_of(10) == short


def test_a_budget_of_tokens_sets_aside_what_a_call_may_cost() -> None:
    budget = Budget(Pace(budget_tokens=100), Spent(0, 30))
    assert budget.short_of(70) is None
    assert budget.short_of(71) == "budget_tokens"
    budget.set_aside(40)
    assert budget.short_of(30) is None
    assert budget.short_of(31) == "budget_tokens"
    budget.settle(40, 5)
    assert budget.short_of(65) is None
    assert budget.short_of(66) == "budget_tokens"
