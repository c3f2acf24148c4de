"""The bootstrap over clusters."""

import numpy as np
import pytest

from esckit.measures import Interval
from esckit.measures.intervals import Draws, basic_interval, mean_intervals, resample_totals


def test_totals_keep_shape_and_follow_the_seed() -> None:
    totals = np.arange(24).reshape(4, 2, 3)
    first = resample_totals(totals, 50, seed=1)
    assert first.shape == (50, 2, 3)
    np.testing.assert_array_equal(first, resample_totals(totals, 50, seed=1))
    assert (first != resample_totals(totals, 50, seed=2)).any()


def test_whole_clusters_are_drawn() -> None:
    totals = np.array([[1, 10], [2, 20], [3, 30]])
    sums = resample_totals(totals, 200, seed=0)
    np.testing.assert_array_equal(sums[:, 1], 10 * sums[:, 0])
    assert sums[:, 0].min() == 3
    assert sums[:, 0].max() == 9


def test_one_cluster_or_equal_clusters_do_not_vary() -> None:
    assert (resample_totals(np.array([5]), 20, seed=0) == 5).all()
    assert (resample_totals(np.full((7, 2), 3), 20, seed=0) == 21).all()


def test_basic_interval_mirrors_the_replicates() -> None:
    replicates = np.linspace(0.3, 0.5, 1001)  # quantiles .305 and .495
    interval = basic_interval(0.35, replicates)
    assert isinstance(interval, Interval)
    assert interval == pytest.approx((0.205, 0.395))


def test_ends_stay_in_the_figures_range() -> None:
    assert basic_interval(0.05, np.linspace(0, 0.2, 101)).low == 0
    assert basic_interval(0.95, np.linspace(0.8, 1, 101), high=1).high == 1


def test_an_estimate_lies_in_its_interval() -> None:
    for replicates in (np.linspace(0.5, 0.6, 101), np.linspace(0.0, 0.1, 101)):
        low, high = basic_interval(0.3, replicates)
        assert low <= 0.3 <= high


def test_a_mean_is_at_least_the_measure_s_least_value() -> None:
    """Of shares that are mostly 0 the mirrored interval would go below 0; a measure may itself go below 0."""
    rare = np.array([1.0] + [0.0] * 19)
    dialogues = [str(place) for place in range(20)]
    found = mean_intervals({"share": rare, "cosine": rare - 0.5}, dialogues, draws=Draws(resamples=500, seed=0))
    assert found["share"] is not None
    assert found["cosine"] is not None
    assert found["share"][0] == 0
    assert found["cosine"][0] == -0.5
    assert found["share"][1] - found["cosine"][1] == pytest.approx(0.5)


def test_covers_a_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        clusters = rng.normal(loc=2, size=(60, 1)) + rng.normal(scale=0.3, size=(60, 5))  # 5 turns share an effect
        totals = np.stack([clusters.sum(1), np.full(60, 5.0)], axis=1)
        replicates = resample_totals(totals, 300, seed)
        low, high = basic_interval(float(clusters.mean()), replicates[:, 0] / replicates[:, 1])
        hits += low <= 2 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_means_are_resampled_by_dialogues_and_leave_out_what_has_no_value() -> None:
    random = np.random.default_rng(0)
    level = random.uniform(0.3, 0.7, 60)  # of each dialogue
    values = np.repeat(level, 5) + random.normal(0, 0.01, 300)
    dialogues = [f"d{place // 5}" for place in range(300)]
    some = np.where(np.arange(300) % 5 == 0, values, np.nan)
    found = mean_intervals(
        {"all": values, "some": some, "none": values * np.nan}, dialogues, draws=Draws(resamples=2000, seed=0)
    )
    for name in ("all", "some"):
        low, high = found[name] or (0, 0)
        assert high - low == pytest.approx(2 * 1.96 * level.std() / np.sqrt(60), rel=0.15)  # dialogues, not responses
        assert low < np.nanmean(values) < high
    assert found["none"] is None
    (low, _) = mean_intervals({"below": values - 0.9}, dialogues, draws=Draws(resamples=50, seed=0))["below"] or (0, 0)
    assert low < -0.3
    assert mean_intervals({}, [], draws=Draws(resamples=10, seed=0)) == {}
