"""Backbones: load a causal language model with its tokenizer, and name its weights by hash."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any, Literal

import torch

from esckit.decoding import seed_of
from esckit.errors import ModelError
from esckit.hub import is_hub_id, is_smollm2, unreachable
from esckit.language_models.attention import attention_for, takes_no_attention
from esckit.language_models.folders import adapter_base, check_folder
from esckit.language_models.gguf_files import is_gguf
from esckit.language_models.pretrained import is_empty, read_config, read_pretrained, read_tokenizer
from esckit.language_models.sources import check_named, settled
from esckit.language_models.token_tree import check_exactness


@dataclass(frozen=True)
class Backbone:
    """A causal language model, its tokenizer, and where they came from (a folder or a Hub id).

    ``lock`` is held by whoever asks the model: several threads may share it, and adapters are switched on it.
    """

    model: Any
    tokenizer: Any
    source: str
    lock: Any = field(default_factory=RLock, compare=False, repr=False)

    @contextmanager
    def playing(self, adapter: str | None) -> Iterator[Any]:
        """The model under one of its adapters, for this caller alone; afterwards the adapter of before is active.

        None is for a model that has no adapters.
        """
        with self.lock:
            if adapter is None:
                yield self.model
                return
            before = self.model.active_adapter
            self.model.set_adapter(adapter)
            try:
                yield self.model
            finally:
                self.model.set_adapter(before)

    @property
    def max_context(self) -> int:
        """The most tokens the model has positions for."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 over all weights, in hexadecimal: the same on the CPU (float32) and on CUDA (bfloat16)."""
        return hash_weights(self.model, rounded=True)


def hash_weights(model: Any, having: str = "", *, rounded: bool = False) -> str:
    """SHA-256 over names, dtypes and bytes of the weights whose names have a part (all by default), in hexadecimal.

    ``rounded`` reads floats as bfloat16, so that the precision that a model is loaded in does not matter.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if having not in name:
            continue
        if rounded and tensor.is_floating_point():
            tensor = tensor.bfloat16()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def device_of(model: Any) -> torch.device:
    """The device of a model's first parameter."""
    return next(iter(model.parameters())).device  # type: ignore[no-any-return]


def default_device() -> torch.device:
    """The CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seed_everything(*parts: object) -> int:
    """Seed torch's process-wide generator, as training needs it, with `seed_of` the parts; return the seed."""
    seed = seed_of(*parts)
    torch.manual_seed(seed)
    return seed


def check_source(source: str) -> None:
    """Check, without loading anything, that a source can be one: a folder with weights, a Hub id, ``smollm2``, a GGUF.

    Raises:
        ModelError: it is none of them.
    """
    folder = Path(source)
    if is_smollm2(source) or is_gguf(source):
        check_named(source)
        return
    if (base := adapter_base(source)) is not None:
        if not Path(base).exists() and not is_hub_id(base) and not is_smollm2(base):
            raise ModelError(f"{source} is an adapter on {base}, which is not here: correct adapter_config.json.")
        check_source(base)
    elif folder.is_dir():
        check_folder(folder)
    elif folder.is_file():
        raise ModelError(f"{source} is a file: give a model's folder, or a GGUF file (*.gguf).")
    elif folder.is_absolute() or source.startswith((".", "~")) or source.count("/") != 1:
        raise ModelError(
            f"{source} is no folder and no Hub id (owner/name): give one of the two as model.path, or smollm2."
        )


def check_reachable(source: str) -> None:
    """Check in seconds that a model on the Hub can be had from there, or was before; a folder passes.

    Raises:
        ModelError: it cannot.
    """
    base = adapter_base(source)
    name = base or source
    if is_hub_id(name) and (reason := unreachable(name)):
        adapters = f" (predict and chat take it as --base of the adapter {source})" if base else ""
        raise ModelError(
            f"{name} is no folder here, and {reason}: give a folder instead, which "
            f"`hf download {name} --local-dir FOLDER` fills where the Hub can be reached{adapters}."
        )


def check_backbone(source: str) -> None:
    """Check, without its weights, that a backbone can be had and is of an architecture that tries can be read by.

    Raises:
        ModelError: one sentence says why not.
    """
    check_source(source)
    check_reachable(source)
    with _sentences(source):
        read_config(source)


