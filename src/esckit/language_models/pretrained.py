"""The one place where a config, a tokenizer or a model of somebody's is read by transformers.

Code that a model brings along is never run and never asked about, unless the user allows it (`hub.code_allowed`). A
model of text and images is read as its text part alone.
"""

from pathlib import Path
from typing import Any, Final

from esckit.errors import ModelError
from esckit.hub import allows_code
from esckit.language_models.attention import SUPPORTED, check_layers
from esckit.language_models.folders import adapter_base
from esckit.language_models.sources import folder_of

_TWINS: Final = {
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
}
"""Text parts that transformers has no class for, and the model that each is where no image is read."""

_TEXT_NAMES: Final = {  # of weights, first match; the text part's own come last
    r"^(?:model\.)?(?:language_model|text_model)\.lm_head\.": "lm_head.",
    r"^(?:model\.)?(?:language_model|text_model)\.(?:model\.)?": "model.",
}


def read_pretrained(kind: Any, source: str, **how: Any) -> Any:
    """``kind.from_pretrained`` (an Auto class of transformers) of a folder, a Hub id, a GGUF file or ``smollm2``.

    Raises:
        ModelError: the source brings code of its own that the user has not allowed; or `folder_of`'s.
        Exception: transformers' own.
    """
    place = folder_of(source)
    try:
        return kind.from_pretrained(place, trust_remote_code=allows_code(), **how)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ModelError(
            f"{source} brings code of its own, which esckit does not run: give a model of an architecture that "
            "transformers has, or read that code and allow it, with model.trust_remote_code: true in a recipe or "
            "--trust-remote-code."
        ) from error


def read_tokenizer(source: str) -> Any:
    """A model's tokenizer; an adapter's where it brings one, else its base's.

    Raises:
        ModelError, Exception: see `read_pretrained`.
    """
    from transformers import AutoTokenizer

    own = (Path(source) / "tokenizer_config.json").exists()
    return read_pretrained(AutoTokenizer, source if own else adapter_base(source) or source)


def is_empty(tokenizer: Any) -> bool:
    """True for what transformers makes where there is no tokenizer: it knows no text, or unknown words alone."""
    return set(tokenizer("a")["input_ids"]) <= set(tokenizer.all_special_ids)


def read_config(source: str) -> tuple[Any, dict[str, str] | None]:
    """The config of a causal language model; of a model of text and images, its text part's.

    Returns:
        The config, and how the weights' names have to be changed (``key_mapping``) where it is a part's.

    Raises:
        ModelError: see `read_pretrained`; it is an encoder-decoder; it has layers that no trie can be read by; or its
            text part does not stand alone.
        OSError, ValueError: transformers' own.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    whole = read_pretrained(AutoConfig, adapter_base(source) or source)
    check_layers(whole, source)
    if whole.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(whole, "is_decoder", False):
        raise ModelError(
            f"{source} is an encoder ({whole.model_type}), which writes no text: give a causal language model."
        )
    part = whole.get_text_config()
    if part is whole:
        return whole, None
    part = _text_part(whole, part, source)
    check_layers(part, source)
    return part, _TEXT_NAMES


def _text_part(config: Any, inner: Any, source: str) -> Any:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    if twin := _TWINS.get(inner.model_type):
        fields = {key: value for key, value in inner.to_dict().items() if key not in ("model_type", "architectures")}
        rotation = fields.get("rope_parameters") or {}
        plain = {key: value for key, value in rotation.items() if not key.startswith("mrope")}
        fields["rope_parameters"] = {**plain, "rope_type": plain.get("rope_type", "default")}
        inner = CONFIG_MAPPING[twin](**fields)
    elif type(inner) not in AutoModelForCausalLM._model_mapping:
        raise ModelError(
            f"{source} is a model of text and more ({config.model_type}) whose text part transformers cannot load "
            f"alone: {SUPPORTED}."
        )
    inner.tie_word_embeddings = config.tie_word_embeddings
    if stored := getattr(config, "quantization_config", None):
        inner.quantization_config = stored
    return inner
