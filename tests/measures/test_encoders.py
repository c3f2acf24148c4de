"""BERTScore and relevance, on an encoder of two small layers made here."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

from esckit.errors import EsckitError
from esckit.measures.encoders import bertscore_figures, describe_encoder, relevance_figures
from esckit.measures.text_figures import text_figures

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "i", "you", "am", "so", "sorry", "sad", "why", "do", "feel", "that", "hard", ".", "?"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("encoders") / "tiny"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


def test_bertscore(encoder: str) -> None:
    bert_score = pytest.importorskip("bert_score")
    gold, predicted = ["", "why ?", "you", "i am sad ."], ["i", "why ?", "", "i am so sorry ."]
    figures, each = bertscore_figures(gold, predicted, encoder)
    f1 = each["bertscore_f1"]
    assert f1[1] == pytest.approx(1, abs=1e-5)
    assert 0 < f1[3] < 1
    assert f1[[0, 2]].tolist() == [0, 0]
    theirs = bert_score.score([predicted[3]], [gold[3]], model_type=encoder, num_layers=2)
    for name, part in zip(("precision", "recall", "f1"), theirs, strict=True):
        assert figures[f"bertscore_{name}_utterance"] == pytest.approx((1 + float(part[0])) / 4, abs=1e-5)
    assert figures["bertscore_f1_utterance"] == pytest.approx(f1.mean())
    assert figures["bertscore_signature"].startswith("tiny_L2_no-idf_version=")
    assert figures["encoder"] == "tiny"


def test_bertscore_of_nothing_but_empty_texts_is_0(encoder: str) -> None:
    pytest.importorskip("bert_score")
    assert bertscore_figures([""], ["i"], encoder)[0]["bertscore_f1_utterance"] == 0


def test_relevance(encoder: str) -> None:
    pytest.importorskip("sentence_transformers")
    turns = [["i am sad .", "why ?"], ["why ?"], None, ["i"], [" "]]
    figures, each = relevance_figures(turns, ["why ?", "why ?", "you", "", "you"], encoder)
    values = each["relevance"]
    assert values[1] == pytest.approx(1, abs=1e-5)
    assert -1 <= values[0] < 1
    assert values[3] == 0
    assert np.isnan(values[[2, 4]]).all()
    assert figures["relevance_n"] == 3
    assert figures["relevance_utterance"] == pytest.approx(np.nanmean(values))
    assert figures["encoder"] == "tiny"


def test_relevance_is_the_mean_cosine(encoder: str) -> None:
    model = pytest.importorskip("sentence_transformers").SentenceTransformer(encoder)
    a, b, c = model.encode(["i am sad .", "so hard", "why ?"])
    cosines = [float(c @ other / np.linalg.norm(c) / np.linalg.norm(other)) for other in (a, b)]
    _, each = relevance_figures([["i am sad .", "so hard"]], ["why ?"], encoder)
    assert each["relevance"][0] == pytest.approx(np.mean(cosines), abs=1e-5)


def test_an_encoder_is_named_without_its_path_and_hashed(tmp_path: Path) -> None:
    assert describe_encoder("owner/name") == {"encoder": "owner/name", "encoder_hash": None}
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.safetensors").write_bytes(b"weights")
    one = describe_encoder(str(tmp_path / "model"))
    assert one["encoder"] == "model"
    assert one["encoder_hash"] == hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "model/more.safetensors").write_bytes(b"weights")
    assert describe_encoder(str(tmp_path / "model"))["encoder_hash"] != one["encoder_hash"]


@pytest.mark.parametrize(
    ("module", "metric", "package"),
    [("bert_score", "bertscore", "bert-score"), ("sentence_transformers", "relevance", "sentence-transformers")],
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, metric: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EsckitError, match=rf"{metric} needs the package {package}: pip install 'esckit\[encoder\]'\."):
        text_figures(["a"], ["a"], metrics=[metric], encoder=str(tmp_path), seeker_turns=[["a"]])


@pytest.mark.parametrize(("module", "metric"), [("bert_score", "bertscore"), ("sentence_transformers", "relevance")])
def test_an_encoder_that_cannot_be_loaded_is_named(tmp_path: Path, module: str, metric: str) -> None:
    pytest.importorskip(module)
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 1}')
    with pytest.raises(EsckitError, match=rf"{metric} cannot load the encoder '.*' \(.+\): give a model's folder or"):
        text_figures(["a"], ["a"], metrics=[metric], encoder=str(tmp_path), seeker_turns=[["a"]])


@pytest.mark.parametrize("metric", ["bertscore", "relevance"])
def test_an_encoder_has_to_be_given(metric: str) -> None:
    with pytest.raises(EsckitError, match=f"{metric} needs an encoder: add --encoder"):
        text_figures(["a"], ["a"], metrics=[metric])


def test_relevance_needs_what_the_seeker_said() -> None:
    with pytest.raises(
        EsckitError, match="relevance needs what the seeker said: add seeker_turns to the rows, or --con"
    ):
        relevance_figures([None, []], ["a", "b"], "any")
