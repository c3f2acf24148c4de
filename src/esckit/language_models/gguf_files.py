"""GGUF files: read one, and keep it as a folder that transformers loads in seconds.

Weights of a GGUF are rounded to a few bits. They are stored as the float32 numbers that they stand for, so nothing is
rounded a second time.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch

from esckit.cache import kept_in_cache
from esckit.errors import ModelError
from esckit.files import hash_file

FORMAT: Final = 1
"""Counts up when the same file would be converted otherwise: it names the kept folder."""

_WHOLE: Final = "config.json"
_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP: Final = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_CONTROL: Final = 3  # the kind of token that GGUF files give to special ones
_DAMAGE: Final = (
    ValueError,
    IndexError,
    KeyError,
    OverflowError,
    TypeError,
)  # what gguf's reader meets half a file with


def is_gguf(source: str) -> bool:
    """True where a source can only be meant as a GGUF file."""
    return source.lower().endswith(".gguf") and not Path(source).is_dir()


def kept_name(digest: str) -> str:
    """Name of the folder in the cache that a GGUF file of this SHA-256 is kept in."""
    return f"gguf-{digest[:16]}-{FORMAT}"


def folder_of_gguf(path: Path, digest: str | None = None) -> Path:
    """The folder with the model and the tokenizer of a GGUF file; it is made once and kept in the cache.

    Args:
        path: of the file.
        digest: its SHA-256, where it is known.

    Raises:
        ModelError: the file is missing, damaged or of an architecture that cannot be read; the package gguf is missing;
            or the cache cannot be written.
    """
    check_gguf(path)
    name = kept_name(digest or hash_file(path))
    return kept_in_cache(name, _WHOLE, lambda folder: convert(path, folder), str(path))


def check_gguf(path: Path) -> None:
    """Check in a moment that a file can be a GGUF, and that the package that reads it is here.

    Raises:
        ModelError: it is none; one sentence says why.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist: give the path of a GGUF file, a model's folder, or a Hub id.")
    with path.open("rb") as file:
        begins = file.read(4)
    if begins != b"GGUF":
        raise ModelError(f"{path} is no GGUF file (it begins with {begins!r}): download it again.")
    if find_spec("gguf") is None:
        raise ModelError(f"{path} is read with the package gguf, which is not installed: pip install gguf.")


def convert(path: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file into a folder, as ``save_pretrained`` does.

    SmolLM's files are read here: transformers needs five times as long, and would not split digits. All others are
    read by transformers.

    Raises:
        ModelError: see `folder_of_gguf`.
    """
    with _read(path) as reader:
        architecture = _value(reader, "general.architecture")
        if (parts := _value(reader, "split.count", 1)) > 1:
            raise ModelError(f"{path} is one of {parts} files: join them with `llama-gguf-split --merge` first.")
        if (architecture, _value(reader, "tokenizer.ggml.pre", "")) == ("llama", "smollm"):
            _write_smollm(reader, folder)
            return
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    if architecture not in GGUF_SUPPORTED_ARCHITECTURES:
        raise ModelError(
            f"{path} holds a model of the architecture {architecture}, which cannot be read from a GGUF file: "
            "give the model's folder or Hub id instead."
        )
    _write_by_transformers(path, folder)


@contextmanager
def _read(path: Path) -> Iterator[Any]:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except _DAMAGE as error:
        raise ModelError(f"{path} is cut off or damaged: download it again.") from error
    yield reader


def _value(reader: Any, name: str, default: Any = None) -> Any:
    field = reader.fields.get(name)
    return default if field is None else field.contents()


def _write_smollm(reader: Any, folder: Path) -> None:
    """The model and the tokenizer of a Llama with SmolLM's vocabulary."""
    from safetensors.torch import save_file

    folder.mkdir()
    config = _llama_config(reader)
    save_file(dict(_llama_weights(reader, config)), folder / "model.safetensors", metadata={"format": "pt"})
    _smollm_tokenizer(reader).save_pretrained(folder)
    config.save_pretrained(folder)


def _llama_config(reader: Any) -> Any:
    from transformers import LlamaConfig

    heads = _value(reader, "llama.attention.head_count")
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="float32",
        vocab_size=len(_value(reader, "tokenizer.ggml.tokens")),
        hidden_size=_value(reader, "llama.embedding_length"),
        intermediate_size=_value(reader, "llama.feed_forward_length"),
        num_hidden_layers=_value(reader, "llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=_value(reader, "llama.attention.head_count_kv", heads),
        max_position_embeddings=_value(reader, "llama.context_length"),
        rms_norm_eps=_value(reader, "llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": _value(reader, "llama.rope.freq_base", 10000.0)},
        tie_word_embeddings=all(tensor.name != "output.weight" for tensor in reader.tensors),
        **{f"{name}_token_id": _value(reader, f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")},
        pad_token_id=_value(reader, "tokenizer.ggml.padding_token_id"),
    )


def _llama_weights(reader: Any, config: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights in float32, by transformers' names; each rounded number is exact there."""
    from gguf import dequantize

    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for tensor in reader.tensors:
        weights = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", tensor.name)
        if layer is None:
            yield f"{_TOP[tensor.name.removesuffix('.weight')]}.weight", weights
            continue
        if layer[2] in heads:  # rotated pairs stand side by side in a GGUF, half a head apart in transformers
            weights = weights.view(heads[layer[2]], -1, 2, weights.shape[-1]).transpose(1, 2).reshape(weights.shape)
        yield f"model.layers.{layer[1]}.{_LAYER[layer[2]]}.weight", weights.contiguous()


def _smollm_tokenizer(reader: Any) -> Any:
    """A byte-level BPE with GPT-2's pattern after each digit was split off, as SmolLM's own tokenizer file says."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = _value(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in _value(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: place for place, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = _value(reader, "tokenizer.ggml.token_type")
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    named = {ours: tokens[_value(reader, f"tokenizer.ggml.{theirs}_token_id")] for ours, theirs in names.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=_value(reader, "tokenizer.chat_template"),
        model_max_length=_value(reader, "llama.context_length"),
        clean_up_tokenization_spaces=False,
        **named,
    )


def _write_by_transformers(path: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": path.absolute().parent, "gguf_file": path.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    except (NotImplementedError, RuntimeError, *_DAMAGE) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise ModelError(
            f"{path} cannot be read as a causal language model ({reason}): give the model's folder or Hub id instead."
        ) from error
    model.hf_quantizer, model.is_quantized = None, False  # a model that counts as quantised refuses to be saved
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
