"""What a predictions file takes from its dialogues."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esckit.conversation import Conversation, Turn, conversation_to_json, mined_id, parse_conversation
from esckit.errors import PredictionsError
from esckit.measures import (
    Prediction,
    add_context,
    add_predictions,
    evaluate,
    prediction_to_json,
    predictions_in,
    predictions_of,
)
from esckit.measures.predictions import prediction_from_json

from .rows import LABELS, random_rows, row

DIALOGUE = Conversation(
    id="d",
    turns=[
        Turn("a", None, "supporter", "Hello.", "Question"),
        Turn("b", "a", "seeker", "I am sad."),
        Turn("c", "b", "seeker", "Very."),
        Turn("d", "c", "supporter", "Why?", "Question"),
        Turn("m", "c", "supporter", "I see.", "Others", source="model"),
        Turn("e", "d", "seeker", "Work."),
    ],
)


def test_position_and_seeker_turns() -> None:
    rows = [row("Question", None, dialogue="d", turn=turn) for turn in ("a", "d", "m")]
    opening, reply, sibling = add_context(rows, [DIALOGUE])
    assert (opening.position, opening.seeker_turns) == ([1, 5], [])
    assert (reply.position, reply.seeker_turns) == ([4, 5], ["I am sad.", "Very."])
    assert (sibling.position, sibling.seeker_turns) == ([4, 5], ["I am sad.", "Very."])


@pytest.mark.parametrize(("dialogue", "turn"), [("other", "a"), ("d", "z")])
def test_a_turn_that_no_dialogue_has(dialogue: str, turn: str) -> None:
    with pytest.raises(
        PredictionsError, match=f"conversation '{dialogue}', turn '{turn}' is in none of the dialogues: "
    ):
        add_context([row("Question", None, dialogue=dialogue, turn=turn)], [DIALOGUE])


WORDS = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
STRATEGIES = st.none() | st.sampled_from([*LABELS, "question", " Others ", "Confrontation", ""])
POSITIONS = st.none() | st.tuples(st.integers(1, 5), st.integers(0, 5)).map(lambda pair: [pair[0], sum(pair)])


@st.composite
def dialogues_and_rows(draw: st.DrawFn) -> tuple[list[Conversation], list[Prediction]]:
    """Dialogues, some without predictions, and rows that say the same as the tree, or anything else that a file may."""
    dialogues, rows = [], []
    for place in range(draw(st.integers(1, 3))):
        turns: list[Turn] = []
        for number in range(draw(st.integers(1, 5))):
            parent = turns[-1].id if turns else None
            turns.append(Turn(str(number), parent, "supporter", draw(WORDS), draw(st.sampled_from(LABELS))))
        dialogues.append(Conversation(id=str(place), turns=turns))
        wanted = [turn for turn in turns if draw(st.booleans())]
        rows += [draw(predictions(place if draw(st.booleans()) else str(place), turn)) for turn in wanted]
    return dialogues, draw(st.sampled_from([rows, add_context(rows, dialogues)]))


@st.composite
def predictions(draw: st.DrawFn, dialogue: int | str, turn: Turn) -> Prediction:
    more = st.fixed_dictionaries(
        {},
        optional={
            "strategy_probabilities": st.dictionaries(st.sampled_from(LABELS), st.floats(0, 0.125), max_size=8),
            "raw": st.none() | WORDS,
            "finish": st.sampled_from(["stop", "length", None]),
            "group": st.none() | WORDS,
            "position": POSITIONS,
            "seeker_turns": st.none() | st.lists(WORDS, max_size=2),
            "past_strategies": JSON,
            "verdicts": JSON,
        },
    )
    record: dict[str, Any] = {
        "conversation_id": dialogue,
        "turn_id": draw(st.sampled_from([turn.id, int(turn.id)])),
        "gold_strategy": draw(st.sampled_from([turn.strategy, f" {turn.strategy}".lower(), "Others"])),
        "predicted_strategy": draw(STRATEGIES),
        "gold_text": draw(st.just(turn.text) | WORDS),
        "predicted_text": draw(st.none() | WORDS),
    }
    return prediction_from_json(record | draw(more))


@given(dialogues_and_rows())
def test_rows_become_siblings_and_the_same_rows_again(given_: tuple[list[Conversation], list[Prediction]]) -> None:
    dialogues, rows = given_
    grown = add_predictions(dialogues, rows, "system")
    read = [parse_conversation(json.dumps(conversation_to_json(tree))) for tree in grown]
    assert predictions_in(read) == ({"system": rows} if rows else {})
    lines = [json.dumps(prediction_to_json(row)) for row in predictions_in(read).get("system", [])]
    assert lines == [json.dumps(prediction_to_json(row)) for row in rows]
    for before, after in zip(dialogues, grown, strict=True):
        assert after.turns[: len(before.turns)] == before.turns
        assert after.trunk == before.trunk


def test_a_predicted_turn_is_a_sibling_that_says_what_the_row_says() -> None:
    told = {"strategy_probabilities": {"Question": 0.75, "Others": 0.25}, "finish": "stop"}
    prediction = row(
        "Question", "others", dialogue="d", turn="d", gold_text="Why?", extra={"past_strategies": "hidden"}, **told
    )
    (tree,) = add_predictions([DIALOGUE], add_context([prediction], [DIALOGUE]), "system")
    new = tree.turns[-1]
    assert new == Turn(
        mined_id("c", "system", "Others", "I see."),
        "c",
        "supporter",
        "I see.",
        "Others",
        source="system",
        extra={"turn_id": "d", "predicted_strategy": "others", **told, "past_strategies": "hidden"},
    )
    assert [turn.id for turn in tree.children("c")] == ["d", "m", new.id]


def test_several_systems_stand_in_one_tree_with_equal_figures() -> None:
    rows = {name: random_rows(40, seed=seed) for seed, name in enumerate("ab")}
    dialogues = []
    for place in range(10):
        turns: list[Turn] = []
        for each in (each for each in rows["a"] if each.conversation_id == f"d{place}"):
            turns.append(Turn(str(each.turn_id), turns[-1].id if turns else None, "supporter", each.gold_text))
        dialogues.append(Conversation(id=f"d{place}", turns=turns))
    trees = add_predictions(add_predictions(dialogues, rows["a"], "a"), rows["b"], "b")
    found = predictions_in(trees)
    assert list(found) == ["a", "b"]
    for name, own in rows.items():
        assert evaluate(found[name], resamples=20).strategy == evaluate(own, resamples=20).strategy


def test_empty_and_equal_replies_of_two_systems_stand_side_by_side() -> None:
    said = [("Question", "Why?"), (None, "Why?"), ("Others", None), (None, None), ("Others", ""), (None, " ")]
    for strategy, text in said:
        one = replace(row("Question", strategy, dialogue="d", turn="d", gold_text="Why?"), predicted_text=text)
        trees = add_predictions(add_predictions([DIALOGUE], [one], "a"), [one], "b")
        read = [parse_conversation(json.dumps(conversation_to_json(tree))) for tree in trees]
        assert predictions_in(read) == {"a": [one], "b": [one]}
        assert predictions_of(read, "b") == [one]
        assert len(read[0].children("c")) == 4, "gold, what a model said, and one of each"


def test_what_stands_in_a_corpus_s_own_extra_is_no_prediction_of_a_system() -> None:
    own = Turn("x", "c", "supporter", "Oh.", extra={"turn_id": 7})
    said = row("Question", "Others", dialogue="d", turn="d")
    assert predictions_of(add_predictions([DIALOGUE.grow([own])], [said], "system"), "system") == [said]


def test_a_system_is_added_once() -> None:
    rows = [row("Question", "Others", dialogue="d", turn="d")]
    trees = add_predictions([DIALOGUE], rows, "system")
    with pytest.raises(PredictionsError, match="'d' has the reply of system to turn 'd' already: add a system's"):
        add_predictions(trees, rows, "system")


def test_a_turn_that_stands_for_none_is_one_sentence() -> None:
    stray = Turn("x", "c", "supporter", "Oh.", source="system", extra={"turn_id": "gone"})
    with pytest.raises(PredictionsError, match="conversation 'd', turn 'x' stands for 'gone', which is no turn"):
        predictions_in([DIALOGUE.grow([stray])])
