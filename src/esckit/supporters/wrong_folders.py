"""What is named as a supporter or a planner and is none: a sentence about what it is, and what to give instead."""

from pathlib import Path
from typing import Final

from esckit.chat_models.opening import REMOTE
from esckit.errors import ModelError

__all__ = ["not_a_planner", "not_a_supporter"]

_SHOWN: Final = 6
_KINDS: Final = (
    ("recipe.json", "an esckit run"),
    ("planner.json", "an encoder planner, which chooses strategies and writes no replies"),
    ("store.json", "a store of replies, which belongs into a supporter"),
    ("annotator.json", "an annotator of psychological errors"),
    ("trees.jsonl", "what a stage of a run wrote"),
    ("predictions.jsonl", "what a stage of a run predicted"),
)
"""A file that tells a kind of folder, and what that is; the first that fits counts."""


def not_a_supporter(name: str) -> ModelError:
    """The sentence for what was named as a supporter."""
    return ModelError(f"{name} {_what_it_is(Path(name), 'supporter')}.")


def not_a_planner(name: str) -> ModelError:
    """The sentence for what was named as a planner."""
    return ModelError(f"{name} {_what_it_is(Path(name), 'planner')}.")


def _what_it_is(path: Path, wanted: str) -> str:
    ways = {
        "supporter": f"give a supporter's folder, a model's, a Hub id (owner/name), smollm2, or {REMOTE}MODEL",
        "planner": "give the folder of an encoder planner or of a supporter, or embedded",
    }
    if path.is_file():
        return f"is a file and no {wanted}'s folder{_use_of_file(path)}: {ways[wanted]}"
    if not path.is_dir():
        return f"is nothing here: {ways[wanted]}"
    marked = next((what for pattern, what in _KINDS if (path / pattern).exists()), None)
    inside = _inside(path, wanted)
    what = f"is {marked}" if marked else f"is no {wanted}'s folder"
    if inside:
        others = ", or another" * (len(inside) > 1)
        return f"{what}; it holds {', '.join(inside[:_SHOWN])}: give {path / inside[0]}{others}"
    if wanted == "supporter" and marked and "planner" in marked:
        return f"{what}: give a supporter's folder, or a model with this one as its planner"
    return f"{what}, but holds {_content(path)}: {ways[wanted]}" if not marked else f"{what}: {ways[wanted]}"


def _inside(folder: Path, wanted: str) -> list[str]:
    """The folders below that can be given instead: supporters and planners first, then adapters and models."""
    marks = ["supporter.json", "planner.json"] if wanted == "planner" else ["supporter.json"]
    marks += [] if wanted == "planner" else ["adapter_config.json", "config.json"]
    for mark in marks:
        for pattern in (f"*/{mark}", f"*/*/{mark}"):
            if found := sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob(pattern)):
                return found
    return []


def _use_of_file(path: Path) -> str:
    if path.suffix in (".jsonl", ".json", ".csv"):
        return " (dialogues and predictions are read by esckit evaluate and corpus)"
    return ""


def _content(folder: Path) -> str:
    names = sorted(f"{path.name}{'/' * path.is_dir()}" for path in folder.iterdir())
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "nothing"
