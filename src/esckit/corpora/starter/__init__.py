"""The starter corpus: our own small set of support dialogues, shipped with the package. README.md is its data card."""

import json
from importlib.resources import as_file, files

from esckit.conversation import read_conversations
from esckit.corpora.splits import Corpus, split_by_ids

__all__ = ["LICENCE", "read_starter", "starter_roles"]

LICENCE = "CC0-1.0"


def read_starter() -> Corpus:
    """Read the shipped starter corpus in its shipped split."""
    folder = files(__name__)
    with as_file(folder / "dialogues.jsonl") as path:
        conversations = read_conversations(path)
    splits = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
    parts = split_by_ids(conversations, splits, source="starter/splits.json")
    return Corpus("starter", **parts._asdict(), licence=LICENCE, source="esckit's starter corpus")


def starter_roles() -> dict[str, str | None]:
    """A dialogue's id to the role of the shipped bank that fits its person best; None where no role fits."""
    roles: dict[str, str | None] = json.loads((files(__name__) / "roles.json").read_text(encoding="utf-8"))
    return roles
