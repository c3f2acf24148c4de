"""What holds in any search, whatever its mode, its switches and its faults; counted from a log of the tests' own."""

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from math import sqrt
from statistics import fmean
from typing import Any, Final, NamedTuple

import pytest

from esckit.conversation import Conversation, check_conversation
from esckit.mining.tree_search.nodes import Node
from esckit.mining.tree_search.roles import Judged, Talk
from esckit.mining.tree_search.search import TreeSearch
from tests.mining.tree_search.toy import Toy, dialogue, options

MOST: Final = 60  # a question for each of them many times over is an endless search

_OURS: Final[list[dict[str, Any]]] = [
    *({"gold": gold} for gold in ("planted", "unvisited")),
    *({"rollout": steps} for steps in (0, 3)),
    {"gold_label": "shared"},
    {"reward_over": "rollout"},
    {"ask_seeker": "at_once"},
    {"follow": "all"},
    *({"keep": keep} for keep in ("path", "end")),
    {"keep": "path", "follow": "all", "theta": -0.2},
    {"judgements": 1},
    {"leaves": 4},
    {"exploration": 3.0},
]
_AS_CODED: Final[list[dict[str, Any]]] = [
    *({"gold": gold} for gold in ("judged", "unvisited")),
    {"gold_label": "own"},
    {"rollout": 0},
    {"reward_over": "rollout"},
    {"follow": "kept"},
    {"keep": "path"},
    {"rewards_stay": True},
    {"rewards_stay": True, "keep": "turn", "judgements": 3},
    {"sees_opening": True},
    {"exploration": 3.0},
]
PAPER: Final = {"mode": "paper", "gold": "judged", "theta": -0.6}  # as it is it comes to no end in so few iterations
CASES: Final[list[dict[str, Any]]] = [
    *({"mode": "ours", **each} for each in ({}, *_OURS)),
    *({"mode": "as_coded", **each} for each in ({}, *_AS_CODED)),
    {"mode": "paper"},
    PAPER,
]


class Logged(NamedTuple):
    """A search, its tree, and what was written down on the way, the search not being asked."""

    search: TreeSearch
    tree: Conversation
    stopped: str
    toy: Toy
    judged: list[tuple[str, float | None]]  # of the turn of this id; None where no answer came
    backed_up: list[tuple[Node, list[Node], float]]
    chosen: list[tuple[Node, Node | None, dict[int, float]]]  # at a node, this child, whose PUCB by hand are these


def logged(seed: int, case: dict[str, Any], faults: float = 0.0, iterations: int = 20) -> Logged:
    """Search a toy dialogue."""
    toy = Toy(faults=faults)
    told = options(**{**case, "iterations": iterations, "most_iterations": iterations + 5})
    search = TreeSearch(dialogue(seed, 3, 5), toy.roles, told, seed, asyncio.Semaphore(64))
    judged, backed_up, chosen = _spy(search, toy)
    why = asyncio.run(search.run())
    return Logged(search, search.finish(why), why, toy, judged, backed_up, chosen)


def _spy(search: TreeSearch, toy: Toy) -> tuple[list[Any], list[Any], list[Any]]:
    judged: list[Any] = []
    backed_up: list[Any] = []
    chosen: list[Any] = []
    judge, back_up, best = toy.roles.reward.judge, search.tree.back_up, search._best

    async def see_judge(talk: Talk) -> Judged | None:
        found = await judge(talk)
        judged.append((talk.path[-1].id, found and found.reward))
        assert len(toy.log) < MOST * 100, "an endless search"
        return found

    def see_back_up(node: Node, nodes: list[Node], reward: float = 0.0) -> None:
        backed_up.append((node, [*nodes], reward))
        back_up(node, nodes, reward)

    def see_best(node: Node) -> Node | None:
        found = best(node)
        open_ones = [child for child in node.children or () if not (child.closed or child.waiting or _shunned(child))]
        chosen.append((node, found, {id(child): _pucb(search, node, child) for child in open_ones}))
        return found

    def _shunned(child: Node) -> bool:
        low = bool(child.rewards) and fmean(child.rewards) <= search.theta
        return search.options.follow == "kept" and low and not child.human

    setattr(toy.roles.reward, "judge", see_judge)  # noqa: B010
    setattr(search.tree, "back_up", see_back_up)  # noqa: B010
    setattr(search, "_best", see_best)  # noqa: B010
    return judged, backed_up, chosen


