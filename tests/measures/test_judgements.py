"""Figures of scores: means with intervals over dialogues, tests, known groups."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from esckit.measures.intervals import Draws, resample_totals
from esckit.measures.judgements import Judgement, group_orders, score_tests, scores_by_system

SCALES = {"empathy": (0, 5), "fluency": (0, 5)}
Score = Callable[[int, int], int | None]


def judged(
    system: str, score: Score, *, rubric: str = "empathy", dialogues: int = 30, length: int = 50
) -> list[Judgement]:
    """Four turns a dialogue, scored by (dialogue, turn)."""
    return [
        Judgement(
            system,
            f"d{dialogue}",
            f"t{turn}",
            rubric,
            False,
            "unparsed" if (given := score(dialogue, turn)) is None else "done",
            given,
            length + turn,
        )
        for dialogue in range(dialogues)
        for turn in range(4)
    ]


def test_a_mean_leaves_out_what_has_no_score_and_counts_it() -> None:
    (row,) = scores_by_system(judged("a", lambda d, t: None if t == 0 else 4), SCALES)
    assert (row.mean, row.interval, row.n) == (4, (4, 4), 90)
    assert row.states.to_json() == {"done": 90, "unparsed": 30, "refused": 0, "failed": 0}
    assert row.length == 51.5


def test_nothing_scored_has_no_mean() -> None:
    (row,) = scores_by_system(judged("a", lambda d, t: None), SCALES)
    assert (row.mean, row.interval, row.n) == (None, None, 0)
    assert score_tests(judged("a", lambda d, t: None) + judged("b", lambda d, t: 1)) == []


def test_intervals_resample_dialogues_and_not_turns() -> None:
    """Turns that always agree within their dialogue carry as little as one turn of it."""
    (whole,) = scores_by_system(judged("a", lambda d, t: d % 2 * 5), SCALES)
    (mixed,) = scores_by_system(judged("a", lambda d, t: (d + t) % 2 * 5), SCALES)
    assert whole.mean == mixed.mean == 2.5
    assert mixed.interval == (2.5, 2.5)
    drawn = resample_totals(np.array([[d % 2 * 20.0, 4] for d in np.argsort([f"d{d}" for d in range(30)])]), 1000, 0)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    assert whole.interval == pytest.approx((5 - high, 5 - low))


def test_a_test_takes_the_turns_that_both_systems_have_a_score_for() -> None:
    a = judged("a", lambda d, t: None if d == 0 else 3)
    b = judged("b", lambda d, t: None if d == 1 else 1)[::-1]
    (test,) = score_tests(a + b, draws=Draws(permutations=200, resamples=50))
    assert (test.a, test.b, test.turns, test.dialogues) == ("a", "b", 28 * 4, 28)
    assert (test.difference, test.interval) == (2, (2, 2))
    assert test.p == test.p_holm < 0.01


def test_tests_of_all_qualities_are_corrected_together() -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 2, size=(2, 30, 4))
    rows = judged("a", lambda d, t: 2) + judged("b", lambda d, t: 1 + int(noise[0, d, t]))
    rows += judged("a", lambda d, t: 2, rubric="fluency")
    rows += judged("b", lambda d, t: 2 + (int(noise[1, d, t]) if d < 2 else 0), rubric="fluency")
    first, second = score_tests(rows, draws=Draws(permutations=500, resamples=50))
    assert (first.rubric, second.rubric) == ("empathy", "fluency")
    assert first.p < second.p
    assert first.p_holm == pytest.approx(2 * first.p)
    assert second.p_holm == second.p


def test_systems_that_are_alike_are_not_told_apart() -> None:
    random = np.random.default_rng(1)
    scores = random.integers(0, 6, size=(2, 30, 4))
    rows = [row for k, name in enumerate("ab") for row in judged(name, lambda d, t, k=k: int(scores[k, d, t]))]  # type: ignore[misc]
    (test,) = score_tests(rows, draws=Draws(permutations=500, resamples=200))
    assert test.p > 0.05
    assert test.interval[0] < 0 < test.interval[1]


def test_known_groups_may_stand_in_other_dialogues_and_one_may_be_missing() -> None:
    random = np.random.default_rng(2)
    low, high = random.integers(0, 3, size=(30, 4)), random.integers(3, 6, size=(30, 4))
    gold = judged("gold", lambda d, t: int(high[d, t]))
    failed = [
        Judgement("failed", f"failed:{row.conversation_id}", row.turn_id, "empathy", False, "done", row.score, 5)
        for row in judged("x", lambda d, t: int(low[d, t]))
    ]
    like = judged("like gold", lambda d, t: int(high[29 - d, t]))
    stock = judged("stock", lambda d, t: None)
    pairs = [("gold", "failed"), ("failed", "gold"), ("gold", "like gold"), ("gold", "stock"), ("gold", "shuffled")]
    rows = group_orders(gold + failed + like + stock, {"empathy": pairs}, draws=Draws(resamples=200))
    assert [row.found for row in rows] == ["in order", "reversed", "not told apart", "not judged"]
    assert rows[0].difference == pytest.approx(high.mean() - low.mean())


@pytest.mark.parametrize("shared", [0, 1])
def test_no_resample_lacks_a_known_group(shared: int) -> None:
    """Scores that never vary leave no doubt, however few dialogues there are of each group."""
    gold = judged("gold", lambda d, t: 3, dialogues=1 + shared)
    failed = [replace(row, system="failed", conversation_id=f"{place // 4}") for place, row in enumerate(gold[:4])]
    failed += [replace(row, system="failed") for row in gold[4:]]
    (row,) = group_orders(gold + failed, {"empathy": [("gold", "failed")]}, draws=Draws(resamples=200))
    assert (row.difference, row.interval, row.found) == (0, (0, 0), "not told apart")
