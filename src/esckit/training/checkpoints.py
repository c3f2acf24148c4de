"""Checkpoints of a training run: which are whole, and which are kept."""

import json
import shutil
from pathlib import Path
from typing import Final

from esckit.files import sync, write_json

_COMPLETE: Final = "complete"  # the mark that is written last into a checkpoint: its files with their sizes
_KEPT: Final = 2


def mark_whole(checkpoint: Path) -> None:
    """Mark a checkpoint as whole once it is on the disk, and only then remove those that it replaces."""
    sync(checkpoint)
    write_json(checkpoint / _COMPLETE, _sizes(checkpoint))
    kept = _whole_checkpoints(checkpoint.parent)[-_KEPT:]
    for other in checkpoint.parent.glob("checkpoint-*"):  # also what is left of one that could not be finished
        if other not in kept:
            shutil.rmtree(other)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder; one that is not as it was when it was marked is never taken."""
    return next(reversed(_whole_checkpoints(folder)), None)


def _whole_checkpoints(folder: Path) -> list[Path]:
    """In the order of their steps."""
    whole = [checkpoint for checkpoint in folder.glob("checkpoint-*") if _is_whole(checkpoint)]
    return sorted(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def _is_whole(checkpoint: Path) -> bool:
    mark = checkpoint / _COMPLETE
    try:
        return mark.exists() and bool(json.loads(mark.read_bytes()) == _sizes(checkpoint))
    except ValueError:  # the mark itself is broken
        return False


def _sizes(checkpoint: Path) -> dict[str, int]:
    """Every file of a checkpoint but the mark, in bytes."""
    files = (path for path in checkpoint.rglob("*") if path.is_file() and path != checkpoint / _COMPLETE)
    return {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}