@contextmanager
def _sentences(source: str) -> Iterator[None]:
    """Make a sentence of what transformers raises about files."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError, StrictDataclassError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise ModelError(
            f"{source} cannot be loaded as a causal language model ({reason}): "
            "give a folder with weights, config and tokenizer, or a Hub id where the Hub can be reached."
        ) from error


Quantisation = Literal["4bit"]


def _in_four_bits() -> Any:
    """What transformers is told to load linear layers in NF4 (Dettmers et al. 2023)."""
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            "model.quantisation: 4bit needs bitsandbytes, which is not installed: pip install bitsandbytes, "
            "or leave quantisation out."
        )
    if not torch.cuda.is_available():
        raise ModelError("model.quantisation: 4bit needs a CUDA device, and there is none: leave quantisation out.")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def load_backbone(source: str, *, quantisation: Quantisation | None = None, base: str | None = None) -> Backbone:
    """Load a causal language model and its tokenizer, onto the default device.

    float32 on the CPU and bfloat16 on CUDA, or as ``quantisation`` says; attention as `attention` chooses. A model that
    would not read a trie as separate sequences is refused, by what its configuration says and by trying it.

    Args:
        source: a folder, a Hub id, a GGUF file, ``smollm2`` (`sources`), or a PEFT adapter's folder, which is merged.
        quantisation: of what is loaded.
        base: of an adapter, in place of the one that it names.

    Raises:
        ModelError: the folder has no weights or no tokenizer, the id cannot be had, the trie is not exact on it, or
            what quantisation needs is missing.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    if base is None:
        check_source(source)
        check_reachable(source)
    elif not (Path(source) / "adapter_config.json").is_file():
        raise ModelError(f"{source} is no adapter's folder, so it stands on no base: leave the base out.")
    if base := base or adapter_base(source):
        return _merged(source, base, quantisation)
    source = settled(source)
    stored: dict[str, Any] = {"quantization_config": _in_four_bits(), "device_map": {"": 0}} if quantisation else {}
    device = default_device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with _sentences(source):
        tokenizer = read_tokenizer(source)
        config, renamed = read_config(source)
        stored |= {"config": config, "key_mapping": renamed, "attn_implementation": attention_for(config, device)}
        try:
            model, loaded = read_pretrained(
                AutoModelForCausalLM, source, dtype=dtype, output_loading_info=True, **stored
            )
        except KeyError as error:
            raise takes_no_attention(source, config) from error
    if renamed:  # or saving would give the weights the names of the whole again
        used = model._weight_conversions
        model._weight_conversions = [each for each in used if not renamed.keys() & {*each.source_patterns}]
    if loaded["missing_keys"]:  # transformers would go on with random numbers in their place
        missing = min(loaded["missing_keys"])
        raise ModelError(f"the weights of {source} lack {missing}: restore the weights, or the config that fits them.")
    if is_empty(tokenizer):
        raise ModelError(f"{source} has no tokenizer: save one there with save_pretrained.")
    model.generation_config = GenerationConfig()  # a checkpoint's own settings would be mixed into `Decoding`
    placed = model if quantisation else model.to(device)  # 4-bit weights are where they were loaded
    check_exactness(placed.eval(), source)
    return Backbone(placed, tokenizer, source)


def _merged(source: str, base: str, quantisation: Quantisation | None) -> Backbone:
    """A PEFT adapter in its base's weights, with a tokenizer of its own where it brings one."""
    from peft import PeftModel

    from esckit.language_models import experts  # noqa: F401 - PEFT knows the tuner once it is imported

    if quantisation:
        raise ModelError(f"{source} is an adapter, which is not merged into 4-bit weights: leave quantisation out.")
    backbone = load_backbone(base)
    with _sentences(source):
        adapted = PeftModel.from_pretrained(backbone.model, source)
        if not hasattr(adapted, "merge_and_unload"):
            raise ModelError(f"{source} is no adapter that can be merged into its base: merge it, or train LoRA.")
        own = (Path(source) / "tokenizer_config.json").exists()
        tokenizer = read_tokenizer(source) if own else backbone.tokenizer
        return Backbone(adapted.merge_and_unload().eval(), tokenizer, source)
