"""Prompts as text files, a folder a method; slots are written ``{{name}}``, so braces in a dialogue are harmless.

``NAME.txt`` is English, ``NAME.zh.txt`` beside it the same in Chinese. A method without any translation asks in English
whatever the dialogue's language is.
"""

import re
from collections.abc import Collection, Mapping
from functools import cache
from importlib import resources
from typing import Final

from esckit.errors import EsckitError

__all__ = ["file_name", "fill_slots", "languages_of", "load_prompt", "shipped_prompts"]

_SLOT: Final = re.compile(r"\{\{(\w+)\}\}")


def load_prompt(method: str, name: str, language: str = "en", **slots: str) -> str:
    """Return the prompt ``prompts/<method>/<name>.txt`` in a language with every slot filled, trimmed.

    Raises:
        EsckitError: the method is translated, but not into this language; a slot of the prompt is not given, or a slot
            is given that the prompt does not have.
    """
    file = file_name(method, name, language)
    return fill_slots(_shipped(method, file), slots, f"{method}/{file}")


def file_name(method: str, name: str, language: str) -> str:
    """The name of a prompt's file in a language, without ``.txt``.

    Raises:
        EsckitError: the method is translated, but not into this language.
    """
    languages = languages_of(method)
    if language == "en" or len(languages) == 1:
        return name
    if language not in languages:
        raise EsckitError(
            f"there are no prompts in {language!r} for {method}, only in {' and '.join(languages)}: use dialogues in "
            "one of these, or give their language as one of these where it is wrong."
        )
    return f"{name}.{language}"


@cache
def languages_of(method: str) -> tuple[str, ...]:
    """The languages that a method's prompts are written in, English first."""
    return ("en", *sorted({language for name in _names(method) if (language := _language(name)) != "en"}))


def _language(name: str) -> str:
    return name.partition(".")[2] or "en"


@cache
def _names(method: str) -> tuple[str, ...]:
    files = resources.files(__name__).joinpath(method).iterdir()
    return tuple(sorted(file.name.removesuffix(".txt") for file in files if file.name.endswith(".txt")))


@cache
def _shipped(method: str, file: str) -> str:
    return resources.files(__name__).joinpath(method, f"{file}.txt").read_text(encoding="utf-8").strip()


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


def shipped_prompts(method: str, languages: Collection[str] | None = None) -> dict[str, str]:
    """The texts of a method's prompts, with their slots, by the names of their files.

    ``languages`` are those beside English; None takes all that there are.
    """
    folder = resources.files(__name__).joinpath(method)
    return {
        name: folder.joinpath(f"{name}.txt").read_text(encoding="utf-8")
        for name in _names(method)
        if languages is None or _language(name) in {"en", *languages}
    }
