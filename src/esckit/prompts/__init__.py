"""Prompts as text files, a folder a method; slots are written ``{{name}}``, so braces in a dialogue are harmless."""

import re
from importlib import resources

from esckit.errors import EsckitError

__all__ = ["load_prompt"]

_SLOT = re.compile(r"\{\{(\w+)\}\}")


def load_prompt(method: str, name: str, **slots: str) -> str:
    """Return the prompt ``prompts/<method>/<name>.txt`` with every slot filled, trimmed.

    Raises:
        EsckitError: a slot of the prompt is not given, or a slot is given that the prompt does not have.
    """
    text = resources.files(__name__).joinpath(method, f"{name}.txt").read_text(encoding="utf-8").strip()
    wanted = set(_SLOT.findall(text))
    if wanted != set(slots):
        problem = ", ".join(sorted(wanted ^ set(slots)))
        raise EsckitError(f"prompt {method}/{name} and its values disagree on {problem}: fill exactly its slots.")
    return _SLOT.sub(lambda match: slots[match[1]], text)
