"""The released program's search followed by hand, question by question; and in what the paper's differs.

All numbers here were worked out from the description of the program, on paper, not by the code under test. At the root
stand A (people's first reply, planted with value 1 and 100 visits), B and C with the priors .5, .3, .2; c is 1.
PUCB is Q + P sqrt(N of the parent) / (N + 1).
"""

import asyncio
from itertools import chain, pairwise
from typing import Any, Final, NamedTuple

import pytest

from esckit.conversation import Conversation, Turn
from esckit.mining.tree_search.extraction import Rule, extract
from esckit.mining.tree_search.options import MODES
from esckit.mining.tree_search.search import TreeSearch
from tests.mining.tree_search.scripted import LABELS, LETTERS, Script, gold
from tests.mining.tree_search.searched import node

STRATEGIES: Final[dict[str, dict[str, tuple[float, float]]]] = {
    "": {"A": (8, 0.5), "B": (6, 0.3), "C": (2, 0.2)},
    # people's second reply is a B, which is left out here: it gets .1, and A and C .9 of .6 and .4: .54 and .36
    "1-": {"A": (5, 0.6), "C": (3, 0.4)},
    "B-": {"A": (4, 0.5), "C": (9, 0.5)},
    "B-C-": {"A": (7, 0.7), "B": (1, 0.3)},
    "B-C-A-": {"B": (5, 0.6), "C": (4, 0.4)},
    "B-A-": {"A": (3, 0.4), "B": (6, 0.6)},
    "1-A-": {"B": (2, 0.3), "C": (7, 0.7)},
    "1-A-C-": {"A": (6, 0.5), "B": (3, 0.5)},
    "1-A-C-A-": {"A": (1, 0.5), "B": (2, 0.5)},
    "1-A-C-A-B-": {"A": (1, 0.5), "C": (2, 0.5)},
    "1-A-C-A-B-C-": {"A": (2, 0.5), "C": (1, 0.5)},
    "1-A-C-A-B-C-A-": {"A": (9, 0.9), "B": (1, 0.1)},
}
ENDS: Final = {"oB-C-A-B", "oC", "oB-A-B", "o1-A-C-A-B-C-A-A"}
REWARDS: Final = {
    "oB-C": [0.2],
    "oB-C-A": [0.4],
    "oB-C-A-B": [-0.3],
    "oC": [0.7, 0.6, 0.2],
    "oB-A-B": [-0.5],
    "o1-A-C": [0.3],
    "o1-A-C-A": [0.1, -0.1],
    "o1-A-C-A-B": [-0.1, 0.5],
    "o1-A-C-A-B-C": [0.5, 0.2],
    "o1-A-C-A-B-C-A": [0.2, 0.3],
    "o1-A-C-A-B-C-A-A": [0.8],
}

PLANTING: Final = ["strategy ", "strategy 1-"]  # without what the seeker opened with
ITERATIONS: Final = [
    [  # 1: B is a leaf, gets its words, then children; C of score 9 is the one to simulate from, until the seeker ends
        *("supporter o as B", "seeker oB"),
        "strategy oB-",
        *("supporter oB- as C", "seeker oB-C"),
        *("strategy oB-C-", "supporter oB-C- as A", "seeker oB-C-A"),
        *("strategy oB-C-A-", "supporter oB-C-A- as B", "seeker oB-C-A-B"),
        *("reward oB-C", "reward oB-C-A", "reward oB-C-A-B"),
    ],
    ["supporter o as C", "seeker oC", "reward oC"],  # 2: C is a leaf, and the seeker ends: it is judged
    ["reward oC"],  # 3: C again: an end is judged afresh
    [  # 4: B, there A, a leaf; its child B ends the talk: nothing to simulate
        *("supporter oB- as A", "seeker oB-A"),
        "strategy oB-A-",
        *("supporter oB-A- as B", "seeker oB-A-B"),
        "reward oB-A-B",
    ],
    ["reward oC"],  # 5
    [  # 6: people's first reply, there A: the dearest iteration there is, 22 questions
        *("supporter o1- as A", "seeker o1-A"),
        "strategy o1-A-",
        *("supporter o1-A- as C", "seeker o1-A-C"),
        *("strategy o1-A-C-", "supporter o1-A-C- as A", "seeker o1-A-C-A"),
        *("strategy o1-A-C-A-", "supporter o1-A-C-A- as B", "seeker o1-A-C-A-B"),
        *("strategy o1-A-C-A-B-", "supporter o1-A-C-A-B- as C", "seeker o1-A-C-A-B-C"),
        *("strategy o1-A-C-A-B-C-", "supporter o1-A-C-A-B-C- as A", "seeker o1-A-C-A-B-C-A"),
        *("reward o1-A-C", "reward o1-A-C-A", "reward o1-A-C-A-B", "reward o1-A-C-A-B-C", "reward o1-A-C-A-B-C-A"),
    ],
]