def _pucb(search: TreeSearch, node: Node, child: Node) -> float:
    """Equation 1; what is under way counts as visits that were worth the least there is."""
    visits, before = child.visits + child.virtual, node.visits + node.virtual
    value = (child.total - 3.0 * child.virtual) / visits if visits else 0.0
    return value + search.options.exploration * child.prior * sqrt(before) / (visits + 1)


def _below(node: Node) -> list[Node]:
    return [node, *(each for child in node.children or () for each in _below(child))]


cases = pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case.values())))


@cases
@pytest.mark.parametrize("faults", [0.0, 0.2])
def test_any_search(case: dict[str, Any], faults: float) -> None:
    seed = 1 if not faults else 2
    found = logged(seed, case, faults)
    check_conversation(found.tree)
    _the_seed_stands_in_it(found, dialogue(seed, 3, 5))
    _every_node_is_a_turn(found)
    _visits_add_up(found)
    _values_are_means(found)
    _priors_add_up(found)
    _the_greatest_was_chosen(found)
    _rewards_are_what_was_answered(found)
    _pairs_are_by_the_rule(found)
    _questions_are_counted(found)


def _the_seed_stands_in_it(found: Logged, seed: Conversation) -> None:
    bare = [replace(turn, scores={}, verdicts=[]) for turn in found.tree.trunk]
    assert bare == seed.trunk
    assert [turn.id for turn in found.tree.turns[: len(seed.turns)]] == [turn.id for turn in seed.turns]


def _every_node_is_a_turn(found: Logged) -> None:
    nodes = found.search.tree.nodes
    assert len({node.turn for node in nodes}) == len(nodes)
    below = [id(node) for node in _below(found.search.tree.root)]
    gold = {id(node) for node in found.search.tree.gold}  # has no place among the strategies before these are asked for
    assert len(below) == len(set(below))
    assert {id(node) for node in nodes} - gold == set(below) - gold
    for node in nodes[1:]:
        turn = found.tree.turn(node.turn)
        assert node.parent is not None
        assert turn.parent == node.parent.state
        assert turn.strategy == node.strategy
        assert turn.planned != node.written
        if turn.planned:
            assert not found.tree.children(turn.id)
            assert node.children is None
    known = {node.turn for node in nodes}
    for turn in found.tree.turns:
        if turn.speaker == "supporter":
            assert turn.id in known
        assert ("visits" in turn.scores) == (turn.id in known)


def _visits_add_up(found: Logged) -> None:
    """Visits of a node: its own contributions, and its children's."""
    own = Counter(id(node) for node, _, _ in found.backed_up)
    gold = {node.turn for node in found.search.tree.gold}
    for node in found.search.tree.nodes:
        below = list(node.children or ())
        if node.gold is not None and node.gold not in below:
            below.append(node.gold)
        planted = node.planted and (100 if not below or node.gold is None else 0)
        assert node.visits == own[id(node)] + planted + sum(child.visits for child in below), node.turn
        assert found.tree.turn(node.turn).scores["visits"] == node.visits
        if not node.written:
            assert node.visits == 0
    assert (found.search.options.gold == "planted") == any(node.planted for node in found.search.tree.nodes)
    assert gold


def _values_are_means(found: Logged) -> None:
    for node in found.search.tree.nodes:
        rewards = [1.0] * node.planted
        for at, judged, reward in found.backed_up:
            if any(above is node for above in at.line()):
                own = [fmean(each.rewards) for each in judged]
                rewards.append(fmean(own) if own else reward)
        assert node.value == pytest.approx(fmean(rewards) if rewards else 0.0, abs=1e-9)
        assert found.tree.turn(node.turn).scores["value"] == pytest.approx(node.value, abs=1e-6)


def _priors_add_up(found: Logged) -> None:
    for node in found.search.tree.nodes:
        if node.children:
            beside = [c for c in node.children if c is not node.gold or found.search.options.gold_label == "shared"]
            assert sum(child.prior for child in beside or node.children) == pytest.approx(1, abs=1e-9)


def _the_greatest_was_chosen(found: Logged) -> None:
    assert found.chosen
    for node, child, pucb in found.chosen:
        assert (child is None) == (not pucb), node.turn
        if child is not None:
            assert pucb[id(child)] == max(pucb.values())


