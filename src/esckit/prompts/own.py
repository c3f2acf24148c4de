"""A user's own prompts in the place of shipped ones: a folder that is checked whole before anything is asked."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Final

from esckit.errors import EsckitError
from esckit.files import atomic, read_text, writing
from esckit.prompts import fill_slots, load_prompt, shipped_prompts

METHODS: Final = ("baselines", "derivation", "judge", "psychological_errors", "self_refinement", "tree_search")
"""Whose prompts a user may replace: these ask a chat model."""

_LAYOUTS: Final = ("support", "decoupled_esc")
_ANY_SLOT: Final = re.compile(r"\{\{([^{}]*)\}\}")
"""Whatever stands in two braces: ``{{ name }}`` was meant as a slot, too, and would be sent as it stands."""


@dataclass(frozen=True)
class Prompts:
    """What one method asks with: a user's text where there is one, else the shipped one."""

    method: str  # of `METHODS`
    folder: str = ""  # the last part of the user's folder's name; empty where all prompts are the shipped ones
    # the user's, by name, as far as they differ from the shipped ones
    texts: Mapping[str, str] = field(default_factory=dict)

    def fill(self, name: str, language: str = "en", **slots: str) -> str:
        """Return a prompt in a language with every slot filled.

        A user's ``NAME.txt`` counts in every language for which no ``NAME.LANGUAGE.txt`` of theirs stands beside it.

        Raises:
            EsckitError: as `load_prompt`.
        """
        for own in (f"{name}.{language}", name):
            if own in self.texts:
                return fill_slots(self.texts[own], slots, f"{self.method}/{own}")
        return load_prompt(self.method, name, language, **slots)

    @property
    def digest(self) -> str | None:
        """SHA-256 of the user's texts, in hexadecimal; None where all prompts are the shipped ones."""
        return sha256(json.dumps(self.texts, sort_keys=True).encode()).hexdigest() if self.texts else None

    @property
    def label(self) -> str | None:
        """For records: the folder's name and the beginning of the digest; None where all are the shipped ones."""
        return f"{self.folder}@{self.digest[:8]}" if self.digest else None


def read_prompts(folder: str | Path | None, method: str) -> Prompts:
    """Read a user's prompts of a method, and check all that the folder holds.

    The folder is laid out like the shipped prompts (``judge/score.txt``); hidden files are passed over. None takes the
    shipped ones.

    Raises:
        EsckitError: the folder cannot be read or holds no prompt of the method, or one of its files is no prompt that a
            user may replace, is not UTF-8, is empty, lacks a slot, or has one that nothing fills.
    """
    if folder is None:
        return Prompts(method)
    root = Path(folder)
    shipped = {f"{each}/{name}.txt": text for each in METHODS for name, text in shipped_prompts(each).items()}
    found = {name: _read(root / name, name, shipped) for name in _names(root)}
    own = {name: text for name, text in found.items() if name.startswith(f"{method}/")}
    if not own:
        asked = ", ".join(f"{method}/{name}.txt" for name in shipped_prompts(method, ()))
        raise EsckitError(
            f"the prompts folder {root} holds none of what is asked here with ({asked}): put your own of these there, "
            "or leave the folder out."
        )
    changed = {name for name, text in own.items() if text != shipped[name].strip()}
    # a translation that is kept as it was stays before a changed NAME.txt
    changed |= {name for name in own if f"{name.partition('.')[0]}.txt" in changed}
    texts = {Path(name).stem: own[name] for name in own if name in changed}
    return Prompts(method, root.resolve().name, texts)


def _names(root: Path) -> list[str]:
    """What a folder and its folders hold, but for hidden files, as ``method/name.txt``."""
    try:
        tops = _visible(root)
        inside = [path for top in tops if top.is_dir() for path in _visible(top)]
    except OSError as error:
        raise EsckitError(
            f"the prompts folder {root} cannot be read ({error.strerror}): give a folder as esckit prompts FOLDER "
            "writes it."
        ) from error
    return [path.relative_to(root).as_posix() for path in [*(top for top in tops if not top.is_dir()), *inside]]


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _read(path: Path, name: str, shipped: Mapping[str, str]) -> str:
    """The text of a file that has a shipped prompt's name, and that prompt's slots."""
    if name.split("/")[0] in _LAYOUTS:
        raise EsckitError(
            f"{path} belongs to a layout that models are trained in, whose prompts stay the shipped ones: remove it "
            "from the prompts folder."
        )
    if name not in shipped:
        near = get_close_matches(name, shipped, n=3, cutoff=0.5) or sorted(shipped)
        raise EsckitError(f"{path} has the name of no prompt: name it like one that it replaces ({', '.join(near)}).")
    text = read_text(path, what="a prompt", error=EsckitError).strip()
    if not text:
        raise EsckitError(f"{path} is empty: write the prompt, or remove the file for the shipped one.")
    slots, has = set(_ANY_SLOT.findall(shipped[name])), set(_ANY_SLOT.findall(text))
    known = ", ".join(f"{{{{{slot}}}}}" for slot in sorted(slots)) or "none"
    if unfilled := sorted(has - slots):
        raise EsckitError(f"{path} has the slot {{{{{unfilled[0]}}}}}, which nothing fills: its slots are {known}.")
    if missing := sorted(slots - has):
        raise EsckitError(
            f"{path} lacks the slot {{{{{missing[0]}}}}}, and what belongs there would be left out in silence: "
            f"write it where it belongs (its slots are {known})."
        )
    return text


def write_prompts(out: Path) -> list[str]:
    """Write the shipped prompts of `METHODS` into a new folder, for a user to change; return their names.

    Raises:
        EsckitError: there is something already, or the folder cannot be written.
    """
    with writing(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise EsckitError(f"{out} is there already and is not overwritten: give a folder that is new or empty.")
    names = []
    with atomic(out) as folder:
        for method in METHODS:
            (folder / method).mkdir(parents=True)
            for name, text in sorted(shipped_prompts(method).items()):
                (folder / method / f"{name}.txt").write_text(text, encoding="utf-8", newline="\n")
                names.append(f"{method}/{name}.txt")
    return names