# The root has 100 visits of value 1 from the start. R of the six iterations:
# 1: (.2 + .4 - .3) / 3 = .1    2: .7    3: .6    4: -.5    5: .2    6: (.3 + .1 - .1 + .5 + .2) / 5 = .2
ROOT: Final = [
    (101, 100.1 / 101),
    (102, 100.8 / 102),
    (103, 101.4 / 103),
    (104, 100.9 / 104),
    (105, 101.1 / 105),
    (106, 101.3 / 106),
]
# N and Q of what an iteration changed, the root aside
CHANGED: Final = [
    {"B": (1, 0.1), "B-C": (1, 0.1)},
    {"C": (1, 0.7)},
    {"C": (2, 0.65)},  # (.7 + .6) / 2
    {"B": (2, -0.2), "B-A": (1, -0.5), "B-A-B": (1, -0.5)},  # (.1 - .5) / 2
    {"C": (3, 0.5)},  # (.7 + .6 + .2) / 3
    {"1": (101, 100.2 / 101), "1-A": (1, 0.2), "1-A-C": (1, 0.2)},  # (100 + .2) / 101
]
# PUCB of A (people's), B, C by which an iteration chose, and after the last
PUCB: Final = [
    (1.049504950495, 3.000000000000, 2.000000000000),  # 1 + .5 x 10 / 101;  .3 x 10;  .2 x 10
    (1.049751859511, 1.607481343168, 2.009975124224),  # sqrt(101) = 10.049875621; B .1 + .3 x 10.049875621 / 2
    (1.049997549200, 1.614925740754, 1.709950493836),  # sqrt(102) = 10.099504938; C .7 + .2 x 10.099504938 / 2
    (1.050242037451, 1.622333734764, 1.326592771006),  # sqrt(103) = 10.148891565; C .65 + .2 x 10.148891565 / 3
    (1.050485341719, 0.819803902719, 1.329869268479),  # sqrt(104) = 10.198039027; B -.2 + .3 x 10.198039027 / 3
    (1.050727479039, 0.824695076596, 1.012347538298),  # sqrt(105) = 10.246950766; C .5 + .2 x 10.246950766 / 4
    (1.042547983122, 0.829563014099, 1.014781507049),  # sqrt(106) = 10.295630141; A .992079208 + .5 x ... / 102
]


class Seen(NamedTuple):
    """What a search was like after an iteration."""

    questions: int
    numbers: dict[str, Any]
    pucb: dict[str, float]


def watch(search: TreeSearch, script: Script) -> list[Seen]:
    """What the search is like now, and after each iteration that comes."""
    seen: list[Seen] = []

    def look(_: TreeSearch) -> None:
        nodes = {written(search.tree.path(node.turn)): node for node in search.tree.nodes}
        numbers = {name: (node.visits, node.value) for name, node in nodes.items()}
        seen.append(Seen(len(script.log), numbers, {name: n.pucb(1.0, -3.0) for name, n in nodes.items() if n.parent}))

    search.on_step = look
    return seen


def written(path: list[Any]) -> str:
    """A talk from the first reply on; a planned turn is its strategy in round brackets."""
    return "".join(turn.text or f"({LETTERS[turn.strategy]})" for turn in path[1:])


