"""Statistics of mined pairs: counts by hand."""

from dataclasses import replace

import pytest

from esckit.mining.pairs import Pair, kind_of, pair_statistics, pairs_of
from tests.mining.grown import dialogue, grown, prefer


def test_pairs_of_a_coupled_part_by_hand() -> None:
    found = pair_statistics([grown("coupled"), dialogue("other")])
    assert found["pairs"] == 3
    assert found["aspects"] == {"turn": 2, "response": 1}
    assert found["kinds"] == {"NsNr": 2, "PsNr": 1}
    assert found["reasons"] == {}
    assert found["strategies"] == {
        "Providing Suggestions": {"chosen": 2, "rejected": 1},
        "Reflection of feelings": {"chosen": 1, "rejected": 0},
        "Others": {"chosen": 0, "rejected": 1},
        "Question": {"chosen": 0, "rejected": 1},
    }
    gold, other = "You could ask for another date.", ("Well.", "Try it again, then.", "Why is that so?")
    assert found["mean_characters"]["chosen"] == pytest.approx((len("That must hurt.") + 2 * len(gold)) / 3)
    assert found["mean_characters"]["rejected"] == pytest.approx(sum(map(len, other)) / 3)


def test_pairs_of_labels_have_neither_kind_nor_length() -> None:
    found = pair_statistics([grown("planner")])
    assert (found["pairs"], found["kinds"]) == (3, {})
    assert found["mean_characters"] == {"chosen": None, "rejected": None}


def test_reasons_are_counted_the_most_frequent_first() -> None:
    tree = grown("generator")
    reasons = [None, "template_response", "template_response"]
    judged = [replace(p, reason=reason) for p, reason in zip(tree.preferences, reasons, strict=True)]
    other = grown("generator", "other")
    lack = [replace(other.preferences[0], reason="lack_of_empathy"), *other.preferences[1:]]
    found = pair_statistics([replace(other, preferences=lack), replace(tree, preferences=judged)])
    assert list(found["reasons"].items()) == [("template_response", 2), ("lack_of_empathy", 1)]


def test_no_pairs_at_all() -> None:
    assert pair_statistics([dialogue()])["strategies"] == {}


def test_the_kind_says_which_side_differs() -> None:
    tree = prefer(dialogue(), "2", "Others", "that  must HURT.")
    (pair,) = pairs_of([tree], "coupled")
    assert kind_of(pair) == "NsPr"
    assert [kind_of(pair) for pair in pairs_of([grown("coupled")], "coupled")] == ["NsNr", "PsNr", "NsNr"]
    assert isinstance(pair, Pair)


def test_a_reason_of_another_method_does_not_say_the_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What DecoupledESC blames on the strategy alone, another taxonomy may call by the same name."""
    tree = prefer(dialogue(), "2", "Others", "Well.")
    (own,) = tree.preferences
    mismatch = replace(own, reason="strategy_mismatch")
    assert kind_of(Pair(tree, mismatch)) == "NsPr"
    assert kind_of(Pair(tree, replace(mismatch, reasons="mine"))) == "NsNr"
