"""A judge against people."""

import numpy as np
import pytest
from scipy import stats

from esckit.errors import EsckitError
from esckit.measures.intervals import Draws
from esckit.measures.judgements import Judgement
from esckit.measures.ratings import JudgedItem, Ratings, against_people, pearson, people_wins, spearman

RANDOM = np.random.default_rng(0)
DIALOGUES = [f"d{place // 4}" for place in range(80)]


def test_correlations_are_scipys_with_ties_too() -> None:
    first = RANDOM.integers(0, 6, 80).astype(np.float64)
    second = first + RANDOM.integers(-2, 3, 80)
    for ours, theirs in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        found = ours(first, second, DIALOGUES, draws=Draws(resamples=200))
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
    found = against_people(judged, people, draws=Draws(resamples=100))
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


def rated(
    *turns: tuple[tuple[float | None, float | None], tuple[float | None, float | None]],
) -> list[dict[str, object]]:
    """Each turn: what ann and bob gave one's reply, then two's; every turn in a dialogue of its own."""
    replies = {
        f"{system}{place}": Judgement(system, f"d{place}", "t", "empathy", False, "done", 3, 10)
        for place in range(len(turns))
        for system in ("one", "two")
    }
    table = Ratings(list(replies), ["ann", "bob"], [list(row) for turn in turns for row in turn])
    return people_wins(replies, table, draws=Draws(permutations=500, resamples=100))


def test_people_prefer_by_their_own_two_ratings() -> None:
    # Ann is strict and bob mild: both prefer one's reply at the first turn, bob alone at the second.
    (row,) = rated(((2.0, 5.0), (1.0, 4.0)), ((1.0, 4.0), (1.0, 3.0)), ((0.0, 2.0), (1.0, 2.0)))
    assert [row[key] for key in ("quality", "a", "b", "turns", "verdicts")] == ["empathy", "one", "two", 3, 6]
    assert (row["wins"], row["ties"], row["losses"]) == (3, 2, 1)
    assert row["win_rate"] == pytest.approx(4 / 6)
    # Pairs of raters that differ: 2 of 3. Expected 1 - (3/6)^2 - (2/6)^2 - (1/6)^2 = 22/36. Kappa 1 - (2/3) / (22/36).
    assert row["fleiss"]["value"] == pytest.approx(1 - (2 / 3) / (22 / 36))  # type: ignore[index]


def test_a_turn_of_which_a_person_rated_one_side_has_no_verdict_of_theirs() -> None:
    (row,) = rated(((2.0, None), (1.0, 4.0)), ((3.0, 3.0), (None, None)))
    assert (row["turns"], row["verdicts"], row["wins"]) == (1, 1, 1)
    assert row["fleiss"] is None
    assert rated(((2.0, 1.0), (None, None))) == []


def test_many_equal_verdicts_are_no_chance() -> None:
    (clear,) = rated(*[((4.0, 4.0), (2.0, 3.0))] * 12)
    (even,) = rated(*[((4.0, 1.0), (2.0, 3.0))] * 12)
    assert float(str(clear["p_holm"])) < 0.01
    assert float(str(even["p_holm"])) == 1