def follow(**given: object) -> tuple[Script, list[Seen], str, Conversation]:
    """Search, and see."""
    script = Script(STRATEGIES, ENDS, REWARDS)
    search = script.search(**given)
    seen = watch(search, script)
    why = asyncio.run(search.run())
    return script, seen, why, search.finish(why)


def found(tree: Conversation) -> tuple[list[str], list[tuple[str, str]]]:
    """Kept turns, and pairs."""
    name = {turn.id: written(tree.path(turn.id)) for turn in tree.turns}
    kept = [name[turn.id] for turn in tree.turns if "kept" in turn.scores]
    return kept, [(name[pair.chosen], name[pair.rejected]) for pair in tree.preferences]


def test_every_question_comes_in_its_order() -> None:
    script, seen, _, _ = follow(mode="as_coded", iterations=6)
    asked = [0, *(each.questions for each in seen)]
    first, *others = (script.log[start:end] for start, end in pairwise(asked))
    assert first == [*PLANTING, *ITERATIONS[0]]
    assert others == ITERATIONS[1:]
    assert len(script.log) == asked[-1] == 2 + 14 + 3 + 1 + 6 + 1 + 22


def test_visits_and_values_are_as_worked_out() -> None:
    _, seen, _, _ = follow(mode="as_coded", iterations=6)
    numbers: dict[str, tuple[int, float]] = {"1": (100, 1.0), "1-2": (100, 1.0)}
    for each, root, changed in zip(seen, ROOT, CHANGED, strict=True):
        numbers |= {"": root, **changed}
        looked = {name: pytest.approx(known, abs=1e-9) for name, known in each.numbers.items() if known[0]}
        assert looked == numbers
        assert {known for known in each.numbers.values() if not known[0]} <= {(0, 0.0)}


def test_pucb_is_as_worked_out() -> None:
    _, seen, _, _ = follow(mode="as_coded", iterations=6)
    # by which iteration 1 chose, nobody saw; the others saw what the one before left
    for number, (each, expected) in enumerate(zip(seen, PUCB[1:], strict=True)):
        names = [next(name for name in each.pucb if name in said) for said in (("1",), ("B", "(B)"), ("C", "(C)"))]
        assert [each.pucb[name] for name in names] == pytest.approx(expected, abs=1e-9), number
    # iteration 4 chose between the children of B, N 1: .5 x 1 / 1 before .1 + .5 x 1 / 2
    assert (seen[2].pucb["B-(A)"], seen[2].pucb["B-C"]) == pytest.approx((0.5, 0.35), abs=1e-9)
    # and left, N 2: -.5 + .5 x 1.414213562 / 2 and .1 + .5 x 1.414213562 / 2
    assert (seen[3].pucb["B-A"], seen[3].pucb["B-C"]) == pytest.approx((-0.146446609407, 0.453553390593), abs=1e-9)
    # iteration 6 chose below people's first reply, N 100: .54 x 10, .36 x 10, 1 + .1 x 10 / 101
    below = [seen[4].pucb[name] for name in ("1-(A)", "1-(C)", "1-2")]
    assert below == pytest.approx([5.4, 3.6, 1.009900990099], abs=1e-9)
    # and left, N 101: .2 + .54 x 10.049875621 / 2, .36 x 10.049875621, 1 + .1 x 10.049875621 / 101
    below = [seen[5].pucb[name] for name in ("1-A", "1-(C)", "1-2")]
    assert below == pytest.approx([2.913466417703, 3.617955223604, 1.009950371902], abs=1e-9)


def test_what_is_kept_and_the_pairs_are_as_worked_out() -> None:
    """Ends: people's (Q 1, N 100), C (Q .5, N 3: just enough), B-A-B (Q -.5).

    So people's two replies are kept, and C. B (-.2) is below both A and C; C is no negative of A as it is kept itself.
    """
    _, _, why, tree = follow(mode="as_coded", iterations=6)
    assert why == "iterations"
    assert found(tree) == (["1", "1-2", "C"], [("1", "B"), ("1-2", "1-A"), ("C", "B")])
    assert [(pair.reason, pair.explanation) for pair in tree.preferences] == [
        ("low_value", "0.99 (101) over -0.20 (2)"),
        ("low_value_once", "1.00 (100) over 0.20 (1)"),
        ("low_value", "0.50 (3) over -0.20 (2)"),
    ]
    record = tree.provenance["search"]
    assert record["ends"] == 3
    # planting and iterations 1, 2, 3, 4, 5, 6
    assert record["calls"] == {
        "strategy": 2 + 3 + 0 + 0 + 1 + 0 + 5,
        "supporter": 0 + 4 + 1 + 0 + 2 + 0 + 6,
        "seeker": 0 + 4 + 1 + 0 + 2 + 0 + 6,
        "reward": 0 + 3 + 1 + 1 + 1 + 1 + 5,
    }


