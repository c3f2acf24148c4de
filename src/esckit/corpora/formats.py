"""The file formats that dialogues are read from and written to."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

from esckit.conversation import Conversation, read_conversations, write_conversations
from esckit.corpora.esconv import conversation_to_esconv, read_esconv
from esckit.errors import CorpusError
from esckit.files import read_text, write_json

__all__ = ["FORMATS", "Format", "read_corpus", "write_corpus"]

Format = Literal["tree", "esconv"]
FORMATS: Final[tuple[Format, ...]] = ("tree", "esconv")


def read_corpus(path: Path, format: str | None = None) -> list[Conversation]:
    """Read a file of dialogues.

    Args:
        path: a file in one of ``FORMATS``.
        format: which one; None looks at the file's beginning.

    Raises:
        CorpusError: one sentence that names the file and the place, or says that the format is none of ours.
    """
    chosen = detect_format(path) if format is None else _known(format)
    reader: Callable[[Path], list[Conversation]] = read_conversations if chosen == "tree" else read_esconv
    conversations = reader(path)
    if not any(turn.speaker == "supporter" for conversation in conversations for turn in conversation.turns):
        raise CorpusError(
            f"{path} has no supporter turn in {len(conversations)} dialogues: there is nothing to learn or measure, "
            "so check the speaker names, or give another file."
        )
    return conversations


def write_corpus(path: Path, conversations: Sequence[Conversation], format: str = "tree") -> None:
    """Write conversations in one of ``FORMATS``, atomically.

    Raises:
        CorpusError: a conversation does not fit into the format.
        EsckitError: the file cannot be written.
    """
    if _known(format) == "tree":
        write_conversations(path, conversations)
    else:
        write_json(path, [conversation_to_esconv(conversation) for conversation in conversations])


def detect_format(path: Path) -> Format:
    """Tell a file's format from its beginning: a JSON list is ESConv's, a line that names its format is a tree's.

    Raises:
        CorpusError: it is neither.
    """
    start = read_text(path, what="a dialogue file").lstrip()
    if start.startswith("["):
        return "esconv"
    try:
        first = json.loads(start.partition("\n")[0])
    except json.JSONDecodeError:
        first = None
    if isinstance(first, dict) and "format" in first:
        return "tree"
    raise CorpusError(
        f"{path} is neither a JSON list of ESConv dialogues nor JSON Lines of conversation trees: "
        "convert it into one of them, as docs/corpora.md describes."
    )


def _known(format: str) -> str:
    if format not in FORMATS:
        raise CorpusError(f"the corpus format {format!r} is unknown: use one of {', '.join(FORMATS)}.")
    return format
