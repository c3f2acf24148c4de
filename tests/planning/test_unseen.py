"""What is said of a planner before it meets new dialogues, on made-up predictions."""

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from esckit.measures.preference_bias import noise_floor, preference_bias
from esckit.planning.calibration import LogProbabilities, Unseen, apply_modes, fit_modes, log_normalise, unseen_figures
from tests.measures.simulate import ESCONV_SHARES

SHARES = ESCONV_SHARES
K = len(SHARES)
FOND = 10 * (SHARES - 1 / K)  # of the frequent ones, as planners are
TURNS = 14


def simulate(dialogues: int, random: np.random.Generator) -> Unseen:
    """A planner that knows something of dialogues which differ in their strategies; less where the past is hidden."""
    shares = random.dirichlet(6 * SHARES, size=dialogues)
    gold = np.concatenate([random.choice(K, size=TURNS, p=own) for own in shares])
    base = np.eye(K)[gold] + FOND + random.normal(size=(len(gold), K))
    dialogue = np.repeat(np.arange(dialogues), TURNS)
    follows = np.arange(len(gold)) % TURNS > 0
    shown = log_normalise(base)
    hidden = np.where(follows[:, None], log_normalise(base + random.normal(size=base.shape) + 0.5 * FOND), shown)
    return Unseen({"shown": shown, "hidden": hidden}, gold, follows, dialogue)


def counts(given: LogProbabilities, gold: NDArray[np.intp]) -> NDArray[np.int64]:
    found = np.zeros((K + 1, K), dtype=np.int64)
    np.add.at(found, (given.argmax(1), gold), 1)
    return found


class Told(NamedTuple):
    """Over simulations and modes: what is said of B before new dialogues, and B^2 on these, noise taken off."""

    b: list[float]
    interval: list[list[float]]
    new: list[float]


@pytest.fixture(scope="module")
def told() -> dict[str, Told]:
    """By treatment."""
    random = np.random.default_rng(3)
    new, found = simulate(3000, random), {name: Told([], [], []) for name in ("plain", "calibrated")}
    for _ in range(6):
        unseen = simulate(250, random)
        figures, fitted = unseen_figures(unseen, cross_fitted=True), fit_modes(unseen)
        for mode, plain in new.log_probabilities.items():
            calibrated = apply_modes(fitted, plain, new.follows & (mode == "hidden"))
            for name, given in (("plain", plain), ("calibrated", calibrated)):
                seen = counts(given, new.gold)
                found[name].b.append(figures[mode][name]["b"])
                found[name].interval.append(figures[mode][name]["b_interval"])
                found[name].new.append(float(preference_bias(seen).b) ** 2 - noise_floor(seen, simulations=50) ** 2)
    return found


@pytest.mark.parametrize("treatment", ["plain", "calibrated"])
def test_the_b_that_is_said_is_the_b_of_new_dialogues(told: dict[str, Told], treatment: str) -> None:
    """Measured on the dialogues that offsets are fitted to, or on all parts together, the calibrated B would be 0."""
    b, intervals, new = told[treatment]
    held = [low**2 <= true <= high**2 for (low, high), true in zip(intervals, new, strict=True)]
    assert sum(held) >= 0.8 * len(held)
    assert np.mean(new) / 3 < np.mean(np.square(b)) < 3 * np.mean(new)
    if treatment == "calibrated":
        assert np.median([high for _, high in intervals]) < 0.5 * min(told["plain"].b), "they say something"


def test_figures_are_of_all_turns_by_treatment() -> None:
    unseen = simulate(100, np.random.default_rng(0))
    figures = unseen_figures(unseen, cross_fitted=True)
    for mode, given in unseen.log_probabilities.items():
        plain, calibrated = figures[mode]["plain"], figures[mode]["calibrated"]
        assert plain["n"] == calibrated["n"] == 100 * TURNS
        assert plain["accuracy"] == pytest.approx(float((given.argmax(1) == unseen.gold).mean()))
        assert plain["b_interval"][0] <= plain["b"] <= plain["b_interval"][1]
    assert unseen_figures(unseen, cross_fitted=False)["shown"].keys() == {"plain"}
    few = unseen_figures(simulate(20, np.random.default_rng(0)), cross_fitted=True)["hidden"]["calibrated"]
    assert few["b"] is few["b_interval"] is None
    assert few["q"] > 0
