"""Prompts as text files, a folder a method; slots are written ``{{name}}``, so braces in a dialogue are harmless."""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final

from esckit.errors import EsckitError

__all__ = ["fill_slots", "load_prompt", "shipped_prompts"]

_SLOT: Final = re.compile(r"\{\{(\w+)\}\}")


def load_prompt(method: str, name: str, **slots: str) -> str:
    """Return the prompt ``prompts/<method>/<name>.txt`` with every slot filled, trimmed.

    Raises:
        EsckitError: a slot of the prompt is not given, or a slot is given that the prompt does not have.
    """
    return fill_slots(_shipped(method, name), slots, f"{method}/{name}")


@cache
def _shipped(method: str, name: str) -> str:
    return resources.files(__name__).joinpath(method, f"{name}.txt").read_text(encoding="utf-8").strip()


def fill_slots(text: str, slots: Mapping[str, str], prompt: str) -> str:
    """Fill a text's slots in one pass: what looks like a slot in a value stays as it is. ``prompt`` is its name.

    Raises:
        EsckitError: as `load_prompt`.
    """
    wanted = set(_SLOT.findall(text))
    if wanted != set(slots):
        problem = ", ".join(sorted(wanted ^ set(slots)))
        raise EsckitError(f"prompt {prompt} and its values disagree on {problem}: fill exactly its slots.")
    return _SLOT.sub(lambda match: slots[match[1]], text)


def shipped_prompts(method: str) -> dict[str, str]:
    """The texts of a method's prompts, with their slots, by name."""
    files = resources.files(__name__).joinpath(method).iterdir()
    return {file.name.removesuffix(".txt"): file.read_text(encoding="utf-8") for file in files}
