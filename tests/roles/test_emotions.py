"""How alike two patterns of feelings are."""

import numpy as np
import pytest

from esckit.roles import EMOTIONS, centred_cosine, read_bank


def test_it_is_pearsons_correlation() -> None:
    draws = np.random.default_rng(0)
    one, others = draws.integers(1, 11, 8), draws.integers(1, 11, (20, 8))
    expected = [np.corrcoef(one, other)[0, 1] for other in others]
    np.testing.assert_allclose(centred_cosine(one, others), expected, atol=1e-12)


def test_how_high_scores_are_altogether_does_not_count() -> None:
    sad = [1, 2, 3, 1, 8, 1, 2, 1]
    assert centred_cosine(sad, [[score + 1 for score in sad]]) == pytest.approx([1])
    assert centred_cosine(sad, [[11 - score for score in sad]]) == pytest.approx([-1])


def test_a_flat_pattern_is_like_nothing() -> None:
    assert centred_cosine([5] * 8, [[1, 2, 3, 4, 5, 6, 7, 8], [3] * 8]).tolist() == [0, 0]
    assert centred_cosine([1, 2, 3, 4, 5, 6, 7, 8], np.empty((0, 8))).shape == (0,)


def test_it_sets_apart_what_plain_cosine_crowds_together() -> None:
    scores = np.array([each.scores for role in read_bank().roles for each in role.experiences], float)
    unit = scores / np.linalg.norm(scores, axis=1, keepdims=True)
    plain = unit @ unit.T
    centred = np.array([centred_cosine(one, scores) for one in scores])
    off = ~np.eye(len(scores), dtype=bool)
    assert centred[off].std() > 2 * plain[off].std()
    assert len(EMOTIONS) == scores.shape[1]
