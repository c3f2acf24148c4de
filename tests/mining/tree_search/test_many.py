"""Many searches of the scripted model: what depends on what, what they cost, budgets, controls."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pytest

from esckit.conversation import Conversation, check_conversation, read_conversations, write_conversations
from esckit.errors import EsckitError
from esckit.mining.tree_search.options import SearchOptions
from esckit.mining.tree_search.roles import Talk
from esckit.mining.tree_search.run import search_all
from esckit.strategy import CSO
from tests.mining.tree_search.toy import Toy, dialogue, options, quality

FRESH: Final = range(1000, 1008)
"""Dialogues that the search was not built on."""


class LateToy(Toy):
    """Answers come in an order that nobody can foresee."""

    async def asked(self, role: str, talk: Talk, label: str | None = None) -> np.random.Generator | None:
        await asyncio.sleep(random.random() / 2000)
        return await super().asked(role, talk, label)


def searched(
    numbers: Sequence[int], told: SearchOptions, *, toy: Toy | None = None, number: int = 0
) -> list[Conversation]:
    """The trees of these dialogues."""
    return asyncio.run(search_all([dialogue(each) for each in numbers], (toy or Toy()).roles, told, number))


def written(trees: list[Conversation], folder: Path) -> bytes:
    """The file of them, which can be read."""
    write_conversations(folder / "trees.jsonl", trees)
    assert read_conversations(folder / "trees.jsonl") == trees
    return (folder / "trees.jsonl").read_bytes()


def calls(trees: list[Conversation]) -> int:
    """Questions of all searches."""
    return sum(sum(tree.provenance["search"]["calls"].values()) for tree in trees)


def stopped(trees: list[Conversation]) -> list[str]:
    """Why each search ended."""
    return [tree.provenance["search"]["stopped"] for tree in trees]


# ----------------------------------------------------------------------------------------------- what depends on what


@pytest.mark.parametrize("case", [{}, {"mode": "as_coded"}, {"method": "best_of"}, {"method": "random"}], ids=str)
def test_the_same_seed_gives_the_same_bytes(case: dict[str, Any], tmp_path: Path) -> None:
    told = options(**case, iterations=10)
    first = written(searched((1, 2), told), tmp_path)
    assert written(searched((1, 2), told, toy=LateToy()), tmp_path) == first
    assert written(searched((1, 2), told, number=1), tmp_path) != first


def test_a_search_does_not_depend_on_who_searches_beside_it() -> None:
    told = options(iterations=10)
    assert searched((1, 2, 3), told)[1] == searched((2,), told)[0]


@pytest.mark.parametrize("faults", [0.0, 0.2])
def test_leaves_at_once_do_not_depend_on_who_is_answered_first(faults: float, tmp_path: Path) -> None:
    told = options(leaves=4, iterations=15)
    trees = searched((1, 2), told, toy=Toy(faults=faults))
    for _ in range(3):
        late = searched((1, 2), told, toy=LateToy(faults=faults))
        assert written(late, tmp_path) == written(trees, tmp_path)
    for tree in trees:
        check_conversation(tree)
        assert tree.provenance["search"]["leaves"] == 4
    one = searched((1, 2), options(iterations=15), toy=Toy(faults=faults))
    assert [tree.provenance["search"]["leaves"] for tree in one] == [1, 1]
    assert calls(trees) > 1.5 * calls(one)


# ------------------------------------------------------------------------------------------------------ what they cost


class Cost(NamedTuple):
    """Of searching from the fresh dialogues."""

    calls: int
    pairs: int
    precision: float

    @property
    def each(self) -> float:
        """Calls of a pair."""
        return self.calls / self.pairs


def cost(strategies: int = 1, **given: Any) -> Cost:
    """Search, and see which pairs are truly right."""
    toy = Toy(strategies=strategies)
    trees = searched(FRESH, options(**given), toy=toy)
    pairs = [(tree, pair) for tree in trees for pair in tree.preferences]
    right = sum(quality(tree.path(pair.chosen)) > quality(tree.path(pair.rejected)) for tree, pair in pairs)
    return Cost(calls(trees), len(pairs), right / len(pairs))


def test_ours_takes_half_of_the_calls_and_best_of_a_tenth() -> None:
    found = {
        "as_coded": cost(mode="as_coded"),
        "ours, strategies asked": cost(),
        "ours": cost(strategies=0),
        "best_of": cost(strategies=0, method="best_of"),
    }
    for name, each in found.items():
        print(
            f"{name:24} {each.calls / len(FRESH):7.1f} calls and {each.pairs / len(FRESH):5.1f} pairs a dialogue, ",
            end="",
        )
        print(f"{each.each:5.2f} calls a pair, {each.precision:.3f} truly right")
    coded = found["as_coded"]
    for name in ("ours", "ours, strategies asked"):
        assert found[name].each <= coded.each / 2
        assert found[name].precision >= coded.precision
    assert found["best_of"].each <= coded.each / 10


# --------------------------------------------------------------------------------------------------------------- budget

CASES: Final = [
    {},
    {"leaves": 4},
    {"judgements": 1},
    {"rollout": 3},
    {"mode": "as_coded"},
    {"mode": "paper"},
    {"method": "best_of"},
    {"method": "random"},
]


def least(told: SearchOptions, numbers: Sequence[int]) -> int:
    """The least budget that is taken, which the refusal of a smaller one names."""
    with pytest.raises(EsckitError, match=r"^budget_calls \d+ is below one iteration of each") as refused:
        searched(numbers, told.model_copy(update={"budget_calls": len(numbers)}))
    return int(str(refused.value).split("raise it to ")[1].split(",")[0])


@pytest.mark.parametrize("faults", [0.0, 0.3])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("share", [False, True])
def test_no_search_asks_more_than_its_budget(case: dict[str, Any], share: bool, faults: float) -> None:
    numbers = (1, 2, 3)
    needed = 0 if case.get("method") == "random" else least(options(**case), numbers)
    for budget in (needed or 3, needed + 40, needed + 101):
        toy = Toy(faults=faults)
        told = options(**case, budget_calls=budget, share_budget=share, iterations=12)
        trees = searched(numbers, told, toy=toy)
        assert len(toy.log) == calls(trees) <= budget
        assert all(tree.provenance["search"]["iterations"] >= 1 for tree in trees)
        for tree in trees:
            check_conversation(tree)


def test_a_budget_below_one_iteration_is_refused_in_one_sentence() -> None:
    told = options(mode="as_coded")
    needed = least(told, (1, 2))
    trees = searched((1, 2), options(mode="as_coded", budget_calls=needed))
    assert stopped(trees) == ["budget"] * 2
    toy = Toy()
    with pytest.raises(EsckitError) as refused:
        searched((1, 2), options(mode="as_coded", budget_calls=needed - 1), toy=toy)
    assert str(refused.value).count("\n") == 0
    assert not toy.log


def test_what_some_leave_of_the_budget_goes_to_the_others(tmp_path: Path) -> None:
    """A dialogue of 6 replies is through with best-of-eight after 102 questions, others have 8 and 9."""
    numbers, budget = (1, 5, 2), 3 * 135
    plain = searched(numbers, options(method="best_of", budget_calls=budget))
    told = options(method="best_of", budget_calls=budget, share_budget=True)
    shared = searched(numbers, told)
    assert set(stopped(plain)) == {"budget", "exhausted"}
    done = [[tree.provenance["search"]["iterations"] for tree in trees] for trees in (plain, shared)]
    assert all(a <= b for a, b in zip(*done, strict=True))
    assert sum(done[1]) > sum(done[0])
    assert calls(plain) < calls(shared) <= budget
    assert written(searched(numbers, told, toy=LateToy()), tmp_path) == written(shared, tmp_path)


def test_a_larger_budget_goes_on_where_a_smaller_one_ended() -> None:
    """The first questions of both are the same ones."""
    few, many = Toy(), Toy()
    searched((1,), options(budget_calls=100), toy=few)
    searched((1,), options(budget_calls=200), toy=many)
    assert 80 < len(few.log) <= 100 < len(many.log)
    asked = Counter(few.log)
    assert sum((asked & Counter(many.log)).values()) >= 0.9 * len(few.log)


def test_patience_stops_a_search_without_new_pairs() -> None:
    told = {"theta": 0.95, "iterations": 100}  # nearly nothing is worth so much
    impatient = searched((1, 2), options(**told, patience=20))
    patient = searched((1, 2), options(**told))
    assert stopped(impatient) == ["patience"] * 2
    assert calls(impatient) < calls(patient)
    for tree in impatient:
        curve = tree.provenance["search"]["curve"]
        most = max(point[2] for point in curve)
        last = next(point[0] for point in curve if point[2] == most) if most else 0
        assert 20 <= curve[-1][0] - last <= 30


# ------------------------------------------------------------------------------------------------------------ controls


def test_best_of_asks_for_each_strategy_once_and_judges_all() -> None:
    toy = Toy()
    (tree,) = searched((1,), options(method="best_of"), toy=toy)
    gold = [turn for turn in tree.trunk if turn.speaker == "supporter"]
    assert Counter(role for role, _, _ in toy.log) == {"supporter": 8 * len(gold), "reward": 9 * len(gold)}
    asked = Counter((said, label) for role, said, label in toy.log if role == "supporter")
    contexts = [tuple(each.text for each in tree.path(turn.parent)) for turn in gold]
    assert asked == {(said, label): 1 for said in contexts for label in CSO.labels}
    assert stopped([tree]) == ["exhausted"]
    for turn in tree.turns:
        if turn.speaker == "supporter":
            assert turn.scores["judgements"] == 1
            assert turn.scores["reward"] == turn.scores["value"] or turn in tree.trunk


def test_random_asks_for_one_other_strategy_a_turn() -> None:
    for number in (1, 2, 3):
        toy = Toy()
        (tree,) = searched((number,), options(method="random"), toy=toy)
        gold = [turn for turn in tree.trunk if turn.speaker == "supporter"]
        assert [role for role, _, _ in toy.log] == ["supporter"] * len(gold)
        assert len(tree.preferences) == len(gold)
        for turn, (_, said, label) in zip(gold, toy.log, strict=True):
            assert said == tuple(each.text for each in tree.path(turn.parent))
            assert label != turn.strategy
        for pair in tree.preferences:
            assert (pair.reason, pair.judge) == ("random", "rule:random")
            assert pair.chosen in {turn.id for turn in gold}


@pytest.mark.parametrize("method", ["best_of", "random"])
def test_a_control_whose_questions_are_not_answered_ends_all_the_same(method: str) -> None:
    for faults in (0.3, 1.0):
        toy = Toy(faults=faults)
        (tree,) = searched((1,), options(method=method), toy=toy)
        assert stopped([tree]) == ["exhausted"]
        for pair in tree.preferences:
            assert tree.turn(pair.rejected).text
        assert sum(tree.provenance["search"]["unanswered"].values()) > 0
        assert tree.preferences or faults == 1.0
