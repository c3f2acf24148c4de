"""The whole, as someone reads it."""

import json
import math
from typing import Any

import pytest

import esckit.measures
from esckit.errors import PredictionsError
from esckit.measures.preference_bias import preference_bias
from esckit.measures.strategy_measures import count_outcomes

from .rows import LABELS, measured, random_rows, row


@pytest.fixture(scope="module")
def figures() -> Any:
    return measured(random_rows(), resamples=200)


def test_public_names() -> None:
    assert all(hasattr(esckit.measures, name) for name in esckit.measures.__all__)


def test_shape(figures: Any) -> None:
    json.dumps(figures.to_json(), allow_nan=False)
    assert figures.format == 1
    assert (figures.n, figures.dialogues, figures.taxonomy) == (120, 10, "esconv")
    assert figures.past_strategies is figures.groups is None
    strategy = figures.strategy
    assert [entry.strategy for entry in strategy.per_strategy] == list(LABELS)
    for name in ("q", "q_w", "accuracy"):
        low, high = getattr(strategy, f"{name}_interval")
        assert 0 <= low <= getattr(strategy, name) <= high <= 1
    assert strategy.b_n == round(strategy.parse_rate * 120) < 120
    assert strategy.b_debiased == pytest.approx(math.sqrt(max(0, strategy.b**2 - strategy.b_floor**2)))
    assert strategy.b_compat == pytest.approx(strategy.b, abs=1e-3)
    assert strategy.calibration is None
    assert figures.text.finish.to_json() == {"stop": 0, "length": 0}


def test_means_over_responses_have_intervals_around_them(figures: Any) -> None:
    text = figures.text.to_json()
    names = [name.removesuffix("_interval") for name in text if name.endswith("_interval")]
    assert set(names) > {"bleu1_utterance", "f1_utterance", "rouge_l_utterance", "distinct1_utterance"}
    for name in names:
        low, high = text[f"{name}_interval"]
        assert 0 <= low <= text[name] <= high <= 1


def test_b_is_that_of_the_sum_of_all_dialogues(figures: Any) -> None:
    bias = preference_bias(count_outcomes(random_rows()).sum(0))
    assert figures.strategy.b == bias.b
    assert [entry.p for entry in figures.strategy.per_strategy] == pytest.approx(list(bias.p))


def test_order_of_rows_changes_nothing(figures: Any) -> None:
    shuffled = measured(random_rows()[::-1], resamples=200)
    assert shuffled.strategy == figures.strategy
    for name, value in figures.text.to_json().items():
        close = isinstance(value, float) or name.endswith("_interval")
        assert shuffled.text.to_json()[name] == (pytest.approx(value) if close else value)


def test_seed_decides_the_intervals_and_nothing_else(figures: Any) -> None:
    assert measured(random_rows(), resamples=200) == figures
    other = measured(random_rows(), resamples=200, seed=1).strategy
    assert other.b_interval != figures.strategy.b_interval
    assert other.b == figures.strategy.b


def test_perfect_and_one_class() -> None:
    perfect = measured([row(label, label, turn=i) for i, label in enumerate(LABELS)]).strategy
    assert (perfect.q, perfect.b, perfect.b_floor, perfect.b_marks) == (1, 0, 0, [])
    assert perfect.b_no_evidence == list(LABELS)
    constant = measured([row(label, "Question", turn=i) for i, label in enumerate(LABELS)]).strategy
    assert constant.b == math.sqrt(7)
    assert constant.b_interval == (math.sqrt(7), math.sqrt(7))
    assert constant.b_marks == ["saturated"]
    assert constant.b_never_predicted == constant.b_never_wrongly_chosen == list(LABELS[1:])
    assert constant.per_strategy[0].p == 8


def test_strategies_without_gold_are_counted_apart() -> None:
    rows = [
        row("Question", "Others", turn=1),
        row("Information", "Question", turn=2),
        row("Question", "Others", turn=3),
    ]
    strategy = measured(rows).strategy
    assert strategy.b_without_gold == [label for label in LABELS if label not in ("Question", "Information")]
    assert strategy.b_predictions_without_gold == 2
    assert any("2 predictions of strategies that are gold nowhere here" in text for text in measured(rows).warnings)
    assert strategy.b_no_evidence == []
    assert strategy.per_strategy[-1].p is None


def test_nothing_to_measure_is_null_not_zero() -> None:
    assert measured([row("Question", None)]).strategy is None
    assert measured([row("Question", "Question", predicted_text=None)]).text is None
    unparsed = measured([row("Question", "Empathy")]).strategy
    assert unparsed.q == 0
    assert unparsed.parse_rate == 0
    assert unparsed.b is unparsed.b_interval is unparsed.b_floor is unparsed.b_debiased is None


