"""Folders that are named as a model: a sentence about what is in one that is none, and the base of an adapter."""

import json
from pathlib import Path
from typing import Final

from esckit.errors import ModelError

_WEIGHTS: Final = ("*.safetensors", "pytorch_model*.bin")
_SAVED: Final = "give a folder saved by save_pretrained"
_KINDS: Final = (
    ("supporter.json", "an esckit supporter", "give it to esckit predict or chat, or as a chat model"),
    ("recipe.json", "an esckit run", "give the folder of one of its models or supporters"),
    ("model_index.json", "a diffusers pipeline, which makes images", "give a causal language model"),
    ("*.gguf", "a GGUF file", "give the file itself"),
    ("*.onnx", "an ONNX model", _SAVED),
    ("consolidated*", "weights in their publisher's own form", "give the model in the form of transformers"),
    ("*.safetensors", "weights", "restore the config that fits them"),
    ("pytorch_model*.bin", "weights", "restore the config that fits them"),
    ("tokenizer.json", "a tokenizer", "give the folder that holds the model too"),
)
"""A file that tells a kind of folder, what that is, and what to do; the first that fits counts."""
_POINTER: Final = b"version https://git-lfs"
_SHOWN: Final = 6


def adapter_base(source: str) -> str | None:
    """The model that a PEFT adapter's folder names as its base; None where the source is no such folder.

    Raises:
        ModelError: the adapter names none, or cannot be read.
    """
    path = Path(source) / "adapter_config.json"
    if not path.is_file() or (Path(source) / "config.json").exists():
        return None
    try:
        base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{path} is no adapter's config ({error}): save the adapter again.") from error
    if not base:
        raise ModelError(f"{source} is an adapter that names no base: write base_model_name_or_path into {path.name}.")
    return str(base)


def check_folder(folder: Path, *, weights: bool = True) -> None:
    """Check that a folder can be a model's: a config, and weights where they are needed.

    Raises:
        ModelError: it is something else; one sentence says what is in it.
    """
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder} {_what_it_is(folder)}.")
    found = [path for pattern in _WEIGHTS for path in sorted(folder.glob(pattern))]
    if weights and not found:
        raise ModelError(f"{folder} has no weights (*.safetensors), but {_content(folder)}: {_SAVED}.")
    for path in found:
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise ModelError(f"{path} is a Git LFS pointer and no weights: run `git lfs pull` in {folder}.")


def _what_it_is(folder: Path) -> str:
    for pattern, what, do in _KINDS:
        if first := next(iter(sorted(folder.glob(pattern))), None):
            named = f", {first}" if first.suffix == ".gguf" else ""
            return f"is no model's folder, it has no config.json, but {what} ({_content(folder)}): {do}{named}"
    inside = sorted(path.parent.name for path in folder.glob("*/config.json"))
    if inside:
        return f"is no model's folder, but holds some: give {folder / inside[0]}{', or another' * (len(inside) > 1)}"
    return f"is no model's folder, it has no config.json, but {_content(folder)}: {_SAVED}"


def _content(folder: Path) -> str:
    """What is in a folder, in a few names."""
    names = sorted(f"{path.name}{'/' * path.is_dir()}" for path in folder.iterdir())
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "nothing"
