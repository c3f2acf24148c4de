"""The starter corpora: our own small sets of support dialogues, shipped; each has a data card, README.md."""

import json
from importlib.resources import as_file, files
from typing import Final

from esckit.conversation import read_conversations
from esckit.corpora.splits import Corpus, split_by_ids

__all__ = ["LICENCE", "STARTERS", "read_starter", "starter_in", "starter_roles"]

LICENCE = "CC0-1.0"

STARTERS: Final = {"starter": "esckit's starter corpus", "starter-zh": "esckit's Chinese starter corpus"}
"""What is shipped, by name; the folder has the name, with ``_`` for ``-``."""


def read_starter(name: str = "starter") -> Corpus:
    """Read a shipped starter corpus in its shipped split."""
    folder = files("esckit.corpora") / name.replace("-", "_")
    with as_file(folder / "dialogues.jsonl") as path:
        conversations = read_conversations(path)
    splits = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
    parts = split_by_ids(conversations, splits, source=f"{folder.name}/splits.json")
    return Corpus(name, **parts._asdict(), licence=LICENCE, source=STARTERS[name])


def starter_in(language: str) -> Corpus:
    """The starter corpus in a language, the English one where there is none."""
    return read_starter("starter-zh" if language == "zh" else "starter")


def starter_roles() -> dict[str, str | None]:
    """A dialogue's id to the role of the shipped bank that fits its person best; None where no role fits."""
    roles: dict[str, str | None] = json.loads((files(__name__) / "roles.json").read_text(encoding="utf-8"))
    return roles