def test_unparsed_treatments() -> None:
    rows = [row("Question", "Question", turn=1), row("Question", "Empathy", turn=2)]
    assert measured(rows).strategy.accuracy == 0.5
    dropped = measured(rows, unparsed="drop").strategy
    assert (dropped.accuracy, dropped.parse_rate) == (1, 0.5)
    with pytest.raises(PredictionsError, match="1 of 2 predicted strategies are unparsed"):
        measured(rows, unparsed="refuse")


def test_null_text_is_empty_text_and_counted() -> None:
    rows = [row("Question", None, turn=i, predicted_text=text) for i, text in enumerate(("How are you?", None))]
    result = measured(rows, metrics=["text"])
    assert result.text.null_texts == 1
    assert result.text.f1_utterance == pytest.approx(0.5)
    assert result.warnings[1:] == ["1 of 2 predicted texts are null and score as empty text."]


def test_groups_are_measured_alone() -> None:
    rows = [row("Question", "Question", turn=1, group="a"), row("Others", "Question", turn=2, group="b")]
    result = measured([*rows, row("Others", "Others", turn=3)])
    assert list(result.groups) == ["a", "b"]
    assert [group.strategy.accuracy for group in result.groups.values()] == [1, 0]
    assert result.strategy.accuracy == pytest.approx(2 / 3)
    assert result.groups["b"] == measured(rows[1:]).groups["b"]


def test_past_strategies_travel_where_they_agree() -> None:
    rows = [row("Question", "Question", turn=i, extra={"past_strategies": "hidden"}) for i in range(2)]
    assert measured(rows).past_strategies == "hidden"
    mixed = measured([*rows, row("Question", "Question", turn=2, extra={"past_strategies": ["gold"]})])
    assert mixed.past_strategies is None
    assert any("differ in past_strategies" in warning for warning in mixed.warnings)


def test_warnings() -> None:
    rows = [*random_rows(), row("Question", "Question", finish="length")]
    warnings = measured(rows, resamples=10).warnings
    assert any("predicted strategies are unparsed" in warning for warning in warnings)
    assert any("turns are too few to tell planners apart by B" in warning for warning in warnings)
    assert any("1 of 121 responses were cut at the length limit." in warning for warning in warnings)


@pytest.mark.parametrize(
    ("turns", "dialogues", "words"),
    [
        (1, 1, "Only 1 turn of 1 dialogue:"),
        (99, 12, "Only 99 turns of 12 dialogues: under 100 turns chance moves a share by ten points"),
        (120, 9, "Only 120 turns of 9 dialogues:"),
        (100, 10, None),
    ],
)
def test_few_turns_or_dialogues_are_warned_of(turns: int, dialogues: int, words: str | None) -> None:
    warnings = measured(random_rows(turns, dialogues), resamples=10, metrics=["strategy"]).warnings
    few = [warning for warning in warnings if warning.startswith("Only")]
    assert len(few) == (words is not None)
    assert all(str(words) in warning for warning in few)


def test_no_predictions_is_an_error() -> None:
    with pytest.raises(PredictionsError, match="there are no predictions to evaluate: give at least one"):
        measured([])


def test_metrics_decide_what_is_measured() -> None:
    rows = random_rows(40)
    only_strategy = measured(rows, resamples=10, metrics=["strategy"])
    assert only_strategy.text is None
    assert only_strategy.strategy is not None
    only_meteor = measured(rows, metrics=["meteor"])
    assert only_meteor.strategy is None
    assert 0 < only_meteor.text.meteor_utterance < 1
    assert "bleu1_utterance" not in only_meteor.text.to_json()
    assert measured(rows, resamples=10).text.meteor_utterance == only_meteor.text.meteor_utterance
    assert "meteor_utterance" not in measured(rows, resamples=10, metrics=["text"]).text.to_json()


def test_stages_where_positions_are_known() -> None:
    rows = [
        row("Question", "Others", turn=1, position=[1, 12]),
        row("Question", "Question", turn=2, position=[12, 12]),
        row("Others", "Others", turn=3),
    ]
    stages = measured(rows, resamples=10).strategy.stages
    assert [stage.stage for stage in stages] == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert stages[0].gold["Question"] == stages[0].predicted["Others"] == 1
    assert stages[5].predicted["Question"] == 1
    assert sum(sum(stage.gold.values()) for stage in stages) == 2
    assert measured([row("Question", "Others")], resamples=10).strategy.stages is None


def test_turns_without_a_gold_strategy_are_measured_by_their_text_alone() -> None:
    rows = [row("Question", "Question", turn=1), row("Others", "Question", turn=2)]
    mixed = measured([*rows, row(None, None, turn=3)], resamples=10)
    assert mixed.n == 3
    assert mixed.strategy.n == 2
    assert mixed.strategy.accuracy == 0.5
    assert measured([row(None, None)]).strategy is None


def test_one_turn_a_dialogue_is_warned_of() -> None:
    rows = [row("Question", "Question", dialogue=i) for i in range(3)]
    assert any("Every turn has a conversation_id of its own" in text for text in measured(rows).warnings)
    assert not any("of its own" in text for text in measured(rows[:1]).warnings)
