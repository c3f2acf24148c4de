"""Several files against each other."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from esckit.errors import EsckitError, PredictionsError
from esckit.measures import Prediction, compare, evaluate
from esckit.measures.patterns import PATTERNS
from esckit.measures.permutation import holm
from esckit.measures.results import Comparison
from esckit.measures.strategy_measures import Unparsed

from .rows import measured, random_rows

UNPARSED: tuple[Unparsed, ...] = ("wrong", "drop")
FAST: dict[str, Any] = {"permutations": 200, "resamples": 50}


def other(rows: list[Prediction], seed: int = 2, **changes: Any) -> list[Prediction]:
    """Another system's predictions of the same turns."""
    drawn = random_rows(len(rows), seed=seed)
    return [
        replace(row, predicted_strategy=new.predicted_strategy, predicted_text=new.predicted_text, **changes)
        for row, new in zip(rows, drawn, strict=True)
    ]


@pytest.fixture(scope="module")
def compared() -> Comparison:
    rows = random_rows()
    return compare({"a": rows, "b": other(rows), "c": other(rows, 3)}, **FAST)


def test_shape(compared: Comparison) -> None:
    json.dumps(compared.to_json(), allow_nan=False)
    assert list(compared.files) == ["a", "b", "c"]
    assert compared.files["a"] == evaluate(random_rows(), resamples=50)
    entries = compared.comparisons
    assert [(entry.a, entry.b) for entry in entries[::12]] == [("a", "b"), ("a", "c"), ("b", "c")]
    metrics = ["q", "q_w", "accuracy", "b", "bleu1_utterance", "f1_utterance", "rouge_l_utterance", "meteor_utterance"]
    assert [entry.metric for entry in entries] == [*metrics, *PATTERNS] * 3
    assert {(entry.turns, entry.dialogues, entry.permutations) for entry in entries} == {(120, 10, 200)}


def test_differences_are_those_of_the_files_and_lie_in_their_intervals(compared: Comparison) -> None:
    for entry in compared.comparisons:
        one, two = (compared.files[name].to_json() for name in (entry.a, entry.b))
        expected = _figure(one, entry.metric) - _figure(two, entry.metric)
        assert entry.difference == pytest.approx(expected)
        assert entry.interval[0] <= entry.interval[1]


def _figure(figures: dict[str, Any], metric: str) -> float:
    if metric in PATTERNS:
        return float(figures["patterns"]["predicted"][metric]["share"])
    return float(figures["text" if metric.endswith("_utterance") else "strategy"][metric])


def test_holm_runs_over_the_whole_table(compared: Comparison) -> None:
    entries = compared.comparisons
    assert [entry.p_holm for entry in entries] == pytest.approx(holm([entry.p for entry in entries]))
    assert all(1 / 201 <= entry.p <= entry.p_holm <= 1 for entry in entries)


def test_order_of_rows_changes_nothing() -> None:
    rows = random_rows()
    first = compare({"a": rows, "b": other(rows)}, **FAST).comparisons
    second = compare({"a": rows[::-1], "b": other(rows)[::3] + other(rows)[1::3] + other(rows)[2::3]}, **FAST)
    for one, two in zip(first, second.comparisons, strict=True):
        assert one.p == two.p
        assert one.difference == pytest.approx(two.difference)


def test_a_system_does_not_differ_from_itself() -> None:
    rows = random_rows()
    for entry in compare({"a": rows, "b": rows}, **FAST).comparisons:
        assert (entry.difference, entry.interval, entry.p, entry.p_holm) == (0, (0, 0), 1, 1)


def test_only_shared_turns_are_compared_and_the_others_counted() -> None:
    rows = random_rows()
    result = compare({"a": rows[:100], "b": other(rows)[20:]}, **FAST)
    assert {entry.turns for entry in result.comparisons} == {80}
    assert "a and b are compared over the 80 turns that both predict; 40 others are left out." in result.warnings
    assert result.files["a"].n == 100
    short = measured(rows[20:100], resamples=10).strategy.q - measured(other(rows)[20:100], resamples=10).strategy.q
    assert result.comparisons[0].difference == pytest.approx(short)


def test_what_only_one_file_has_is_not_compared() -> None:
    rows = random_rows()
    without_text = [replace(row, predicted_text=None) for row in other(rows)]
    metrics = {entry.metric for entry in compare({"a": rows, "b": without_text}, **FAST).comparisons}
    assert metrics == {"q", "q_w", "accuracy", "b", "one_strategy"}
    unparsed = [replace(row, predicted_strategy="none of them") for row in rows]
    assert "b" not in {entry.metric for entry in compare({"a": rows, "b": unparsed}, **FAST).comparisons}
    nothing = [replace(row, predicted_strategy=None) for row in without_text]
    assert compare({"a": rows, "b": nothing}, **FAST).comparisons == []


