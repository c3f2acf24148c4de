"""The folder where esckit keeps what it made once, and making something there."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from esckit.errors import ModelError
from esckit.files import refusal, sync

__all__ = ["cache_folder", "kept_in_cache"]

_MAKING: Final = "making-"
_STALE: Final = 3600.0  # seconds after which what is being made must be a killed process's


def cache_folder() -> Path:
    """Where made things are kept: ``ESCKIT_CACHE``, else ``esckit`` in ``XDG_CACHE_HOME`` or in ``~/.cache``."""
    if own := os.environ.get("ESCKIT_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "esckit"


def kept_in_cache(name: str, last: str, make: Callable[[Path], object], what: str) -> Path:
    """The folder ``name`` of the cache; it is made where it is not there yet.

    It is made beside its place and appears there whole. So a process that is killed leaves no half of one, and of two
    processes that make it at the same time the first one done wins.

    Args:
        name: of the folder; it must change with all that the contents depend on.
        last: a file that a whole folder has.
        make: writes the folder at the path that it is given.
        what: it is, for the message ("the embedded supporter").

    Raises:
        ModelError: the cache cannot be written; and what ``make`` raises.
    """
    folder = cache_folder() / name
    if (folder / last).exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder.parent)
        with tempfile.TemporaryDirectory(prefix=_MAKING, dir=folder.parent) as work:
            made = Path(work) / "made"
            make(made)
            sync(made)
            _move(made, folder, last)
    except Exception as error:  # safetensors and tokenizers raise nothing narrower
        reason = refusal(error)
        if reason is None:
            raise
        raise ModelError(
            f"{what} cannot be written to {folder.parent} ({reason}): "
            "free space, or set ESCKIT_CACHE to a folder that can be written."
        ) from error
    return folder


def _move(made: Path, folder: Path, last: str) -> None:
    if not (folder / last).exists():
        shutil.rmtree(folder, ignore_errors=True)  # half of one, such as after a removal that was stopped
        try:
            made.rename(folder)
        except OSError:
            if not (folder / last).exists():  # else another process was first
                raise


def _remove_stale(parent: Path) -> None:
    for left in parent.glob(f"{_MAKING}*"):
        with suppress(OSError):  # its owner may remove it just now
            if time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left)
