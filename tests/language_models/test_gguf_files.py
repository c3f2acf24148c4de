"""GGUF files become folders that load fast: the numbers that transformers reads, whole or not at all."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch

from esckit import cache
from esckit.errors import ModelError
from esckit.language_models import gguf_files
from esckit.language_models.backbone import check_source, load_backbone
from esckit.language_models.gguf_files import folder_of_gguf
from tests.tiny import tiny_model, tiny_tokenizer

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")

NAMES: Final = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""transformers' names and llama.cpp's."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ESCKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_gguf(path: Path, *, architecture: str = "llama", split: str = "smollm", parts: int = 1) -> Path:
    """A tiny Llama in Q4_1, its pairs of rotated rows side by side as llama.cpp stores them."""
    model = tiny_model("llama")
    config, writer = model.config, gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(8)
    if parts > 1:
        writer.add_uint16("split.count", parts)
    add_tokenizer(writer, split)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, weights in model.state_dict().items():
        plain = name.removesuffix(".weight")
        layer, _, inner = plain.removeprefix("model.layers.").partition(".")
        theirs = NAMES[plain] if plain in NAMES else NAMES[inner]
        if theirs in heads:
            weights = weights.view(heads[theirs], 2, -1, weights.shape[-1]).transpose(1, 2).reshape(weights.shape)
        full = f"{theirs}.weight" if plain in NAMES else f"blk.{layer}.{theirs}.weight"
        kind = gguf.GGMLQuantizationType.Q4_1 if weights.dim() == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(full, gguf.quants.quantize(weights.numpy().astype(np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer: Any, split: str) -> None:
    tokenizer = tiny_tokenizer()
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = set(tokenizer.all_special_ids)
    merges = gguf_merges(tokenizer)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if place in special else 1 for _, place in vocabulary])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokenizer.convert_tokens_to_ids("<|im_start|>"))
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.pad_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.chat_template)


def gguf_merges(tokenizer: Any) -> list[str]:
    import json

    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GGUF file with SmolLM's way of cutting words. Shared: copy it to change it."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "small.gguf")


def test_a_gguf_file_is_loaded_as_a_backbone(small: Path) -> None:
    backbone = load_backbone(str(small))
    assert backbone.source == str(small)
    assert backbone.model.config.num_key_value_heads == 2
    with torch.no_grad():
        ids = torch.tensor([tiny_tokenizer()("I see. You lost it.")["input_ids"]])
        got, exact = backbone.model(ids).logits, tiny_model("llama")(ids).logits
    assert torch.corrcoef(torch.stack([got.flatten(), exact.flatten()]))[0, 1] > 0.95, "rounded, not scrambled"


def test_the_numbers_are_those_that_transformers_reads(small: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(small.parent, gguf_file=small.name, dtype=torch.float32).state_dict()
    ours = load_backbone(str(small)).model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_other_vocabularies_are_read_by_transformers(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "other.gguf", split="gpt-2")
    backbone = load_backbone(str(path))
    assert backbone.tokenizer("[Question] I see.")["input_ids"]
    assert not hasattr(backbone.model.config, "quantization_config")
    assert backbone.tokenizer.chat_template == tiny_tokenizer().chat_template


def test_the_tokenizer_is_saved_whole(small: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder_of_gguf(small))
    ids = tiny_tokenizer().get_vocab()
    assert tokenizer("<|im_start|>a<|im_end|>")["input_ids"] == [ids["<|im_start|>"], ids["a"], ids["<|im_end|>"]]
    assert tokenizer.chat_template == tiny_tokenizer().chat_template
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer("12")["input_ids"] == [ids["1"], ids["2"]]
    text = "It's  2 days,\n\nI said. é漢 <|im_start|>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_digits_stand_alone_before_line_ends_and_spaces_join(small: Path) -> None:
    from transformers import AutoTokenizer

    cut = AutoTokenizer.from_pretrained(folder_of_gguf(small)).backend_tokenizer.pre_tokenizer.pre_tokenize_str
    assert [piece for piece, _ in cut("\n\n1  2")] == ["ĊĊ", "1", "ĠĠ", "2"]  # GPT-2's pattern alone: Ċ, Ċ, 1, Ġ, Ġ2


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


REFUSED: Final[dict[str, tuple[Callable[[Path], object], str]]] = {
    "there is none": (Path.unlink, "does not exist: give the path of a GGUF file, a model's folder, or"),
    "another kind of file": (lambda path: path.write_bytes(b"<html>"), "is no GGUF file (it begins with b'<htm'): dow"),
    "an empty file": (lambda path: path.write_bytes(b""), "is no GGUF file (it begins with b''): download it again."),
    "half a file": (half, "is cut off or damaged: download it again."),
    "a header that is cut off": (lambda path: path.write_bytes(path.read_bytes()[:90]), "is cut off or damaged: down"),
    "one part of three": (
        lambda path: write_gguf(path, parts=3),
        "is one of 3 files: join them with `llama-gguf-split --merge` first.",
    ),
    "another architecture": (
        lambda path: write_gguf(path, architecture="clip"),
        "holds a model of the architecture clip, which cannot be read from a GGUF file: give the model's folder or",
    ),
    "no language model": (
        lambda path: write_gguf(path, architecture="t5"),
        "cannot be read as a causal language model (",
    ),
}


@pytest.mark.parametrize(("damage", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_cannot_be_read_is_a_sentence(
    damage: Callable[[Path], object], message: str, small: Path, tmp_path: Path, own_cache: Path
) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(small.read_bytes())
    damage(path)
    with pytest.raises(ModelError) as error:
        load_backbone(str(path))
    assert str(error.value).startswith(f"{path} {message}")
    assert "\n" not in str(error.value)
    assert not [*own_cache.glob("*")], "nothing is left behind"


def test_the_package_that_reads_it_is_named(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_files, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"is read with the package gguf, which is not installed: pip install gguf\."):
        check_source(str(small))


# -------------------------------------------------------------------------------------------- kept, whole or not at all


def test_it_is_converted_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = folder_of_gguf(small)
    monkeypatch.setattr(gguf_files, "convert", lambda *_: pytest.fail("again"))
    assert folder_of_gguf(small) == first


def test_a_cache_that_cannot_be_written_is_a_sentence(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ESCKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"small.gguf cannot be written to .*file .*free space, or set ESCKIT_CACHE"):
        folder_of_gguf(small)


def test_a_full_disk_leaves_nothing(small: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(ModelError, match=r"\(No space left on device\): free space, or set ESCKIT_CACHE"):
        folder_of_gguf(small)
    assert not [*own_cache.iterdir()]


def _convert(path: Path, pause: Any, done: Any) -> None:
    whole = gguf_files.convert

    def slowly(*given: Any) -> None:
        whole(*given)
        pause.wait()

    gguf_files.convert = slowly  # type: ignore[assignment]
    done.put(str(folder_of_gguf(path)))


def test_two_processes_at_once_and_one_that_is_killed(small: Path, own_cache: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    together, done = spawn.Barrier(3), spawn.Queue()
    processes = [spawn.Process(target=_convert, args=(small, together, done)) for _ in range(3)]
    for process in processes[:2]:
        process.start()
    killed = spawn.Process(target=_convert, args=(small, spawn.Event(), done))
    killed.start()
    while len([*own_cache.glob("making-*/made/config.json")]) < 3:
        assert killed.is_alive()
    os.kill(killed.pid or 0, signal.SIGKILL)
    killed.join()
    together.wait()
    assert done.get() == done.get()
    for process in processes[:2]:
        process.join()
        assert process.exitcode == 0
    (left,) = own_cache.glob("making-*")
    assert load_backbone(str(small)), "half of one beside it is no harm"
    os.utime(left, (0, 0))
    cache.kept_in_cache("other", "a", lambda folder: folder.mkdir(), "it")
    assert not left.exists(), "and goes an hour later"