@pytest.mark.parametrize(("wanted", "done"), [(1, 1), (2, 3), (3, 3), (4, 5)])
def test_it_does_not_stop_before_an_end(wanted: int, done: int) -> None:
    """After 2 and 4 iterations C, an end, comes next: one more is made, and then the next one is no end."""
    _, seen, why, _ = follow(mode="as_coded", iterations=wanted, most_iterations=6)
    assert (len(seen), why) == (done, "iterations")


def test_it_stops_at_the_most_iterations_all_the_same() -> None:
    _, seen, why, _ = follow(mode="as_coded", iterations=2, most_iterations=2)
    assert (len(seen), why) == (2, "iterations")


def test_it_stops_at_the_most_ends() -> None:
    """People's end counts from the start; the second is found in iteration 2."""
    _, seen, why, _ = follow(mode="as_coded", iterations=6, most_ends=2)
    assert (len(seen), why) == (2, "ends")


def test_one_visit_of_an_end_does_not_do() -> None:
    _, _, _, tree = follow(mode="as_coded", iterations=2, most_iterations=2)  # C: Q .7, N 1
    assert found(tree) == (["1", "1-2"], [("1", "B")])


def test_an_end_that_is_judged_again_is_asked_afresh() -> None:
    script, _, _, _ = follow(mode="as_coded", iterations=6)
    samples = [sample for asked, sample in zip(script.log, script.samples, strict=True) if asked == "reward oC"]
    assert len(set(samples)) == 3


# In what the paper's search differs, one switch after the other.


def coded(**given: object) -> tuple[Script, list[Seen], str, Conversation]:
    """The released program's search of six iterations, but for this."""
    return follow(mode="as_coded", iterations=6, **given)


def test_the_modes_differ_in_these_switches() -> None:
    paper, as_coded = MODES["paper"], MODES["as_coded"]
    assert {name: (as_coded[name], paper[name]) for name in paper if paper[name] != as_coded[name]} == {
        "gold": ("planted", "unvisited"),
        "reward_over": ("all", "rollout"),
        "prior_temperature": (5.0, 1.0),  # a strategy role's own affair
        "sees_opening": (False, True),
        "keep": ("end", "path"),
        "most_iterations": (200, 100),
    }


def test_the_opening_is_seen_where_people_s_turns_are_planted() -> None:
    script, seen, _, tree = coded(sees_opening=True)
    assert script.log == ["strategy o", "strategy o1-", *chain.from_iterable(ITERATIONS)]
    assert seen == coded()[1]
    assert found(tree) == found(coded()[3])


def test_every_turn_of_a_kept_path_has_to_be_worth_more() -> None:
    """Equation 5: C is worth .5 and no more, so it is not kept; equation 6: nor is it less, so it is not rejected."""
    script, seen, _, tree = coded(keep="path")
    assert (script.log, seen) == (coded()[0].log, coded()[1])
    assert found(tree) == (["1", "1-2"], [("1", "B"), ("1-2", "1-A")])


def test_a_path_through_what_is_worth_too_little_is_kept_as_coded_alone() -> None:
    """An end of Q .9 and N 2 after a reply of Q .1: as coded the end decides for the whole path."""
    turns = [
        *gold().turns,
        node("b", "o", LABELS["B"], "B", visits=9, value=0.1),
        Turn("t", "b", "seeker", "-"),
        node("e", "t", LABELS["C"], "C", visits=2, value=0.9, end=1),
        node("f", "t", LABELS["A"], "A", visits=1, value=0.5),
    ]
    tree = Conversation("by hand", turns, taxonomy="cso")
    assert extract(tree, Rule("end", 0.5)) == (["b", "e"], [("e", "f")])  # Q .5 is little enough as coded
    assert extract(tree, Rule("path", 0.5)) == ([], [])
    assert extract(tree, Rule("path", 0.05)).kept == ["b", "e"]


