"""Backbones: load a causal language model with its tokenizer, name its weights by hash, let it write replies."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from esckit.decoding import Decoding
from esckit.errors import ModelError
from esckit.hub import is_hub_id, unreachable
from esckit.language_models.attention import attention_for
from esckit.language_models.masks import SUPPORTED, check_layers, trie_masks
from esckit.language_models.probe import check_exactness
from esckit.language_models.streaming import TextStreamer
from esckit.language_models.token_tree import TokenTrie, collate
from esckit.rendering import Example

__all__ = [
    "Backbone",
    "Quantisation",
    "Reply",
    "check_reachable",
    "check_source",
    "device_of",
    "generate",
    "generate_ids",
    "load_backbone",
    "read_reply",
    "seed_everything",
]


class Reply(NamedTuple):
    """Generated text and how it ended: ``stop`` at the end of turn, ``length`` at the limit."""

    text: str
    finish: Literal["stop", "length"]


@dataclass(frozen=True)
class Backbone:
    """A causal language model, its tokenizer, and where they came from (a folder or a Hub id)."""

    model: Any
    tokenizer: Any
    source: str

    @property
    def max_context(self) -> int:
        """The most tokens the model has positions for."""
        return int(self.model.config.max_position_embeddings)

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
    """Seed torch from the SHA-256 of the parts; return the seed, in 0..2^32-1."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    seed = int.from_bytes(digest[:4], "big")
    torch.manual_seed(seed)
    return seed


def check_source(source: str) -> None:
    """Check, without loading anything, that a backbone's source can be one: a folder with weights, or a Hub id.

    Raises:
        ModelError: it is neither.
    """
    folder = Path(source)
    if folder.is_dir():
        if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
            raise ModelError(f"{source} has no weights (*.safetensors): give a folder saved by save_pretrained.")
    elif folder.is_absolute() or source.startswith((".", "~")) or source.count("/") != 1:
        raise ModelError(f"{source} is no folder and no Hub id (owner/name): give one of the two as model.path.")


def check_reachable(source: str) -> None:
    """Check in seconds that a model on the Hub can be had from there, or was before; a folder passes.

    Raises:
        ModelError: it cannot.
    """
    if is_hub_id(source) and (reason := unreachable(source)):
        raise ModelError(
            f"{source} is no folder here, and {reason}: give a folder instead, which "
            f"`hf download {source} --local-dir FOLDER` fills where the Hub can be reached."
        )


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


