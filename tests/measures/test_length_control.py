"""What length explains: simulated judges whose taste is known, and other implementations of the same fits."""

import numpy as np
import pytest
from scipy.optimize import minimize

from esckit.measures.intervals import Draws, FloatArray, IntArray
from esckit.measures.length_control import difference_at_equal_length, longer_wins, win_rate_at_equal_length

TURNS = 400


def turns(seed: int = 0, lean: float = 20.0) -> tuple[FloatArray, IntArray, np.random.Generator]:
    """Lengths of which the first system's are longer by ``lean`` on average, in dialogues of ten turns."""
    random = np.random.default_rng(seed)
    return random.normal(lean, 40, TURNS).round(), np.repeat(np.arange(TURNS // 10), 10), random


def test_a_judge_of_length_alone_is_told_by_the_baseline_and_leaves_nothing_at_equal_length() -> None:
    longer, dialogues, random = turns()
    gains = np.sign(longer + random.normal(0, 20, TURNS))
    found = longer_wins(gains, longer, dialogues)
    assert found.share is not None
    assert found.interval is not None
    assert found.share > 0.85
    assert found.interval[0] < found.share < found.interval[1]
    assert gains.mean() > 0.25
    left = difference_at_equal_length(gains, longer, dialogues)
    assert left is not None
    assert left.interval[0] < 0 < left.interval[1]
    assert left.slope > 0.5
    rate = win_rate_at_equal_length((gains + 1) / 2, longer, dialogues)
    assert rate is not None
    assert rate.interval[0] < 0.5 < rate.interval[1]
    assert not rate.extrapolated


def test_a_judge_of_quality_alone_is_left_as_it_is() -> None:
    longer, dialogues, random = turns()
    outcomes = (random.random(TURNS) < 0.7).astype(np.float64)
    baseline = longer_wins(outcomes - 0.5, longer, dialogues)
    assert baseline.share is not None
    assert baseline.share < 0.7
    rate = win_rate_at_equal_length(outcomes, longer, dialogues)
    assert rate is not None
    assert abs(rate.value - 0.7) < 0.06
    assert abs(rate.slope) < 0.5


def test_ties_and_equal_lengths_decide_nothing() -> None:
    gains = np.array([1.0, -1.0, 0.0, 1.0])
    found = longer_wins(gains, np.array([5.0, 5.0, 5.0, 0.0]), np.arange(4))
    assert (found.n, found.share) == (2, 0.5)
    nothing = longer_wins(np.zeros(4), np.ones(4), np.arange(4))
    assert nothing.to_json() == {"n": 0, "share": None, "interval": None}


def test_least_squares_is_numpys() -> None:
    longer, dialogues, random = turns(3)
    gains = random.normal(0.3, 1, TURNS) + 0.01 * longer
    found = difference_at_equal_length(gains, longer, dialogues, draws=Draws(resamples=10))
    assert found is not None
    slope, value = np.polyfit(np.tanh(longer / longer.std()), gains, 1)
    assert [found.value, found.slope] == pytest.approx([value, slope], abs=1e-6)


@pytest.mark.parametrize("always", [False, True])
def test_the_win_rate_is_the_maximum_of_the_penalised_likelihood(always: bool) -> None:
    """Log-likelihood plus half the log-determinant of the information (Firth 1993), maximised by scipy."""
    longer, dialogues, random = turns(4)
    longer, dialogues = longer[:30], dialogues[:30]
    outcomes = np.ones(30) if always else random.choice([0, 0.5, 1], 30)
    z = np.tanh(longer / longer.std())
    features = np.stack([np.ones(30), z], axis=1)

    def loss(weights: FloatArray) -> float:
        p = 1 / (1 + np.exp(-features @ weights))
        information = features.T @ (features * (p * (1 - p))[:, None])
        likelihood = (outcomes * np.log(p) + (1 - outcomes) * np.log(1 - p)).sum()
        return float(-likelihood - 0.5 * np.linalg.slogdet(information)[1])

    best = minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-8}).x
    found = win_rate_at_equal_length(outcomes, longer, dialogues, draws=Draws(resamples=10))
    assert found is not None
    assert found.value == pytest.approx(1 / (1 + np.exp(-best[0])), abs=1e-5)
    assert found.slope == pytest.approx(best[1], abs=1e-4)
    assert not always or 0.9 < found.value < 1


def test_where_lengths_do_not_differ_the_plain_figures_stand() -> None:
    outcomes, dialogues = np.array([1.0, 1.0, 0.0, 1.0] * 50), np.arange(200)
    rate = win_rate_at_equal_length(outcomes, np.zeros(200), dialogues, draws=Draws(resamples=10))
    gain = difference_at_equal_length(outcomes, np.zeros(200), dialogues, draws=Draws(resamples=10))
    assert rate is not None
    assert rate.value == pytest.approx(0.75, abs=2e-3)
    assert gain is not None
    assert gain.value == pytest.approx(0.75)


def test_lengths_that_always_differ_by_the_same_tell_nothing() -> None:
    gains, dialogues = np.array([1.0, -1.0, 1.0]), np.arange(3)
    assert difference_at_equal_length(gains, np.full(3, 7.0), dialogues) is None
    assert win_rate_at_equal_length(gains, np.full(3, 7.0), dialogues) is None


def test_an_estimate_outside_the_data_is_marked() -> None:
    longer, dialogues, random = turns(5, lean=500.0)
    found = difference_at_equal_length(random.normal(0, 1, TURNS), longer, dialogues, draws=Draws(resamples=10))
    assert found is not None
    assert found.extrapolated
