"""How often 95% intervals hold the truth, by simulation: of agreement where a label is rare, and of B.

    python -m tests.measures.coverage [--repetitions 400] [--seed 0]

prints the tables of docs/measures.md; the slow tests ask the same functions with fewer repetitions.
"""

import argparse
from typing import Final, NamedTuple

import numpy as np

from esckit.measures.agreement import Coefficient, cohen_kappa, fleiss_kappa, krippendorff_alpha
from esckit.measures.intervals import Draws, resample_totals
from esckit.measures.preference_bias import bias_interval, preference_bias
from tests.measures.simulate import draw, planner

COEFFICIENTS: Final = ("cohen", "fleiss", "krippendorff")
TRUE_B: Final = (0.0, 0.05, 0.1, 0.16, 0.3, 0.5, 0.9)


class Raters(NamedTuple):
    """Two for Cohen's kappa, else three: each knows a label with chance sqrt(kappa), else draws by the shares."""

    shares: tuple[float, ...]
    kappa: float
    items: int


RATERS: Final = (
    Raters((0.95, 0.05), 0.4, 100),
    Raters((0.95, 0.05), 0.6, 100),
    Raters((0.95, 0.05), 0.8, 100),
    Raters((0.98, 0.02), 0.6, 100),
    Raters((0.9, 0.05, 0.05), 0.6, 100),
    Raters((0.5, 0.5), 0.6, 50),
    Raters((0.5, 0.5), 0.1, 50),
    Raters((0.4, 0.3, 0.1, 0.1, 0.1), 0.6, 60),
)


def rate(name: str, raters: Raters, random: np.random.Generator, resamples: int) -> Coefficient:
    """The coefficient of one set of simulated ratings."""
    k, people = len(raters.shares), 2 if name == "cohen" else 3
    label = random.choice(k, size=raters.items, p=raters.shares)
    guesses = random.choice(k, size=(people, raters.items), p=raters.shares)
    said = np.where(random.random((people, raters.items)) < raters.kappa**0.5, label, guesses)
    if name == "cohen":
        return cohen_kappa(*said.tolist(), draws=Draws(resamples=resamples))
    if name == "fleiss":
        return fleiss_kappa(np.stack([(said == c).sum(0) for c in range(k)], axis=1), draws=Draws(resamples=resamples))
    return krippendorff_alpha(said.T.tolist(), draws=Draws(resamples=resamples))


def agreement_coverage(name: str, raters: Raters, repetitions: int, seed: int = 0, resamples: int = 400) -> float:
    """Share of the intervals that hold the true kappa."""
    random = np.random.default_rng(seed)
    intervals = [rate(name, raters, random, resamples).interval for _ in range(repetitions)]
    return float(np.mean([low - 1e-9 <= raters.kappa <= high + 1e-9 for low, high in intervals]))


def bias_coverage(true: float, repetitions: int, seed: int = 0, dialogues: int = 130) -> tuple[float, float, float]:
    """Share of B's intervals that hold the true B, the mean of B, and the mean width of the intervals."""
    random, found = np.random.default_rng(seed), []
    for number in range(repetitions):
        by_dialogue = draw([planner(max(true, 1e-9), 0.35, random)], dialogues, random)[0]
        bias = preference_bias(by_dialogue.sum(0))
        low, high = bias_interval(bias, preference_bias(resample_totals(by_dialogue, 300, number)))
        found.append((low <= true <= high, float(bias.b), high - low))
    hit, b, width = np.mean(found, axis=0)
    return float(hit), float(b), float(width)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print("| shares, kappa, items |", " | ".join(COEFFICIENTS), "|")
    for raters in RATERS:
        found = [agreement_coverage(name, raters, given.repetitions, given.seed) for name in COEFFICIENTS]
        print(f"| {raters.shares}, {raters.kappa}, {raters.items} |", " | ".join(f"{100 * x:.1f}%" for x in found), "|")
    print("| true B | mean B | coverage | width |")
    for true in TRUE_B:
        hit, b, width = bias_coverage(true, given.repetitions, given.seed)
        print(f"| {true} | {b:.2f} | {100 * hit:.1f}% | {width:.2f} |", flush=True)


if __name__ == "__main__":
    main()
