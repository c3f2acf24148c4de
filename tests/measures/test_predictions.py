"""The predictions file: what it holds survives, and every bad input has its one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esckit.errors import PredictionsError
from esckit.measures import Prediction, prediction_from_json, prediction_to_json, read_predictions
from esckit.strategy import CSO, ESCONV

GOOD: dict[str, Any] = {
    "conversation_id": "a",
    "turn_id": 3,
    "gold_strategy": "Question",
    "predicted_strategy": None,
    "gold_text": "Why?",
    "predicted_text": "I see.",
}


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def test_reads_what_stands_there(tmp_path: Path) -> None:
    full = GOOD | {
        "turn_id": "3",
        "predicted_strategy": " information ",
        "strategy_probabilities": {"question": 0.25, "Others": 0.75},
        "raw": "[Information] I see.",
        "finish": "length",
        "group": "grief",
        "position": [2, 9],
        "seeker_turns": ["Hi."],
        "past_strategies": "hidden",
    }
    first, second = read_predictions(write(tmp_path / "p.jsonl", GOOD, full))
    assert first == Prediction(**GOOD)
    assert second.extra == {"past_strategies": "hidden"}
    assert second.predicted_strategy == " information "
    assert [prediction_to_json(first), prediction_to_json(second)] == [GOOD, full]


def test_odd_line_ends_inside_a_text_do_not_split_the_line(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three\x0bfour\r\nfive"
    (prediction,) = read_predictions(write(tmp_path / "p.jsonl", GOOD | {"predicted_text": text}))
    assert prediction.predicted_text == text


def test_integer_and_string_ids_are_different(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", GOOD, GOOD | {"turn_id": "3"}, GOOD | {"conversation_id": 1})
    assert len(read_predictions(path)) == 3


@given(
    st.fixed_dictionaries(
        {
            "conversation_id": st.text() | st.integers(),
            "turn_id": st.text() | st.integers(),
            "gold_strategy": st.sampled_from(ESCONV.labels),
            "predicted_strategy": st.none() | st.text(),
            "gold_text": st.text(),
            "predicted_text": st.none() | st.text(),
        },
        optional={"raw": st.text(), "finish": st.sampled_from(["stop", "length"]), "note": st.lists(st.integers())},
    )
)
def test_json_round_trip(record: dict[str, Any]) -> None:
    assert prediction_to_json(prediction_from_json(record)) == record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"gold_strategy": "Empathy"},
            'gold_strategy is "Empathy", no label of the taxonomy esconv: use one of Question',
        ),
        ({"gold_strategy": 1}, "gold_strategy is 1: write a string or null."),
        (
            {"gold_strategy": None, "predicted_strategy": "Question"},
            "gold_strategy is null beside a predicted_strategy: write the gold label, or null for both.",
        ),
        ({"position": 3}, "position is 3: write [k, N], the k-th of the dialogue's N utterances, or null."),
        ({"position": [0, 3]}, "position is [0, 3]: write [k, N] with 1 <= k <= N."),
        ({"position": [4, 3]}, "position is [4, 3]: write [k, N] with 1 <= k <= N."),
        ({"position": [1, 2, 3]}, "position is [1, 2, 3]: write [k, N] with 1 <= k <= N."),
        ({"seeker_turns": "Hi"}, 'seeker_turns is "Hi": write a list of strings or null.'),
        ({"seeker_turns": ["Hi", None]}, 'seeker_turns is ["Hi", null]: write a list of strings.'),
        ({"turn_id": True}, "turn_id is true: write a string or an integer."),
        ({"turn_id": 1.5}, "turn_id is 1.5: write a string or an integer."),
        ({"conversation_id": None}, "conversation_id is null: write a string or an integer."),
        ({"predicted_strategy": 4}, "predicted_strategy is 4: write a string or null."),
        ({"predicted_text": ["I"]}, 'predicted_text is ["I"]: write a string or null.'),
        ({"finish": "eos"}, 'finish is "eos": write stop, length or null.'),
        ({"group": 7}, "group is 7: write a string or null."),
        ({"strategy_probabilities": [0.1]}, "strategy_probabilities is [0.1]: write an object of label to probability"),
        ({"strategy_probabilities": {"Question": "1"}}, 'gives Question "1": write a number from 0 to 1.'),
        ({"strategy_probabilities": {"Question": 1.2}}, "gives Question 1.2: write a number from 0 to 1."),
        ({"strategy_probabilities": {"Question": -0.1}}, "gives Question -0.1: write a number from 0 to 1."),
        ({"strategy_probabilities": {"Question": True}}, "gives Question true: write a number from 0 to 1."),
        ({"strategy_probabilities": {"Question": float("nan")}}, "gives Question NaN: write a number from 0 to 1."),
        ({"strategy_probabilities": {"Empathy": 0.1}}, 'names "Empathy", no label of esconv: use Question'),
        ({"strategy_probabilities": {"Question": 0.9, "Others": 0.9}}, "add up to 1.8: normalise them to at most 1."),
    ],
)
def test_bad_field(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "p.jsonl", GOOD | {"turn_id": 0}, GOOD | change)
    with pytest.raises(PredictionsError) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", GOOD)
def test_missing_field(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "p.jsonl", {key: value for key, value in GOOD.items() if key != name})
    with pytest.raises(PredictionsError, match=rf"p\.jsonl, line 1: {name} is missing: write a string"):
        read_predictions(path)


def test_missing_nullable_field_says_null(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {key: value for key, value in GOOD.items() if key != "predicted_text"})
    with pytest.raises(PredictionsError, match="null where nothing was predicted"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "p.jsonl is empty: write one JSON object for each predicted supporter turn."),
        (" \n\n", "p.jsonl is empty: "),
        ("{", "p.jsonl, line 1: this is not JSON ("),
        (json.dumps(GOOD) + "\n\n", "p.jsonl, line 2: this is not JSON ("),
        ("[1]\n", "p.jsonl, line 1: this is [1]: write one JSON object a line."),
        ("9" * 5000, "p.jsonl, line 1: this is not JSON ("),
    ],
)
def test_bad_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(PredictionsError) as caught:
        read_predictions(path)
    assert message in str(caught.value)


def test_half_of_a_surrogate_pair_is_refused_and_a_whole_one_is_text(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(GOOD | {"gold_text": "\U0001f642 \\ud800"}) + "\n", encoding="utf-8")
    assert read_predictions(path)[0].gold_text == "\U0001f642 \\ud800"
    path.write_text(json.dumps(GOOD | {"group": "\ud800"}) + "\n", encoding="utf-8")
    with pytest.raises(PredictionsError, match=r"line 1: this is not JSON \(Half of a surrogate pair"):
        read_predictions(path)


def test_duplicate(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", GOOD, GOOD | {"turn_id": 4}, GOOD | {"predicted_text": "x"})
    with pytest.raises(PredictionsError, match="line 3: conversation 'a', turn 3 stands in line 1 already: keep one"):
        read_predictions(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match="does not exist: give the path of a predictions file"):
        read_predictions(tmp_path / "none.jsonl")
    with pytest.raises(PredictionsError, match="is not a file"):
        read_predictions(tmp_path)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"gold_text": "\xff"}')
    with pytest.raises(PredictionsError, match="is not UTF-8 text"):
        read_predictions(path)


def test_taxonomy_decides_what_a_gold_label_is() -> None:
    with pytest.raises(PredictionsError, match="no label of the taxonomy cso: use one of Emotional Validation"):
        prediction_from_json(GOOD, CSO)
