"""Systems that were trained several times against one: means over repetitions, one test each, Holm over systems."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from esckit.errors import PredictionsError
from esckit.measures import Prediction, compare, evaluate
from esckit.measures.intervals import Draws
from esckit.measures.repeated import RepeatedFigure, compare_repeated, mean_advantage
from esckit.strategy import ESCONV

WORDS = ["i", "see", "you", "are", "sad", "and", "tired", "today", "what", "would", "help", "now", "tell", "me"]
DRAWS = Draws(seed=1, resamples=300, permutations=999)


def predicted(seed: int, right: float = 0.3, dialogues: int = 12) -> list[Prediction]:
    """Replies that choose gold's strategy, and repeat gold's words, that often."""
    gold, draw = random.Random("gold"), random.Random(seed)
    rows = []
    for dialogue in range(dialogues):
        for turn in range(4):
            strategy, text = gold.choice(ESCONV.labels), " ".join(gold.choices(WORDS, k=8))
            said = strategy if draw.random() < right else draw.choice(ESCONV.labels)
            words = text if draw.random() < right else " ".join(draw.choices(WORDS, k=8))
            told: dict[str, Any] = {"conversation_id": f"d{dialogue}", "turn_id": str(turn), "gold_strategy": strategy}
            rows.append(Prediction(**told, predicted_strategy=said, gold_text=text, predicted_text=words))
    return rows


def by_metric(figures: Sequence[RepeatedFigure]) -> dict[str, RepeatedFigure]:
    return {each.metric: each for each in figures}


def test_one_repetition_is_what_compare_says() -> None:
    one, other = predicted(1, 0.8), predicted(2)
    found = by_metric(compare_repeated({"a": [one]}, other, draws=DRAWS)["a"])
    tests = compare({"a": one, "b": other}, seed=1, resamples=300, permutations=999).comparisons
    assert {test.metric for test in tests} < found.keys()
    for test in tests:
        figure = found[test.metric]
        assert figure.difference == pytest.approx(test.difference)
        assert figure.p == test.p
        assert figure.interval == pytest.approx(test.interval)
    assert found["bleu2_utterance"].difference > 0


def test_repetitions_are_averaged_and_tested_together() -> None:
    ways = {"good": [predicted(seed, 0.7) for seed in (1, 2, 3)], "none": [predicted(seed) for seed in (4, 5, 6)]}
    other = predicted(7)
    found = {name: by_metric(own) for name, own in compare_repeated(ways, other, draws=DRAWS).items()}
    for name, repetitions in ways.items():
        singles = [evaluate(rows) for rows in repetitions]
        q, text = found[name]["q"], found[name]["distinct2_corpus"]
        assert q.values == pytest.approx([single.strategy.q for single in singles if single.strategy])
        assert text.values == pytest.approx([single.text.distinct2_corpus for single in singles if single.text])
        assert q.mean == pytest.approx(sum(q.values) / 3)
        assert q.difference == pytest.approx(q.mean - q.against)
        assert (text.interval, text.p, text.p_holm) == (None, None, None)
    good, none = found["good"]["rouge_l_utterance"], found["none"]["rouge_l_utterance"]
    assert good.p is not None
    assert none.p is not None
    assert good.p < 0.01 < 0.05 < none.p
    assert good.p_holm == pytest.approx(2 * good.p), "over two ways, this figure alone"
    assert none.p_holm == none.p


def test_more_repetitions_do_not_make_more_turns() -> None:
    """The same predictions three times are as certain as once."""
    one, other = predicted(1, 0.5), predicted(2)
    single, thrice = (by_metric(compare_repeated({"a": [one] * n}, other, draws=DRAWS)["a"]) for n in (1, 3))
    for metric, figure in single.items():
        again = thrice[metric]
        assert again.p == (figure.p if figure.p is None else pytest.approx(figure.p, abs=0.01))
        assert again.interval == (figure.interval if figure.interval is None else pytest.approx(figure.interval))


def test_repetitions_of_different_turns_are_refused() -> None:
    rows = predicted(1)
    with pytest.raises(PredictionsError, match="the repetitions of a predict different turns"):
        compare_repeated({"a": [rows, rows[:-1]]}, predicted(2), draws=DRAWS)
    changed = [replace(rows[0], gold_text="another"), *rows[1:]]
    with pytest.raises(PredictionsError, match="differ in the gold_text"):
        compare_repeated({"a": [changed]}, predicted(2), draws=DRAWS)


def test_an_advantage_is_a_rate_with_its_test() -> None:
    turns = [(f"d{d}", str(t)) for d in range(10) for t in range(3)]
    always = mean_advantage([dict.fromkeys(turns, 1.0)] * 2, DRAWS)
    assert always is not None
    assert (always.rate, always.values, always.turns, always.dialogues) == (1.0, [1.0, 1.0], 30, 10)
    assert always.p < 0.01
    even = mean_advantage([{turn: (-1.0) ** place for place, turn in enumerate(turns)}], DRAWS)
    assert even is not None
    assert (even.rate, even.p > 0.2) == (0.5, True)
    assert even.interval.low < 0.5 < even.interval.high
    half = mean_advantage([dict.fromkeys(turns, 1.0), dict.fromkeys(turns, 0.0)], DRAWS)
    assert half is not None
    assert (half.rate, half.values) == (0.75, [1.0, 0.5])
    assert mean_advantage([{}], DRAWS) is None
