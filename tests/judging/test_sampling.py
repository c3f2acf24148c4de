"""Which turns are judged, and the known groups made of them."""

from dataclasses import replace

import pytest

from esckit.errors import EsckitError, PredictionsError
from esckit.judging.known_groups import known_replies, stock_replies
from esckit.judging.sampling import sample_turns
from tests.judging.judged import dialogues, predicted


def test_every_system_is_judged_at_the_same_turns_in_the_same_talk() -> None:
    talks = dialogues()
    one = predicted(talks, lambda c, t: f"one {c} {t}")
    two = predicted(talks, lambda c, t: None if c == "d0" else f"two {c} {t}")
    sampled = sample_turns({"one": one, "two": list(reversed(two))}, talks, 7, 0)
    assert len(sampled.turns) == 7
    assert (sampled.shared, sampled.left_out) == (12, 0)
    for turn in sampled.turns:
        assert sampled.replies["one"][turn.key] == f"one {turn.conversation_id} {turn.turn_id}"
        part = int(turn.turn_id[1:])
        assert [said.id for said in turn.context] == ["s0", "h0", "s1"][: 2 * part + 1]
        assert turn.reference == f"Gold for {turn.conversation_id}, part {part}."
        expected = "" if turn.conversation_id == "d0" else f"two {turn.conversation_id} {turn.turn_id}"
        assert sampled.replies["two"][turn.key] == expected


def test_the_sample_depends_on_ids_and_seed_alone_and_a_larger_one_holds_it() -> None:
    talks = dialogues(10)
    rows = predicted(talks, lambda c, t: "x")
    keys = {turn.key for turn in sample_turns({"a": rows}, talks, 5, 0).turns}
    assert {turn.key for turn in sample_turns({"b": rows[::-1]}, talks[::-1], 5, 0).turns} == keys
    assert keys < {turn.key for turn in sample_turns({"a": rows}, talks, 9, 0).turns}
    assert {turn.key for turn in sample_turns({"a": rows}, talks, 5, 1).turns} != keys


def test_only_turns_of_all_systems_are_drawn() -> None:
    talks = dialogues(3)
    rows = predicted(talks, lambda c, t: "x")
    sampled = sample_turns({"a": rows, "b": rows[2:]}, talks, 100, 0)
    assert {turn.conversation_id for turn in sampled.turns} == {"d1", "d2"}
    assert sampled.left_out == 2


def test_what_cannot_be_compared_is_refused() -> None:
    talks = dialogues(2)
    rows = predicted(talks, lambda c, t: "x")
    with pytest.raises(PredictionsError, match="a, b share no turn"):
        sample_turns({"a": rows[:2], "b": rows[2:]}, talks, 5, 0)
    with pytest.raises(PredictionsError, match="differ in the gold_text of conversation 'd"):
        sample_turns({"a": rows, "b": [replace(row, gold_text="another") for row in rows]}, talks, 5, 0)
    with pytest.raises(PredictionsError, match="'d1', turn 'h0' is in none of the dialogues"):
        sample_turns({"a": rows[2:3]}, talks[:1], 5, 0)


def test_known_groups_are_gold_foreign_and_stock_at_the_same_turns() -> None:
    talks = dialogues(4)
    turns = sample_turns({"a": predicted(talks, lambda c, t: "x")}, talks, 8, 0).turns
    known = known_replies(turns, None, 0)
    by_group = {group: [each for each in known if each.group == group] for group in ("gold", "shuffled", "stock")}
    for own in by_group.values():
        assert [each.turn for each in own] == turns
    assert [each.text for each in by_group["gold"]] == [turn.reference for turn in turns]
    for each in by_group["shuffled"]:
        assert each.text.startswith("Gold for ")
        assert not each.text.startswith(f"Gold for {each.turn.conversation_id},")
    assert {each.text for each in by_group["stock"]} <= set(stock_replies())
    assert known == known_replies(turns, None, 0)


def test_failed_replies_stand_in_their_own_talks() -> None:
    talks = dialogues(4)
    turns = sample_turns({"a": predicted(talks, lambda c, t: "x")}, talks, 5, 0).turns
    failed = [each for each in known_replies(turns, dialogues(3, turns=4), 0) if each.group == "failed"]
    assert len(failed) == 5
    for each in failed:
        name = each.turn.conversation_id.removeprefix("failed:")
        assert each.turn.conversation_id.startswith("failed:")
        assert each.text == f"Gold for {name}, part {each.turn.turn_id[1:]}."
        assert each.turn.context[-1].text == f"I am sad about {name}, part {each.turn.turn_id[1:]}."


def test_known_groups_need_two_dialogues() -> None:
    talks = dialogues(1)
    turns = sample_turns({"a": predicted(talks, lambda c, t: "x")}, talks, 5, 0).turns
    with pytest.raises(EsckitError, match="known groups need turns of two dialogues"):
        known_replies(turns, None, 0)