def test_the_reward_is_of_the_simulated_turns_alone() -> None:
    """Who is simulated from is not even judged, but for an end. R of iteration 1: (.4 - .3) / 2; of 6: .7 / 4."""
    script, seen, _, _ = coded(reward_over="rollout")
    own = ("reward oB-C", "reward o1-A-C")
    assert script.log == [asked for asked in [*PLANTING, *chain.from_iterable(ITERATIONS)] if asked not in own]
    numbers: dict[str, Any] = seen[0].numbers
    assert numbers["B-C"] == numbers["B"] == (1, pytest.approx(0.05, abs=1e-9))
    assert numbers[""] == (101, pytest.approx(100.05 / 101, abs=1e-9))
    numbers = {"B": seen[3].numbers["B"], "1-A-C": seen[5].numbers["1-A-C"]}
    assert numbers["B"] == (2, pytest.approx(-0.225, abs=1e-9))
    assert numbers["1-A-C"] == (1, pytest.approx(0.175, abs=1e-9))


def test_the_paper_s_search_is_as_worked_out() -> None:
    """People's turns begin with Q 0 and N 0, so every PUCB is 0 at first, and the first strategy is taken.

    1: people's first reply, there A, a leaf: as in iteration 6 above; R is (.1 - .1 + .5 + .2) / 4 = .175.
    2: A .175 + .5 / 2 = .425 before B .3 and C .2; there A .175 + .54 / 2 = .445 before C .36 and people's .1; there C
    .175 + .7 / 2 = .525 before B .3. The simulation left no turn behind, so what follows is asked again, and ends with
    the fourth reply. R is (.5 + .2 + .3 + .8) / 4 = .45.
    """
    script, seen, why, tree = follow(mode="paper", iterations=2)
    assert (why, len(seen)) == ("iterations", 2)
    first = [asked for asked in ITERATIONS[5] if asked != "reward o1-A-C"]
    assert script.log == [
        *("strategy o", "strategy o1-", *first),
        "strategy o1-A-C-",
        *("supporter o1-A-C- as A", "seeker o1-A-C-A"),
        *("strategy o1-A-C-A-", "supporter o1-A-C-A- as B", "seeker o1-A-C-A-B"),
        *("strategy o1-A-C-A-B-", "supporter o1-A-C-A-B- as C", "seeker o1-A-C-A-B-C"),
        *("strategy o1-A-C-A-B-C-", "supporter o1-A-C-A-B-C- as A", "seeker o1-A-C-A-B-C-A"),
        *("strategy o1-A-C-A-B-C-A-", "supporter o1-A-C-A-B-C-A- as A", "seeker o1-A-C-A-B-C-A-A"),
        *("reward o1-A-C-A-B", "reward o1-A-C-A-B-C", "reward o1-A-C-A-B-C-A", "reward o1-A-C-A-B-C-A-A"),
    ]
    new = {"1": (1, 0.175), "1-A": (1, 0.175), "1-A-C": (1, 0.175), "": (1, 0.175)}
    assert {name: pytest.approx(known, abs=1e-9) for name, known in seen[0].numbers.items() if known[0]} == new
    new = dict.fromkeys(new, (2, 0.3125)) | {"1-A-C-A": (1, 0.45)}  # (.175 + .45) / 2
    assert {name: pytest.approx(known, abs=1e-9) for name, known in seen[1].numbers.items() if known[0]} == new
    chosen = [seen[0].pucb[name] for name in ("1", "(B)", "(C)", "1-A", "1-(C)", "1-2", "1-A-(B)", "1-A-C")]
    assert chosen == pytest.approx([0.425, 0.3, 0.2, 0.445, 0.36, 0.1, 0.3, 0.525], abs=1e-9)
    assert found(tree) == ([], [])  # nobody has come to an end