def load_backbone(source: str, *, quantisation: Quantisation | None = None) -> Backbone:
    """Load a causal language model and its tokenizer from a folder or a Hub id, onto the default device.

    float32 on the CPU and bfloat16 on CUDA; attention as `attention` chooses. A model that would not read a
    trie as separate sequences is refused, by what its configuration says and by trying it.

    Args:
        source: a folder or a Hub id.
        quantisation: how the weights are stored; as they are by default.

    Raises:
        ModelError: the folder has no weights or no tokenizer, the id cannot be had, the trie is not exact on it, or
            what quantisation needs is missing.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    check_source(source)
    check_reachable(source)
    stored = {"quantization_config": _in_four_bits(), "device_map": {"": 0}} if quantisation else {}
    device = default_device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        config = AutoConfig.from_pretrained(source)
        check_layers(config, source)
        model, loaded = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            attn_implementation=attention_for(config, device),
            output_loading_info=True,
            **stored,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise ModelError(
            f"{source} cannot be loaded as a causal language model ({reason}): "
            "give a folder with weights, config and tokenizer, or a Hub id where the Hub can be reached."
        ) from error
    except KeyError as error:  # transformers looks the attention up in a table of the architecture's own
        raise ModelError(
            f"{source} ({config.model_type}) takes no attention but its own, hence no token trie: {SUPPORTED}."
        ) from error
    if loaded["missing_keys"]:  # transformers would go on with random numbers in their place
        missing = min(loaded["missing_keys"])
        raise ModelError(f"the weights of {source} lack {missing}: restore the weights, or the config that fits them.")
    if not tokenizer("a")["input_ids"]:  # transformers makes an empty one where there is none
        raise ModelError(f"{source} has no tokenizer: save one there with save_pretrained.")
    model.generation_config = GenerationConfig()  # a checkpoint's own settings would be mixed into `Decoding`
    placed = model if quantisation else model.to(device)  # 4-bit weights are where they were loaded
    check_exactness(placed.eval(), source)
    return Backbone(placed, tokenizer, source)


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    end_of_turn: int,
    decoding: Decoding,
    on_text: Callable[[str], None] | None = None,
) -> list[Reply]:
    """Continue each prompt until the end of turn; see `generate_ids`. Seed torch before sampling.

    ``on_text``, where there is one prompt, is told the reply's text piece by piece while it is written.
    """
    streamer = on_text and TextStreamer(lambda ids: read_reply(tokenizer, ids, end_of_turn).text, on_text)
    written = generate_ids(model, prompts, end_of_turn, decoding, streamer=streamer)
    return [read_reply(tokenizer, ids, end_of_turn) for ids in written]


@torch.no_grad()
def generate_ids(
    model: Any,
    prompts: Sequence[Sequence[int]],
    end_of_turn: int,
    decoding: Decoding,
    seeds: Sequence[int] | None = None,
    *,
    streamer: TextStreamer | None = None,
) -> list[list[int]]:
    """Continue each prompt in one left-padded batch, until the end of turn.

    The prompts are read once, as a trie, and each takes its own path's keys and values from there: prompts of one
    dialogue share most of their tokens. Without ``seeds``, seed torch before: sampling uses its global generator.

    Args:
        model: a causal language model, adapters chosen.
        prompts: token ids, at least one prompt, each of two tokens or more.
        end_of_turn: the token that ends a reply.
        decoding: how tokens are chosen.
        seeds: of each prompt, so that its reply is drawn alike whatever stands beside it in the batch.
        streamer: is given the tokens of the one prompt as they come.

    Returns:
        The ids that were written, each up to and including the first end of turn.
    """
    from transformers import GenerationConfig, LogitsProcessorList

    device = device_of(model)
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), end_of_turn)  # (B, W)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, width - len(prompt) :] = 1
    own = seeds is not None and not decoding.greedy
    draws = not decoding.greedy and not own
    sampling = {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0} if draws else {}
    config = GenerationConfig(
        do_sample=draws,
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=end_of_turn,
        pad_token_id=end_of_turn,
        **sampling,
    )
    output: Tensor = model.generate(
        input_ids=input_ids.to(device),
        attention_mask=attention_mask.to(device),
        past_key_values=_read(model, prompts, width - 1),
        generation_config=config,
        streamer=streamer,
        logits_processor=LogitsProcessorList([_OwnDraws(decoding, seeds)] if seeds is not None and own else []),
    )
    rows = output[:, width:].tolist()
    return [row[: row.index(end_of_turn) + 1] if end_of_turn in row else row for row in rows]


class _OwnDraws:
    """Sampling with a generator a row: the most likely token after Gumbel noise is a draw (Gumbel-max)."""

    def __init__(self, decoding: Decoding, seeds: Sequence[int]) -> None:
        from transformers import TemperatureLogitsWarper, TopPLogitsWarper

        self._warpers = (TemperatureLogitsWarper(decoding.temperature), TopPLogitsWarper(decoding.top_p))
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.float()  # (B, V)
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        uniform = torch.stack([torch.rand(scores.shape[1], generator=generator) for generator in self._generators])
        return scores - (-uniform.clamp_min(1e-20).log()).log().to(scores.device)


def _read(model: Any, prompts: Sequence[Sequence[int]], width: int) -> Any:
    """Keys and values of every prompt but its last token, left-padded to ``width``, from one pass over their trie."""
    from transformers import DynamicCache

    examples = [Example("", tuple(prompt[:1]), (), tuple(prompt[1:-1])) for prompt in prompts]
    trie = TokenTrie.merge(examples)
    batch = collate([trie]).to(device_of(model))
    read = model(
        input_ids=batch.input_ids,
        attention_mask=trie_masks(model, batch.end, batch.position_ids),
        position_ids=batch.position_ids,
        past_key_values=DynamicCache(),  # a model's own would keep the last rows of a sliding window, not of a path
        logits_to_keep=1,
        use_cache=True,
    ).past_key_values
    roots = {trie.tokens[node]: node for node, depth in enumerate(trie.depth) if depth == 0}
    nodes = torch.zeros(len(prompts), width, dtype=torch.long)  # (B, W); what pads is masked
    for row, (prompt, target) in enumerate(zip(prompts, trie.targets, strict=True)):
        nodes[row, width - 1 - len(target.nodes) :] = torch.tensor((roots[prompt[0]], *target.nodes))
    cache = DynamicCache()
    for index, layer in enumerate(read.layers):
        keys, values = (states[0][:, nodes.to(states.device)].transpose(0, 1) for states in (layer.keys, layer.values))
        cache.update(keys, values, index)  # (B, H, W, D)
    return cache


def read_reply(tokenizer: Any, ids: list[int], end_of_turn: int) -> Reply:
    """The text of what `generate_ids` wrote, and how it ended."""
    stopped = ids[-1:] == [end_of_turn]
    ids = ids[:-1] if stopped else ids
    return Reply(tokenizer.decode(ids, skip_special_tokens=True).strip(), "stop" if stopped else "length")
