"""Figures of pairwise verdicts in both orders."""

import pytest

from esckit.measures.intervals import Draws
from esckit.measures.judgements import TIE, Contest, pairwise_tests, strengths

FAST = Draws(permutations=200, resamples=100)


def contest(
    place: int, forth: str | None, back: str | None, *, second: str = "b", lengths: tuple[int, int] = (30, 20)
) -> Contest:
    states = ("done" if forth else "refused", "done" if back else "refused")
    return Contest("a", second, f"d{place // 2}", f"t{place}", states, (forth, back), lengths)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("forth", "back", "winner", "flipped"),
    [
        ("a", "a", "a", False),
        ("b", "b", "b", False),
        (TIE, TIE, TIE, False),
        ("a", "b", TIE, True),
        ("b", "a", TIE, True),
        ("a", TIE, TIE, False),
        (None, "a", TIE, False),
    ],
)
def test_only_what_both_orders_say_is_a_win(forth: str | None, back: str | None, winner: str, flipped: bool) -> None:
    each = contest(0, forth, back)
    assert (each.winner, each.flipped, each.decided) == (winner, flipped, forth is not None)


def test_rates_count_what_they_say() -> None:
    verdicts = [("a", "a")] * 5 + [("b", "b")] * 2 + [("a", "b")] * 2 + [("a", TIE)] + [(TIE, TIE)] + [("a", None)]
    contests = [contest(place, *verdict) for place, verdict in enumerate(verdicts)]
    contests.append(Contest("a", "b", "d0", "same", ("done", "done"), (TIE, TIE), (5, 5), asked=False))
    (row,) = pairwise_tests(contests, FAST)
    assert (row.turns, row.left_out, row.equal) == (12, 1, 1)
    assert (row.wins, row.losses, row.ties) == (5, 2, 5)
    assert row.win_rate == pytest.approx((5 + 2.5) / 12)
    assert row.flip_rate == pytest.approx(2 / 11)
    assert row.wavered == pytest.approx(1 / 11)
    assert row.states.to_json() == {"done": 23, "unparsed": 0, "refused": 1, "failed": 0}
    # Of verdicts that name a system: a shown first is named 9 times forth, b shown first 4 times back.
    assert row.first_share == pytest.approx((5 + 2 + 1 + 1 + 2 + 2) / (9 + 2 + 5 + 2 + 2))
    assert row.longer_wins is not None
    assert row.longer_wins.n == 7
    assert row.longer_wins.share == pytest.approx(5 / 7)


def test_a_judge_that_takes_what_stands_first_finds_no_winner() -> None:
    (row,) = pairwise_tests([contest(place, "a", "b") for place in range(20)], FAST)
    assert (row.win_rate, row.flip_rate, row.first_share) == (0.5, 1, 1)
    assert row.p == 1


def test_pairs_are_tested_together() -> None:
    contests = [contest(place, "a", "a", lengths=(place, 12)) for place in range(24)]
    contests += [contest(place, *(("a",) * 2 if place % 4 < 2 else ("c",) * 2), second="c") for place in range(24)]
    first, second = pairwise_tests(contests, FAST)
    assert first.p is not None
    assert first.p_holm == pytest.approx(2 * first.p)
    assert (first.p_holm or 1) < 0.05 < (second.p_holm or 0)
    rated = strengths(contests, draws=Draws(resamples=50))
    assert rated is not None
    assert [rating["name"] for rating in rated["ratings"]][-1] == "b"


def test_nothing_decided_has_no_rates() -> None:
    (row,) = pairwise_tests([contest(0, None, "a")], FAST)
    assert (row.turns, row.win_rate, row.p, row.p_holm, row.flip_rate) == (0, None, None, None, None)
    assert strengths([contest(0, None, "a")]) is None
