"""Perplexity against its definition, token by token; batches, pieces and padding change nothing."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from esckit.language_models.backbone import Backbone, load_backbone
from esckit.language_models.perplexity import perplexities, perplexity
from tests.tiny import save_base

TEXTS = [
    "I am tired.",
    "My sister has not called me back for three weeks now.",
    "",
    "Oh",
    "It hurts to wait.\nIt does.",
]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(str(save_base(tmp_path_factory.mktemp("base"))))


def by_hand(text: str, backbone: Backbone) -> tuple[float, int]:
    """Negative log-probabilities of a text's tokens, each from its own forward pass."""
    tokenizer = backbone.tokenizer
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = [begin, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    nats = 0.0
    for end in range(1, len(ids)):
        with torch.inference_mode():
            logits = backbone.model(input_ids=torch.tensor([ids[:end]])).logits[0, -1].double()
        nats -= float(torch.log_softmax(logits, -1)[ids[end]])
    return nats, len(ids) - 1


@pytest.mark.parametrize("batch_tokens", [1, 20, 10_000])
def test_it_is_the_exponential_of_nats_per_token(batch_tokens: int, backbone: Backbone) -> None:
    found = perplexities(TEXTS, backbone, batch_tokens=batch_tokens)
    for text, each in zip(TEXTS, found, strict=True):
        nats, tokens = by_hand(text, backbone)
        assert each.tokens == tokens
        assert each.nats == pytest.approx(nats, rel=1e-5, abs=1e-6)
        assert math.isnan(each.value) if not tokens else each.value == pytest.approx(math.exp(nats / tokens), rel=1e-4)


def test_of_several_texts_each_token_counts_alike(backbone: Backbone) -> None:
    both = [by_hand(text, backbone) for text in TEXTS]
    expected = math.exp(sum(nats for nats, _ in both) / sum(tokens for _, tokens in both))
    found = perplexity(TEXTS, backbone)
    assert found.value == pytest.approx(expected, rel=1e-4)
    each = [one.value for one in perplexities(TEXTS, backbone) if one.tokens]
    assert found.value != pytest.approx(sum(each) / len(each), rel=1e-3), "no mean over texts"
    assert math.isnan(perplexity([], backbone).value)


def test_a_text_longer_than_the_context_is_read_in_pieces(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = backbone.tokenizer(TEXTS[1], add_special_tokens=False)["input_ids"]
    config: Any = backbone.model.config.get_text_config()
    monkeypatch.setattr(config, "max_position_embeddings", len(tokens) // 2 + 1)
    (found,) = perplexities([TEXTS[1]], replace(backbone))
    assert found.tokens == len(tokens), "every token is predicted once"
