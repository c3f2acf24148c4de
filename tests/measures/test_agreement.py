"""Kappas and alpha against statsmodels, scikit-learn, published examples and brute force."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_fleiss

from esckit.errors import EsckitError
from esckit.measures.agreement import LEVELS, Level, cohen_kappa, fleiss_kappa, krippendorff_alpha
from esckit.measures.intervals import Draws, IntArray

from .coverage import COEFFICIENTS, RATERS, Raters, agreement_coverage

FLEISS_1971 = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)
KRIPPENDORFF_2011: list[list[int | None]] = [
    [1, 1, None, 1],
    [2, 2, 3, 2],
    [3, 3, 3, 3],
    [3, 3, 3, 3],
    [2, 2, 2, 2],
    [1, 2, 3, 4],
    [4, 4, 4, 4],
    [1, 1, 2, 1],
    [2, 2, 2, 2],
    [None, 5, 5, 5],
    [None, None, 1, 1],
    [None, 3, None, None],
]
scores = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=20)
tables = st.lists(st.lists(st.none() | st.integers(1, 4), min_size=3, max_size=3), min_size=1, max_size=8)


def test_fleiss_published_example() -> None:
    assert fleiss_kappa(FLEISS_1971).value == pytest.approx(0.210, abs=5e-4)


@given(st.integers(2, 5).flatmap(lambda n: arrays(np.int64, (7, n), elements=st.integers(0, 2))))
def test_fleiss_equals_statsmodels(ratings: IntArray) -> None:
    counts = np.stack([(ratings == category).sum(1) for category in range(3)], axis=1)
    assume(len(np.unique(ratings)) > 1)
    assert fleiss_kappa(counts, draws=Draws(resamples=5)).value == pytest.approx(float(statsmodels_fleiss(counts)))


@given(scores)
def test_cohen_equals_sklearn(pairs: list[tuple[int, int]]) -> None:
    first, second = zip(*pairs, strict=True)
    assume(len({*first, *second}) > 1)
    labels = list(range(1, 5))
    plain = cohen_kappa(first, second, draws=Draws(resamples=5)).value
    assert plain == pytest.approx(cohen_kappa_score(first, second, labels=labels))
    quadratic = cohen_kappa(first, second, quadratic=True, draws=Draws(resamples=5)).value
    assert quadratic == pytest.approx(cohen_kappa_score(first, second, labels=labels, weights="quadratic"))


@pytest.mark.parametrize(("level", "expected"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorff_published_example(level: Level, expected: float) -> None:
    assert krippendorff_alpha(KRIPPENDORFF_2011, level).value == pytest.approx(expected, abs=5e-4)


@given(tables, st.sampled_from(["nominal", "interval"]))
def test_krippendorff_equals_brute_force(table: list[list[int | None]], level: Level) -> None:
    """1 - D_o / D_e from all pairs of ratings within items and within the whole, each written out."""
    items = [[rating for rating in item if rating is not None] for item in table]
    items = [item for item in items if len(item) > 1]
    assume(items)

    def distance(a: int, b: int) -> float:
        return float(a != b) if level == "nominal" else float((a - b) ** 2)

    everything = [rating for item in items for rating in item]
    observed = sum(distance(a, b) / (len(item) - 1) for item in items for a, b in permutations(item, 2))
    expected = sum(distance(a, b) for a, b in permutations(everything, 2)) / (len(everything) - 1)
    value = krippendorff_alpha(table, level, draws=Draws(resamples=5)).value
    assert value == pytest.approx(1 - observed / expected if expected else 1)


def test_quadratic_kappa_and_interval_alpha_agree_for_many_items() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(1, 6, size=3000)
    second = np.clip(first + rng.integers(-1, 2, size=3000), 1, 5)
    pairs = [[int(a), int(b)] for a, b in zip(first, second, strict=True)]
    kappa = cohen_kappa(*zip(*pairs, strict=True), quadratic=True, draws=Draws(resamples=5)).value
    assert krippendorff_alpha(pairs, "interval", draws=Draws(resamples=5)).value == pytest.approx(kappa, abs=2e-3)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_perfect_agreement_is_1_and_certain_only_in_one_category(ratings: list[int]) -> None:
    counts = np.stack([[3 * (rating == category) for category in range(4)] for rating in ratings])
    found = [
        fleiss_kappa(counts, draws=Draws(resamples=20)),
        cohen_kappa(ratings, ratings, draws=Draws(resamples=20)),
        cohen_kappa(ratings, ratings, quadratic=True, draws=Draws(resamples=20)),
        *(krippendorff_alpha([[r, r] for r in ratings], level, draws=Draws(resamples=20)) for level in LEVELS),
    ]
    for coefficient in found:
        assert coefficient.value == coefficient.interval.high == 1
        assert (coefficient.interval.low == 1) == (len(set(ratings)) == 1)


@given(tables)
def test_a_coefficient_lies_in_its_interval(table: list[list[int | None]]) -> None:
    assume(any(sum(rating is not None for rating in item) > 1 for item in table))
    found = [krippendorff_alpha(table, level, draws=Draws(resamples=20)) for level in LEVELS]
    pairs = [item[:2] for item in table]
    if any(None not in pair for pair in pairs):
        found.append(cohen_kappa(*zip(*pairs, strict=True), draws=Draws(resamples=20)))
    full = [[rating or 1 for rating in item] for item in table]
    found.append(
        fleiss_kappa(np.array([[item.count(c) for c in range(1, 5)] for item in full]), draws=Draws(resamples=20))
    )
    for value, (low, high) in found:
        assert -1 <= low <= value <= high <= 1 or value < -1


@given(tables, st.permutations(range(3)))
def test_order_of_raters_and_scale_of_ratings_change_nothing(table: list[list[int | None]], order: list[int]) -> None:
    assume(any(sum(rating is not None for rating in item) > 1 for item in table))
    for level in LEVELS:
        before = krippendorff_alpha(table, level, draws=Draws(resamples=5))
        swapped = [[item[i] for i in order] for item in table]
        scaled = [[None if rating is None else 10 * rating - 3 for rating in item] for item in swapped]
        assert krippendorff_alpha(scaled, level, draws=Draws(resamples=5)).value == pytest.approx(before.value)
        assert -1 <= before.interval.low <= before.interval.high <= 1


def test_ordinal_needs_only_the_order() -> None:
    stretched = [[None if r is None else r**3 for r in item] for item in KRIPPENDORFF_2011]
    before, after = (krippendorff_alpha(table, "ordinal").value for table in (KRIPPENDORFF_2011, stretched))
    assert after == pytest.approx(before)


def test_interval_covers_and_narrows() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for n in (50, 800):
        first = rng.integers(0, 3, size=n)
        second = np.where(rng.random(n) < 0.6, first, rng.integers(0, 3, size=n))
        value, (low, high) = cohen_kappa(first.tolist(), second.tolist())
        assert low < 0.6 < high  # kappa of this mixture
        assert low < value < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", COEFFICIENTS)
@pytest.mark.parametrize("raters", RATERS, ids=lambda raters: f"{min(raters.shares)}-{raters.kappa}-{raters.items}")
def test_intervals_hold_the_truth_where_a_label_is_rare(name: str, raters: Raters) -> None:
    assert agreement_coverage(name, raters, repetitions=300, seed=7) >= 0.86


def test_bad_input() -> None:
    with pytest.raises(EsckitError, match="Fleiss' kappa needs items that are all rated equally often, at least twice"):
        fleiss_kappa(np.array([[2, 0], [1, 2]]))
    with pytest.raises(EsckitError, match="Fleiss' kappa needs"):
        fleiss_kappa(np.array([[1, 0], [0, 1]]))
    with pytest.raises(EsckitError, match="Cohen's kappa needs items that both raters rated: there is none"):
        cohen_kappa([1, None], [None, 2])
    with pytest.raises(EsckitError, match="Krippendorff's alpha needs items with at least two ratings: there is none"):
        krippendorff_alpha([[1, None], [None, 2]])
    with pytest.raises(EsckitError, match="needs ratings that are numbers: use the nominal one for names"):
        cohen_kappa(["a", "b"], ["a", "a"], quadratic=True)
    with pytest.raises(EsckitError, match="needs ratings that are numbers"):
        krippendorff_alpha([["a", "b"]], "ordinal")
