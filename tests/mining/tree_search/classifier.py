"""A text classifier made in milliseconds: random weights, labels by name."""

from pathlib import Path
from typing import Any

import torch

from tests.tiny import POSITIONS, tiny_tokenizer


def write_classifier(folder: Path, labels: tuple[str, ...], **config: Any) -> Path:
    """A random classifier of one layer with these labels."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(len(labels))
    made = BertConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=len(tiny_tokenizer()),
        pad_token_id=tiny_tokenizer().pad_token_id,
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
        label2id={label: place for place, label in enumerate(labels)},
        **{"max_position_embeddings": POSITIONS, **config},
    )
    BertForSequenceClassification(made).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