def _rewards_are_what_was_answered(found: Logged) -> None:
    for node in found.search.tree.nodes:
        answers = [reward for turn, reward in found.judged if turn == node.turn]
        assert node.rewards == [reward for reward in answers if reward is not None]
        assert node.asked == len(answers)
        if answers and not node.rewards and not node.human:
            # as coded its visits may be by what was simulated after it
            assert bool(node.visits) != node.closed
            assert node.closed or found.search.options.expand == "child"
        turn = found.tree.turn(node.turn)
        assert bool(turn.verdicts) == bool(node.rewards)
        if node.rewards:
            assert turn.scores["reward"] == pytest.approx(fmean(node.rewards), abs=1e-6)
            assert turn.scores["judgements"] == len(node.rewards)


def _pairs_are_by_the_rule(found: Logged) -> None:
    """Equations 5 and 6, in the words of each rule."""
    tree, theta, keep = found.tree, found.search.theta, found.search.options.keep
    people = {turn.id for turn in tree.trunk}
    worth = "reward" if keep == "turn" else "value"
    kept = {turn.id for turn in tree.turns if "kept" in turn.scores}
    paths = [tree.path(turn.id) for turn in tree.turns if "end" in turn.scores and turn.id in kept]
    on_a_path = set()
    for path in paths:
        said = [turn for turn in path if turn.speaker == "supporter"]
        if keep == "path" and all(turn.scores["value"] > theta for turn in said):
            on_a_path |= {turn.id for turn in said}
        if keep == "end" and said[-1].scores["value"] >= theta and said[-1].scores["visits"] >= 2:
            on_a_path |= {turn.id for turn in said}
    if keep != "turn":
        assert kept == on_a_path
    for turn in map(tree.turn, kept):
        if keep == "turn":
            assert turn.scores["reward"] > theta
            before = [each for each in tree.path(turn.parent) if each.speaker == "supporter"]
            assert all(each.id in people or each.id in kept for each in before)
    for pair in tree.preferences:
        chosen, rejected = tree.turn(pair.chosen), tree.turn(pair.rejected)
        assert chosen.parent == rejected.parent
        assert chosen.id in kept
        assert rejected.id not in kept
        assert rejected.text
        low = rejected.scores[worth]
        assert low < theta or (keep == "end" and low == theta)
        assert (chosen.strategy, chosen.text) != (rejected.strategy, rejected.text)
        once = rejected.scores["judgements" if keep == "turn" else "visits"] == 1
        assert pair.reason == ("low_value_once" if once else "low_value")


def _questions_are_counted(found: Logged) -> None:
    record = found.tree.provenance["search"]
    assert record["calls"] == dict.fromkeys(record["calls"], 0) | Counter(role for role, _, _ in found.toy.log)
    missing = sum(reward is None for _, reward in found.judged)
    assert record["unanswered"].get("reward", 0) == missing
    assert (not record["unanswered"]) == (not found.toy.faults)
    assert record["iterations"] <= 25
    curve = record["curve"]
    assert curve[-1][0] == record["iterations"]
    assert curve[-1][3] == len(found.toy.log)
    assert all(a[0] <= b[0] and a[1] <= b[1] and a[3] <= b[3] for a, b in pairwise(curve))
    assert record["stopped"] in ("iterations", "exhausted", "ends")


def test_the_toy_tries_the_properties() -> None:
    """They are not kept by nothing being found: pairs under each rule, ends, faults of each role."""
    found = [logged(1, PAPER), logged(1, {"mode": "as_coded"}), logged(1, {})]
    assert all(len(each.tree.preferences) > 1 for each in found)
    assert any(each.tree.provenance["search"]["ends"] > 1 for each in found)
    faulty = Counter[str]()
    for seed in (1, 2, 3):
        faulty.update(logged(seed, {}, 0.2).tree.provenance["search"]["unanswered"])
    assert set(faulty) == {"seeker", "supporter", "strategy", "reward"}


@pytest.mark.parametrize("mode", ["ours", "paper", "as_coded"])
@pytest.mark.parametrize("faults", [0.5, 0.9, 1.0])
def test_it_ends_even_where_nobody_answers(mode: str, faults: float) -> None:
    for seed in (1, 2):
        found = logged(seed, {"mode": mode}, faults)
        assert found.stopped in ("iterations", "exhausted", "ends")
        check_conversation(found.tree)
        assert len(found.toy.log) < 400
