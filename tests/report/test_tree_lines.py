"""A tree line by line, and as folds of a page."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from esckit.conversation import Conversation, Turn
from esckit.report.drawn_tree import draw_tree
from esckit.report.tree_lines import Marks, figures_of, first_turns, tree_lines
from tests.mining.grown import grown
from tests.mining.tree_search.searched import hand_made, searched
from tests.report.folder import HOSTILE
from tests.report.search_folder import hostile
from tests.report.test_report import Page


def told(tree: Conversation, deepest: int | None = None) -> list[str]:
    """A line as ``level id``, with + where it leaves the main line, and - before what was not tried."""
    return [
        f"{line.level} {'+' * line.leaves}{line.turn.id}" if line.turn else f"{line.level} -{line.untried[0].id}"
        for line in tree_lines(tree, deepest=deepest)
    ]


def test_the_main_line_goes_on_and_ways_stand_beside_it() -> None:
    lines = ["0 0", "0 1", "1 +b", "1 g", "0 -a", "0 2", "0 3", "1 +c", "1 d", "1 e", "2 +h", "1 +f", "0 4"]
    assert told(hand_made()) == lines
    assert told(hand_made(), deepest=2) == ["0 0", "0 1", "1 +b", "0 -a"]


@pytest.mark.parametrize("deep", [False, True])
def test_every_turn_is_told_once_after_its_parent_and_no_way_goes_deep(deep: bool) -> None:
    tree = searched(2000, deep=deep)
    lines = list(tree_lines(tree))
    ids = [turn.id for line in lines for turn in ([line.turn] if line.turn else line.untried)]
    assert sorted(ids) == sorted(turn.id for turn in tree.turns)
    place = {turn_id: number for number, turn_id in enumerate(ids)}
    assert all(place[turn.parent] < place[turn.id] for turn in tree.turns if turn.parent)
    assert max(line.level for line in lines) <= math.log2(2000) + 2
    places = {line.turn.id: line.place for line in lines if line.turn}
    assert all(places[turn.id] == places[turn.parent] + 1 for turn in tree.turns if turn.id in places and turn.parent)
    assert max(places.values()) > (400 if deep else 12)


def test_a_planned_turn_of_a_mined_pair_is_no_untried_one() -> None:
    """A mined tree of a planner's pairs: nobody visited them, and they are what the tree is about."""
    tree = grown("planner")
    assert all(line.turn for line in tree_lines(tree))
    marks = Marks(tree)
    assert [marks.of(turn) for turn in tree.children("1")] == [["✓ chosen"], ["✗ rejected"]]
    assert figures_of(tree.children("1")[1]) == []


def test_marks_and_figures_say_what_is_known() -> None:
    tree = hand_made()
    marks = Marks(tree)
    found = {turn.id: marks.of(turn) for turn in tree.turns if marks.of(turn)}
    assert found == {
        "1": ["seed", "✓ kept"],
        "3": ["seed", "✗ rejected", "end"],
        "b": ["✗ rejected"],
        "c": ["✓ kept"],
        "f": ["✗ rejected"],
        "e": ["✓ kept", "end"],
        "h": ["no answer"],
    }
    all_known = replace(tree.turn("b"), scores={**tree.turn("b").scores, "closed": 1})  # nothing more to find below it
    assert marks.of(all_known) == ["✗ rejected"]
    assert figures_of(tree.turn("b")) == ["−0.40", "1 visit", "P 0.12"]
    assert figures_of(tree.turn("c"))[1] == "3 visits"
    simulated = replace(tree.turn("f"), scores={"visits": 0, "value": 0, "reward": 0.4, "judgements": 2, "prior": 0.5})
    assert figures_of(simulated) == ["own +0.40 (2)", "P 0.50"]


def test_a_drawing_that_is_cut_keeps_the_ways_to_pairs() -> None:
    tree = searched(2000)
    shown = first_turns(tree, 400)
    assert len(shown) == 400
    assert all(turn.parent in shown for turn in tree.turns if turn.id in shown and turn.parent)
    paired = {turn_id for pair in tree.preferences for turn_id in (pair.chosen, pair.rejected)}
    assert 0 < len(paired) < 400
    assert paired <= shown
    assert draw_tree(tree, 400).count('class="said"') == 400


def test_folds_nest_as_ways_do() -> None:
    drawn = draw_tree(hand_made())
    assert drawn.count("<details") == drawn.count("</details>") == drawn.count("<summary>") == 4
    way = drawn[drawn.index("What did you try so far?") :]  # c, then d and e in the same fold, and h in one of its own
    inside = way[: way.index("Why?")]
    assert inside.index("Nothing at all.") < inside.index("Good luck!") < inside.index("no answer")
    assert [mark in drawn for mark in ("✓ kept", "✗ rejected", "1 not tried: Que")] == [True] * 3
    assert "0.60 (7) over -0.40 (1)" in drawn
    assert "−0.30, 2 visits, own −0.30 (1), P 0.12" in drawn
    assert "empathy 2.00" in drawn


def test_a_talk_longer_than_the_stack_is_drawn_without_deep_tags() -> None:
    turns = [Turn(str(n), str(n - 1) if n else None, "seeker", f"line {n}") for n in range(5000)]
    drawn = draw_tree(Conversation("long", turns), 10_000)
    assert drawn.count('class="said"') == 5000
    assert "<details" not in drawn
    deep, depth = 0, 0
    for tag in re.findall(r"<(/?)details", draw_tree(searched(5000, deep=True), 10_000)):
        depth += -1 if tag else 1
        deep = max(deep, depth)
    assert deep <= math.log2(5000) + 2


def test_text_stays_text(tmp_path: Path) -> None:
    tree = hostile(searched(300))
    tree = replace(tree, turns=[replace(t, strategy="<b>x</b>" if t.strategy else None) for t in tree.turns])
    drawn = draw_tree(replace(tree, taxonomy=None))
    assert "<script" not in drawn
    assert "<b>x</b>" not in drawn
    (tmp_path / "page.html").write_text(drawn, encoding="utf-8")
    page = Page(tmp_path / "page.html")
    assert page.open == []
    assert HOSTILE in page.text
    assert drawn.count('dir="auto"') >= 2 * drawn.count("<summary>")
