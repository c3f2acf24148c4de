"""Backbones that would not read a trie as separate sequences are refused when they are loaded, with the reason."""

from pathlib import Path
from typing import Any, Final

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BloomConfig,
    FalconConfig,
    GPT2Config,
    Llama4TextConfig,
    MambaConfig,
    MptConfig,
    OPTConfig,
    Qwen3NextConfig,
    RecurrentGemmaConfig,
    T5Config,
)

from esckit.errors import ModelError
from esckit.language_models import attention, token_tree
from esckit.language_models.backbone import load_backbone
from esckit.language_models.token_tree import check_exactness
from tests.tiny import Architecture, save_base, tiny_model, tiny_tokenizer

LINEAR: Final = "has layers of type linear_attention, which would read the branches of a token trie as one text"
SMALL: Final[dict[str, Any]] = {"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ADVICE: Final = ": use a Qwen2, Llama, Mistral or Gemma 2 architecture."
REFUSES: Final = "takes no mask and positions of a token trie ("
OTHERS: Final[dict[str, tuple[Any, str]]] = {
    "encoder-decoder": (
        T5Config(vocab_size=600, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4, decoder_start_token_id=0),
        "is an encoder-decoder, and esckit trains decoders alone",
    ),
    "state space": (
        MambaConfig(vocab_size=600, hidden_size=32, state_size=4, num_hidden_layers=2),
        LINEAR,
    ),
    "alibi": (BloomConfig(vocab_size=600, hidden_size=32, n_layer=2, n_head=4), REFUSES),
    "alibi by option": (
        FalconConfig(**SMALL, alibi=True),
        "(falcon) takes no attention but its own",
    ),
    "alibi again": (MptConfig(vocab_size=600, d_model=32, n_layers=2, n_heads=4, max_seq_len=64), REFUSES),
    "recurrent": (
        RecurrentGemmaConfig(
            **SMALL, num_key_value_heads=1, intermediate_size=48, lru_width=32, attention_window_size=16
        ),
        LINEAR,
    ),
    "chunked attention": (
        Llama4TextConfig(
            **SMALL,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=32,
            intermediate_size_mlp=32,
            num_local_experts=2,
            attention_chunk_size=8,
            pad_token_id=0,
        ),
        "has layers of type chunked_attention, which would read the branches of a token trie as one text",
    ),
    "hybrid": (
        Qwen3NextConfig(**SMALL, num_key_value_heads=2, intermediate_size=32, num_experts=2, num_experts_per_tok=1),
        LINEAR,
    ),
}


def save(config: Any, folder: Path) -> str:
    torch.manual_seed(0)
    config.initializer_range = 0.2
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    kind.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("config", "reason"), OTHERS.values(), ids=OTHERS.keys())
def test_other_architectures_are_refused_with_the_reason(config: Any, reason: str, tmp_path: Path) -> None:
    source = save(config, tmp_path / "other")
    with pytest.raises(ModelError) as error:
        load_backbone(source)
    assert str(error.value).startswith(f"{source} {reason}")
    assert str(error.value).endswith(ADVICE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(vocab_size=600, n_embd=32, n_layer=2, n_head=4),
        OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=32),
    ],
)
def test_learned_positions_that_are_taken_as_given_are_no_hindrance(config: Any, tmp_path: Path) -> None:
    assert load_backbone(save(config, tmp_path / "other")).model.config.model_type == config.model_type


@pytest.mark.parametrize("architecture", ["qwen2", "qwen2-window", "llama", "mistral", "mistral-window", "gemma2"])
def test_supported_architectures_are_loaded_with_their_own_windows(architecture: Architecture, tmp_path: Path) -> None:
    backbone = load_backbone(str(save_base(tmp_path / "base", architecture)))
    assert getattr(backbone.model.config, "sliding_window", None) == getattr(
        tiny_model(architecture).config, "sliding_window", None
    )


@pytest.mark.parametrize("architecture", ["qwen2-window", "mistral-window", "gemma2"])
def test_windows_that_are_counted_along_rows_are_found(
    architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What anybody would write who gives a trie to a model with sliding layers."""
    along_rows = attention.trie_attention

    def wrong(end: Any, depth: Any = None, window: Any = None) -> Any:
        return along_rows(end, torch.arange(end.shape[1])[None].expand_as(end), window)

    model = tiny_model(architecture)
    check_exactness(model, "base")
    monkeypatch.setattr(attention, "trie_attention", wrong)
    with pytest.raises(ModelError, match=r"^base reads a token trie otherwise than its sequences \(a log-prob"):
        check_exactness(model, "base")


def test_bool_masks_under_eager_attention_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager attention adds false and true as 0 and 1: wrong, and silently so."""
    model = tiny_model("llama")
    model.set_attn_implementation("eager")
    check_exactness(model, "base")
    monkeypatch.setattr(token_tree, "trie_masks", lambda _, end, depth: attention.trie_attention(end))
    with pytest.raises(ModelError, match=r"^base reads a token trie otherwise than its sequences"):
        check_exactness(model, "base")
