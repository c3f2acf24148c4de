"""Strengths against other estimators of the same likelihood."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.api import GLM, families
from statsmodels.discrete.conditional_models import ConditionalLogit

from esckit.errors import EsckitError
from esckit.measures import Duel, bradley_terry

NAMES = "abcd"
results = st.lists(
    st.tuples(st.integers(0, 9), st.permutations(NAMES), st.integers(0, 2)).map(
        lambda drawn: Duel(drawn[0], drawn[1][0], drawn[1][1], (drawn[1][0], drawn[1][1], None)[drawn[2]])
    ),
    min_size=1,
    max_size=40,
)


def season(*, ties: bool, n: int = 600, seed: int = 0) -> list[Duel]:
    """Duels of four systems with strengths 0, .4, .8, 1.2 and, with ties, nu = .7."""
    rng = np.random.default_rng(seed)
    duels = []
    for item in range(n):
        i, j = rng.choice(4, size=2, replace=False)
        p, q = math.exp(0.4 * i), math.exp(0.4 * j)
        chances = np.array([p, q, 0.7 * math.sqrt(p * q) if ties else 0])
        winner = rng.choice(3, p=chances / chances.sum())
        duels.append(Duel(item // 2, NAMES[i], NAMES[j], (NAMES[i], NAMES[j], None)[winner]))
    return duels


def strengths(result: dict[str, Any]) -> np.ndarray[Any, Any]:
    found = {rating["name"]: rating["strength"] for rating in result["ratings"]}
    return np.array([found[name] for name in sorted(found)])


def test_without_ties_it_is_logistic_regression() -> None:
    duels = season(ties=False)
    design = np.zeros((len(duels), 4))
    for row, duel in zip(design, duels, strict=True):
        row[NAMES.index(duel.first)], row[NAMES.index(duel.second)] = 1, -1
    won = [duel.winner == duel.first for duel in duels]
    fitted = np.append(0, GLM(won, design[:, 1:], family=families.Binomial()).fit().params)
    result = bradley_terry(duels, resamples=20)
    np.testing.assert_allclose(strengths(result), fitted - fitted.mean(), atol=1e-6)
    assert result["tie_parameter"] == 0


def test_with_ties_it_is_a_conditional_logit() -> None:
    duels = season(ties=True, n=200)
    rows, chosen, groups = [], [], []
    for number, duel in enumerate(duels):
        i, j = NAMES.index(duel.first), NAMES.index(duel.second)
        for features, outcome in (({i: 1}, duel.first), ({j: 1}, duel.second), ({i: 0.5, j: 0.5, 4: 1}, None)):
            rows.append([features.get(column, 0) for column in range(1, 5)])  # the first system's strength is 0
            chosen.append(int(duel.winner == outcome))
            groups.append(number)
    fitted = ConditionalLogit(np.array(chosen), np.array(rows, dtype=float), groups=np.array(groups)).fit(disp=False)
    free = np.append(0, fitted.params[:3])
    result = bradley_terry(duels, resamples=20)
    np.testing.assert_allclose(strengths(result), free - free.mean(), atol=1e-3)
    assert result["tie_parameter"] == pytest.approx(math.exp(fitted.params[3]), rel=1e-3)


def test_intervals_cover_the_truth_here() -> None:
    result = bradley_terry(season(ties=True, n=2000))
    json.dumps(result, allow_nan=False)
    assert [rating["name"] for rating in result["ratings"]] == list("dcba")
    for rating, true in zip(result["ratings"], (0.6, 0.2, -0.2, -0.6), strict=True):
        assert rating["interval"][0] < true < rating["interval"][1]
        assert rating["interval"][0] < rating["strength"] < rating["interval"][1]
    assert result["tie_parameter"] == pytest.approx(0.7, abs=0.15)
    assert (result["duels"], result["items"], result["marks"]) == (2000, 1000, [])
    assert sum(rating["wins"] for rating in result["ratings"]) == sum(rating["losses"] for rating in result["ratings"])


def test_two_systems_by_hand() -> None:
    duels = [Duel(i, "x", "y", winner) for i, winner in enumerate(["x"] * 4 + ["y"] + [None] * 3)]
    result = bradley_terry(duels, resamples=10)
    assert result["ratings"][0]["strength"] == pytest.approx(math.log(4) / 2)  # p_x / p_y = 4
    assert result["tie_parameter"] == pytest.approx(3 / math.sqrt(4 * 1))
    assert {key: result["ratings"][1][key] for key in ("wins", "losses", "ties")} == {"wins": 1, "losses": 4, "ties": 3}


def test_who_never_loses_is_rated_finitely_and_marked() -> None:
    result = bradley_terry([Duel(i, "x", "y", "x") for i in range(5)], resamples=10)
    assert result["marks"] == ["regularised"]
    assert result["ratings"][0]["strength"] == pytest.approx(math.log(5.5 / 0.5) / 2)
    tied = bradley_terry([Duel(i, "x", "y", None) for i in range(5)], resamples=10)
    assert tied["ratings"][0]["strength"] == pytest.approx(0)
    assert tied["tie_parameter"] == pytest.approx(10)


@given(results)
def test_order_and_sides_change_nothing(duels: list[Duel]) -> None:
    everyone = [Duel(0, "a", name, None) for name in "bcd"]  # so that all meet
    duels = duels + everyone
    before = bradley_terry(duels, resamples=5)
    turned = [Duel(duel.item, duel.second, duel.first, duel.winner) for duel in duels[::-1]]
    after = bradley_terry(turned, resamples=5)
    np.testing.assert_allclose(strengths(after), strengths(before), atol=1e-7)
    assert strengths(before).sum() == pytest.approx(0, abs=1e-9)
    assert np.isfinite([rating["interval"] for rating in before["ratings"]]).all()


@pytest.mark.parametrize(
    ("duels", "message"),
    [
        ([], "there are no duels to rate systems by: give at least one."),
        ([Duel(1, "x", "x", None)], "is no duel: name two systems"),
        ([Duel(1, "x", "y", "z")], "is no duel: name two systems, and as winner one of them or None."),
        (
            [Duel(1, "x", "y", "x"), Duel(1, "v", "w", "v")],
            "some systems never meet the others, not even through third ones: add duels between them.",
        ),
    ],
)
def test_bad_duels(duels: list[Duel], message: str) -> None:
    with pytest.raises(EsckitError) as caught:
        bradley_terry(duels)
    assert message in str(caught.value)
