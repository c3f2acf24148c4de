"""What stands in the folders that a recipe names, in hashes: others may take the place of what was there."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from esckit.chat_models.opening import PACE_KEYS, PromptedOptions
from esckit.files import hash_file
from esckit.hub import is_hub_id, is_smollm2
from esckit.judging.better_reply import AcceptOptions
from esckit.judging.rubric import load_rubrics
from esckit.prompts import shipped_prompts
from esckit.prompts.own import Prompts

_SUFFIXES: Final = {".safetensors", ".bin", ".json", ".jinja", ".model"}
_NAMES: Final = {"vocab.txt", "merges.txt"}
_SECONDS: Final = 10.0


def digest(value: Any) -> str:
    """SHA-256 of something JSON-ready, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def source_identity(source: str) -> Any:
    """What a model's or an encoder's source (a folder, a Hub id, ``embedded``, a model behind a URL) stands for now.

    Returns:
        Of a folder, hashes of weights, config, tokenizer and chat template by file; of a GGUF file its hash; of a Hub
        id the revision; of ``smollm2`` the source that it comes from; None where it cannot be told, or the name says
        all.
    """
    from esckit.language_models.folders import adapter_base

    folder = Path(source)
    if is_smollm2(source):
        from esckit.language_models.sources import settled

        return settled(source)
    if folder.is_dir():
        files = (file for file in sorted(folder.iterdir()) if file.suffix in _SUFFIXES or file.name in _NAMES)
        base = adapter_base(source)
        return {file.name: hash_file(file) for file in files} | ({"base": source_identity(base)} if base else {})
    if folder.is_file():
        return hash_file(folder)
    return _revision(source) if is_hub_id(source) and source != "embedded" else None


def _revision(name: str) -> str | None:
    """The commit that the local cache holds of a model, else the one that the Hub would give."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError

    cached = try_to_load_from_cache(name, "config.json")
    if isinstance(cached, str):
        return Path(cached).parent.name
    try:
        return str(HfApi().model_info(name, timeout=_SECONDS).sha)
    except (HTTPError, OSError):  # then nothing can be loaded from there either, and loading says so
        return None


def prompt_texts(prompts: Prompts, languages: Collection[str]) -> dict[str, str]:
    """The texts that a method asks with in dialogues of these languages: a user's where there are, else ours."""
    ours = shipped_prompts(prompts.method, languages)
    return {**{name: text.strip() for name, text in ours.items()}, **prompts.texts}


def answers_identity(options: PromptedOptions, languages: Collection[str]) -> Any:
    """JSON-ready: all of a chat model's options that its answers depend on, prompts and rubrics by their texts.

    What a model's folder holds is not in it (`source_identity`), nor how the model is paced.
    """
    told = options.model_dump(mode="json", exclude=PACE_KEYS | {"prompts", "rubrics"})
    rubrics = load_rubrics(options.rubrics) if isinstance(options, AcceptOptions) else []
    return [
        told,
        prompt_texts(options.read_prompts(), languages),
        [rubric.model_dump(mode="json") for rubric in rubrics],
    ]
