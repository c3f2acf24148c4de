"""Counting and F1, against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from esckit.errors import PredictionsError
from esckit.measures.strategy_measures import count_outcomes, score, strategy_by_sixth, treat_unparsed

from .rows import LABELS, random_rows, row

UNPARSED = "Confrontation"
pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, UNPARSED])), min_size=1, max_size=40)


@given(pairs)
def test_figures_equal_sklearn(turns: list[tuple[str, str]]) -> None:
    gold, predicted = zip(*turns, strict=True)
    scores = score(count_outcomes([row(g, p, turn=i) for i, (g, p) in enumerate(turns)]).sum(0))
    options = {"labels": list(LABELS), "zero_division": 0}
    assert scores.q == pytest.approx(f1_score(gold, predicted, average="macro", **options))
    assert scores.q_w == pytest.approx(f1_score(gold, predicted, average="weighted", **options))
    assert scores.accuracy == pytest.approx(accuracy_score(gold, predicted))
    precision, recall, f1, support = precision_recall_fscore_support(gold, predicted, average=None, **options)
    for ours, theirs in zip(
        (scores.precision, scores.recall, scores.f1, scores.gold), (precision, recall, f1, support), strict=True
    ):
        np.testing.assert_allclose(ours, theirs)


def test_macro_f1_averages_over_all_labels() -> None:
    scores = score(count_outcomes([row("Question", "Question")]).sum(0))
    assert scores.q == 1 / 8
    assert scores.q_w == 1


@given(pairs, st.permutations(range(len(LABELS))))
def test_renaming_labels_changes_no_figure(turns: list[tuple[str, str]], order: list[int]) -> None:
    other = dict(zip(LABELS, (LABELS[i] for i in order), strict=True)) | {UNPARSED: UNPARSED}
    before = score(count_outcomes([row(g, p) for g, p in turns]).sum(0))
    after = score(count_outcomes([row(other[g], other[p]) for g, p in turns]).sum(0))
    assert after.q == pytest.approx(float(before.q))
    assert after.q_w == pytest.approx(float(before.q_w))


def test_labels_match_after_trimming_in_any_case() -> None:
    counts = count_outcomes([row("question", "  QUESTION\n"), row("Question", "Questions"), row("Question", None)])
    assert counts[0, 0, 0] == 1
    assert counts[0, -1, 0] == 2


def test_one_matrix_a_dialogue_in_the_order_of_ids() -> None:
    rows = random_rows()
    counts = count_outcomes(rows)
    assert counts.shape == (10, 9, 8)
    assert counts.sum() == len(rows)
    np.testing.assert_array_equal(counts, count_outcomes(rows[::-1]))


def test_unparsed_is_wrong_or_dropped_or_refused() -> None:
    counts = count_outcomes([row("Question", "Question"), row("Question", UNPARSED), row("Others", "Others")]).sum(0)
    assert score(treat_unparsed(counts, "wrong")).accuracy == pytest.approx(2 / 3)
    dropped = score(treat_unparsed(counts, "drop"))
    assert dropped.accuracy == 1
    assert dropped.gold.sum() == 2
    with pytest.raises(PredictionsError, match="1 of 3 predicted strategies are unparsed: mend them, or"):
        treat_unparsed(counts, "refuse")
    parsed = treat_unparsed(counts, "drop")
    np.testing.assert_array_equal(treat_unparsed(parsed, "refuse"), parsed)


def test_gold_outside_the_taxonomy_is_an_error() -> None:
    with pytest.raises(PredictionsError, match="conversation 'd', turn 7: gold_strategy 'Empathy' is no label"):
        count_outcomes([row("Empathy", "Question", dialogue="d", turn=7)])


def test_sixths() -> None:
    labels = ["Question", "Question", "Information", "Others", None]
    shares = strategy_by_sixth(labels, [(1, 12), (1, 12), (2, 12), (12, 12), (12, 12)])
    assert shares.shape == (6, 8)
    assert shares[0, 0] == 1  # floor(6 / 12) = 0
    assert shares[1, LABELS.index("Information")] == 1  # floor(12 / 12) = 1
    assert shares[5, LABELS.index("Others")] == 1  # 6, capped
    assert shares[2:5].sum() == 0