def test_metrics_asked_for_are_compared() -> None:
    rows = random_rows(40)
    entries = compare({"a": rows, "b": other(rows)}, metrics=["meteor"], **FAST).comparisons
    assert [entry.metric for entry in entries] == ["meteor_utterance"]


def test_unparsed_predictions_are_treated_in_tests_as_in_the_figures() -> None:
    """One system's predictions are unparsed at the turns where the other is wrong: dropped, they no longer count."""
    gold = [replace(row, predicted_strategy=row.gold_strategy) for row in random_rows()]
    rows = [row if turn % 4 else replace(row, predicted_strategy="Empathy") for turn, row in enumerate(gold)]
    wrong = [row if turn % 2 else replace(row, predicted_strategy="Others") for turn, row in enumerate(gold)]
    how: dict[str, Any] = {"metrics": ["strategy"], **FAST}
    found = {unparsed: compare({"a": rows, "b": wrong}, unparsed=unparsed, **how) for unparsed in UNPARSED}
    for result in found.values():
        one, two = (result.files[name].to_json()["strategy"] for name in "ab")
        for test in result.comparisons:
            assert test.difference == pytest.approx(one[test.metric] - two[test.metric]), test.metric
    differences = {name: result.comparisons[2].difference for name, result in found.items()}
    assert found["drop"].comparisons[2].metric == "accuracy"
    right = sum(row.gold_strategy == row.predicted_strategy for row in wrong) / len(wrong)
    assert differences == {"wrong": pytest.approx(0.75 - right), "drop": pytest.approx(1 - right)}
    with pytest.raises(PredictionsError, match="are unparsed"):
        compare({"a": rows, "b": wrong}, unparsed="refuse", **how)


def test_a_turn_that_one_side_has_no_value_for_is_in_neither_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Relevance knows nothing of turns before which the seeker is silent; the files may differ in what they know."""
    values = {"a": [0.5, 0.25, math.nan, 1.0], "b": [0.25, math.nan, 0.75, 0.0]}

    def relevance(seeker_turns: Any, predicted: list[str], encoder: str) -> tuple[dict[str, Any], dict[str, Any]]:
        each = np.array(values[predicted[0]])
        return {"relevance_utterance": float(np.nanmean(each)), "relevance_n": 3}, {"relevance": each}

    monkeypatch.setattr("esckit.measures.text_figures.relevance_figures", relevance)
    rows = random_rows(4, dialogues=2)
    files = {name: [replace(row, predicted_text=name) for row in rows] for name in values}
    (test,) = compare(files, metrics=["relevance"], encoder="any", **FAST).comparisons
    assert (test.metric, test.turns) == ("relevance_utterance", 2)
    assert test.difference == pytest.approx(((0.5 - 0.25) + (1.0 - 0.0)) / 2)
    reversed_files = dict(reversed(files.items()))
    (back,) = compare(reversed_files, metrics=["relevance"], encoder="any", **FAST).comparisons
    assert back.turns == 2
    assert back.difference == pytest.approx(-test.difference)


def test_past_strategies_that_differ_are_said() -> None:
    rows = random_rows(40)
    files = {name: other(rows, extra={"past_strategies": kind}) for name, kind in (("a", "hidden"), ("b", "gold"))}
    warnings = compare(files, **FAST).warnings
    assert warnings[0].startswith("The files differ in the past strategies that the model saw (a hidden, b gold): ")
    assert not compare({"a": rows, "b": other(rows)}, **FAST).warnings[0].startswith("The files differ")


def test_files_without_a_shared_turn_are_an_error() -> None:
    rows = random_rows(20)
    with pytest.raises(PredictionsError, match=r"a and b share no turn .*: compare predictions of the same dialogues"):
        compare({"a": rows[:10], "b": rows[10:]}, **FAST)


@pytest.mark.parametrize("change", [{"gold_text": "Another."}, {"gold_strategy": "Others"}])
def test_files_that_disagree_about_gold_are_an_error(change: dict[str, Any]) -> None:
    rows = [replace(row, gold_strategy="Question") for row in random_rows(20)]
    name = next(iter(change))
    with pytest.raises(
        PredictionsError, match=f"a and b differ in the {name} of conversation 'd0', turn 0: compare pre"
    ):
        compare({"a": rows, "b": [replace(row, **change) for row in rows]}, **FAST)


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(EsckitError, match="the metric 'bertscor' is unknown: did you mean bertscore"):
        evaluate(random_rows(5), metrics=["bertscor"])
