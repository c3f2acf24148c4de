"""A judge against people."""

import numpy as np
import pytest
from scipy import stats

from esckit.errors import EsckitError
from esckit.measures.people import JudgedItem, against_people, pearson, spearman
from esckit.measures.ratings import Ratings

RANDOM = np.random.default_rng(0)
DIALOGUES = [f"d{place // 4}" for place in range(80)]


def test_correlations_are_scipys_with_ties_too() -> None:
    first = RANDOM.integers(0, 6, 80).astype(np.float64)
    second = first + RANDOM.integers(-2, 3, 80)
    for ours, theirs in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        found = ours(first, second, DIALOGUES, resamples=200)
        assert found is not None
        assert found.value == pytest.approx(theirs(first, second)[0])
        assert found.interval.low < found.value < found.interval.high <= 1


def test_intervals_resample_dialogues() -> None:
    """Four copies of an item in one dialogue carry no more than the item."""
    first, noise = RANDOM.normal(size=20), RANDOM.normal(size=20)
    second = first + noise
    once = pearson(first, second, [f"d{place}" for place in range(20)])
    copied = pearson(np.repeat(first, 4), np.repeat(second, 4), DIALOGUES)
    apart = pearson(np.repeat(first, 4), np.repeat(second, 4), [str(place) for place in range(80)])
    assert once is not None
    assert copied is not None
    assert apart is not None
    width = [found.interval.high - found.interval.low for found in (once, copied, apart)]
    assert width[1] > 1.5 * width[2]
    assert width[1] == pytest.approx(width[0], rel=0.3)
    assert width[0] == pytest.approx(2 * 1.96 * (1 - once.value**2) / np.sqrt(19), rel=0.4)  # its large-sample width


@pytest.mark.parametrize("first", [[1.0, 2.0], [2.0, 2.0, 2.0]])
def test_no_correlation_of_two_items_or_of_what_never_varies(first: list[float]) -> None:
    second = np.arange(len(first), dtype=np.float64)
    assert pearson(np.array(first), second, ["d"] * len(first)) is None
    assert spearman(second, np.array(first), ["d"] * len(first)) is None


def ratings(*rows: tuple[float | None, float | None]) -> Ratings:
    return Ratings([f"i{place}" for place in range(len(rows))], ["ann", "bob"], [list(row) for row in rows])


def test_the_judge_is_compared_with_each_rater_and_with_their_mean() -> None:
    judged = {f"i{place}": JudgedItem(place % 4, f"d{place}") for place in range(12)}
    people = ratings(*((float(place % 4), None if place == 3 else float(place % 2)) for place in range(12)), (5.0, 5.0))
    found = against_people(judged, people, resamples=100)
    assert found["items"] == 12
    ann, bob = found["cohen"]
    assert (ann["rater"], ann["items"], ann["plain"]["value"], ann["quadratic"]["value"]) == ("ann", 12, 1, 1)
    assert (bob["rater"], bob["items"]) == ("bob", 11)
    assert bob["plain"]["value"] < 0.5
    means = [np.mean([r for r in row if r is not None]) for row in people.table[:12]]
    assert found["pearson"]["value"] == pytest.approx(stats.pearsonr([p % 4 for p in range(12)], means)[0])
    assert found["people"]["raters"] == ["ann", "bob"]


def test_words_and_strangers_are_refused() -> None:
    judged = {"i0": JudgedItem(1, "d")}
    with pytest.raises(EsckitError, match="rate on the judge's scale"):
        against_people(judged, Ratings(["i0"], ["ann"], [["good"]]))
    with pytest.raises(EsckitError, match="no rated item was judged"):
        against_people(judged, Ratings(["other"], ["ann"], [[1.0]]))
