"""Calibration: what it promises of counts and choices, on made-up predictions."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from esckit.planning.calibration import Calibration, fit_calibration, log_normalise

K = 5


def predictions(turns: int = 4000, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Log-probabilities of a planner that is right about something, too sure of it, and fond of label 0; and gold."""
    random = np.random.default_rng(seed)
    gold = random.choice(K, size=turns, p=[0.3, 0.25, 0.2, 0.15, 0.1])
    scores = 1.2 * np.eye(K)[gold] + random.normal(size=(turns, K)) + np.array([1.5, 0, 0, 0, -1])
    return log_normalise(3 * scores), gold


def counts(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.bincount(scores.argmax(1), minlength=K)


def test_strategies_are_said_as_often_as_in_gold() -> None:
    scores, gold = predictions()
    wanted = np.bincount(gold, minlength=K)
    assert np.abs(counts(scores) - wanted).sum() > 500
    calibrated = fit_calibration(scores, gold).apply(scores)
    assert np.abs(counts(calibrated) - wanted).sum() <= 0.005 * len(gold)
    np.testing.assert_allclose(np.exp(calibrated).sum(1), 1)


def test_what_is_learnt_holds_for_other_turns() -> None:
    scores, gold = predictions(seed=1)
    calibrated = fit_calibration(*predictions(seed=2)).apply(scores)
    assert np.abs(counts(calibrated) - np.bincount(gold, minlength=K)).sum() <= 0.1 * len(gold)


def test_counts_can_be_asked_for() -> None:
    scores, gold = predictions()
    wanted = np.array([0.0, 1000, 1000, 1000, 1000])
    found = counts(fit_calibration(scores, gold, wanted).apply(scores))
    assert np.abs(found - wanted).sum() <= 0.005 * len(gold)


def test_the_temperature_is_the_likeliest() -> None:
    scores, gold = predictions()
    temperature = fit_calibration(scores, gold).temperature
    losses = [-log_normalise(scores / t)[np.arange(len(gold)), gold].mean() for t in np.linspace(0.5, 10, 300)]
    assert temperature == pytest.approx(np.linspace(0.5, 10, 300)[int(np.argmin(losses))], abs=0.05)
    assert temperature > 2, "the planner was three times too sure"


def test_without_offsets_no_choice_changes() -> None:
    scores, _ = predictions()
    np.testing.assert_array_equal(Calibration(2.5, (0.0,) * K).apply(scores).argmax(1), scores.argmax(1))
    np.testing.assert_allclose(Calibration.none(K).apply(scores), scores)


def test_each_turn_is_decided_alone() -> None:
    scores, gold = predictions()
    calibration = fit_calibration(scores, gold)
    np.testing.assert_array_equal(calibration.apply(scores)[7], calibration.apply(scores[7]))


def test_nothing_to_fit_to_changes_nothing() -> None:
    assert fit_calibration(np.zeros((0, K)), np.zeros(0, dtype=np.intp)) == Calibration.none(K)


def test_a_calibration_survives_json() -> None:
    calibration = fit_calibration(*predictions(300))
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration
    for broken in ({"temperature": 0, "offsets": [0]}, {"temperature": 1, "offsets": [float("nan")]}):
        with pytest.raises(ValueError, match="temperature is above 0"):
            Calibration.from_json(broken)
