"""Emotion scores of texts without a call."""

import numpy as np
import pytest

from esckit.planning.emotion_scorer import correlations, feeling_words, fit_scorer
from esckit.planning.text_features import TokenReader, likeness
from esckit.roles import EMOTIONS
from tests.roles.little import little_bank


@pytest.mark.parametrize("language", ["en", "zh"])
def test_it_hears_the_emotion_of_texts_that_it_has_not_seen(language: str) -> None:
    told = [each for role in little_bank().roles for each in role.experiences]
    texts = [each.text(language) for each in told]
    reader = TokenReader.learn(texts)
    scorer, facts = fit_scorer(reader, texts, np.array([each.scores for each in told], float), language, seed=0)
    assert facts["texts"] == 12
    assert min(facts["correlation"][name] for name in ("joy", "fear", "anger")) > 0.5
    new = {
        "en": ["I was terrified and my hands shook.", "I could weep, I miss her."],
        "zh": ["我吓坏了，很慌。", "我难过得直哭。"],
    }[language]
    found = scorer.score(reader.rows(new), feeling_words(new, language))
    assert found.shape == (2, 8)
    assert found.min() >= 1
    assert found.max() <= 10
    fear, sadness = EMOTIONS.index("fear"), EMOTIONS.index("sadness")
    assert found[0, fear] > found[1, fear]
    assert found[1, sadness] > found[0, sadness]


def test_a_text_alone_is_scored_as_among_others() -> None:
    told = [each for role in little_bank().roles for each in role.experiences]
    texts = [each.text("en") for each in told]
    reader = TokenReader.learn(texts)
    scorer, _ = fit_scorer(reader, texts, np.array([each.scores for each in told], float), "en", seed=0)
    together = scorer.score(reader.rows(texts), feeling_words(texts, "en"))
    alone = [scorer.score(reader.rows([text]), feeling_words([text], "en"))[0] for text in texts]
    np.testing.assert_allclose(together, alone)


def test_one_experience_in_a_language_without_words_of_ours_has_scores_in_the_middle_or_its_own() -> None:
    reader = TokenReader.learn(["bonjour la mer"])
    scorer, facts = fit_scorer(reader, ["bonjour la mer"], np.full((1, 8), 4.0), "fr", seed=0)
    assert scorer.score(reader.rows(["autre chose"]), feeling_words(["autre chose"], "fr")) == pytest.approx(4.0)
    assert facts["correlation"]["mean"] == 0


def test_words_are_counted_from_their_beginnings() -> None:
    counts = feeling_words(["I was saddled with an encourager", "Sad, sadness"], "en")
    assert counts[0, EMOTIONS.index("anger")] == 0
    assert counts[1, EMOTIONS.index("sadness")] == pytest.approx(np.log(3))
    assert not feeling_words(["triste"], "fr").any()


def test_correlations_are_pearsons() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 30, 8))
    other[:, 7] = 3.0
    found = correlations(one, other)
    assert found["fear"] == pytest.approx(np.corrcoef(one[:, 2], other[:, 2])[0, 1], abs=1e-3)
    assert found["anticipation"] == 0


def test_rows_are_of_characters_or_words_and_of_length_1() -> None:
    reader = TokenReader.learn(["我很难过", "the sea"])
    rows = reader.rows(["我很难过。", "很难", "The  SEA!", "sea", "..."])
    alike = likeness(rows, rows)
    np.testing.assert_allclose(np.diag(alike)[:4], 1)
    assert alike[0, 1] > 0.2
    assert alike[2, 3] > 0.2
    assert alike[0, 2] == 0
    assert alike[4].sum() == 0
