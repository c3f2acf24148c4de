"""Planners whose true B is known, and dialogues to measure them on."""

import numpy as np

from esckit.measures.intervals import FloatArray, IntArray

ESCONV_SHARES = np.array([3033, 841, 1136, 1377, 2261, 2343, 974, 2641]) / 14606
"""Gold strategies of ESConv's training dialogues, in label order."""


def planner(b: float, accuracy: float, rng: np.random.Generator, gold: FloatArray = ESCONV_SHARES) -> FloatArray:
    """A planner with random preferences of this true B: (K, K) chances of (prediction, gold), adding up to 1.

    Wrong turns follow the Bradley-Terry model exactly: i for j has chance c g_i g_j p_i / (p_i + p_j), so B of these
    chances is the spread of p. Directions that would need more wrong turns than a label has are drawn again.
    """
    while True:
        direction = rng.normal(size=len(gold))
        low, high = 0.0, 20.0
        for _ in range(60):
            middle = (low + high) / 2
            p = np.exp(middle * direction)
            low, high = (middle, high) if (p / p.mean()).std() < b else (low, middle)
        p = np.exp(low * direction)
        wrong = np.outer(gold, gold) * p[:, None] / (p[:, None] + p)
        np.fill_diagonal(wrong, 0)
        wrong *= (1 - accuracy) / wrong.sum()
        if (wrong.sum(0) < gold).all():
            return np.asarray(wrong + np.diag(gold - wrong.sum(0)))


def draw(chances: list[FloatArray], dialogues: int, rng: np.random.Generator) -> IntArray:
    """Let planners with one and the same gold distribution predict the same dialogues.

    Dialogues have 8 to 20 turns and differ in their gold strategies and in each planner's habits (Dirichlet around the
    population's), so turns of one dialogue resemble each other.

    Returns:
        (planners, dialogues, K + 1, K) counts.
    """
    shares = chances[0].sum(0)
    k = len(shares)
    turns = rng.integers(8, 21, size=dialogues)
    gold = rng.multinomial(turns, rng.dirichlet(6 * shares, size=dialogues))  # (D, K)
    counts = np.zeros((len(chances), dialogues, k + 1, k), dtype=np.int64)
    for place, chance in enumerate(chances):
        for j in range(k):
            habits = rng.dirichlet(30 * chance[:, j] / shares[j] + 1e-9, size=dialogues)
            counts[place, :, :k, j] = rng.multinomial(gold[:, j], habits)
    return counts
