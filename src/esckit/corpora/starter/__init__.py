"""The starter corpus: our own small set of support dialogues, shipped with the package. README.md is its data card."""

import json
from importlib.resources import as_file, files

from esckit.conversation import read_conversations
from esckit.corpora.splits import Corpus, split_by_ids

__all__ = ["LICENCE", "read_starter"]

LICENCE = "CC0-1.0"


def read_starter() -> Corpus:
    """Read the shipped starter corpus in its shipped split."""
    folder = files(__name__)
    with as_file(folder / "dialogues.jsonl") as path:
        conversations = read_conversations(path)
    splits = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
    parts = split_by_ids(conversations, splits, source="starter/splits.json")
    return Corpus("starter", **parts._asdict(), licence=LICENCE, source="esckit's starter corpus")
