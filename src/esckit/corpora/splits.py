"""A corpus: conversations in three parts that share no dialogue; a file is divided by ids or by drawing."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any, Final, NamedTuple

from esckit.conversation import Conversation
from esckit.errors import CorpusError
from esckit.files import decode_json, read_text

DECOUPLED_ESC: Final = "decoupled-esc"
DECOUPLED_ESC_PUBLISHED: Final = "decoupled-esc-published"
PARTS: Final = ("train", "valid", "test")


@dataclass(frozen=True)
class Corpus:
    """Conversations to train on, to choose by, and to measure with; ``valid`` and ``test`` may be empty.

    Raises:
        CorpusError: the training part is empty, or a conversation, or versions of one source, stand in two parts.
    """

    name: str
    train: list[Conversation]
    valid: list[Conversation]
    test: list[Conversation]
    licence: str
    source: str

    def __post_init__(self) -> None:
        if not self.train:
            raise CorpusError(f"the training part of {self.source} is empty: give it dialogues, or another split.")
        for (one, here), (other, there) in combinations(self.parts.items(), 2):
            shared = sorted({origin_of(tree) for tree in here} & {origin_of(tree) for tree in there})
            if shared:
                raise CorpusError(
                    f"{len(shared)} conversations of {self.source}, or what is derived from them, stand in both {one} "
                    f"and {other} (such as {shared[0]!r}): take them out of one part, or nothing measured there means "
                    "anything."
                )

    @property
    def parts(self) -> dict[str, list[Conversation]]:
        """The parts by name."""
        return {part: getattr(self, part) for part in PARTS}


def origin_of(conversation: Conversation) -> str:
    """Id of the dialogue or question that a conversation was derived from (``provenance["derived_from"]``), or its own.

    Versions of one source tell one story: they belong into one part.
    """
    return str(conversation.provenance.get("derived_from", conversation.id))


class Parts(NamedTuple):
    """The three parts of a split, each in the order of the file."""

    train: list[Conversation]
    valid: list[Conversation]
    test: list[Conversation]


def split_by(conversations: Sequence[Conversation], split: str, *, seed: int) -> Parts:
    """Divide conversations as ``split`` says.

    Args:
        conversations: all of them, in the order of their file.
        split: ``decoupled-esc``, ``decoupled-esc-published`` (with the retellings in its training part), the path of an
            id file, a ratio such as ``8:1:1``, drawn, or ``8:1:1 in order``, cut.
        seed: of the draw.

    Raises:
        CorpusError: the split is none of these, or does not fit the conversations.
    """
    if split == DECOUPLED_ESC:
        return split_by_ids(conversations, decoupled_esc_split_ids(), source=split)
    if split == DECOUPLED_ESC_PUBLISHED:
        ids = decoupled_esc_split_ids()
        return split_by_ids(conversations, {**ids, "train": ids["train"] + ids["excluded_from_train"]}, source=split)
    if ":" in split and not Path(split).exists():
        ratio, *cut = split.split(maxsplit=1)
        if cut not in ([], ["in order"]):
            raise CorpusError(f"the split {split!r} cannot be read: write a ratio such as 8:1:1, or '8:1:1 in order'.")
        return split_by_ratio(conversations, ratio, seed=None if cut else seed)
    return split_by_ids(conversations, _read_id_file(Path(split)), source=split)


def decoupled_esc_split_ids() -> dict[str, list[int]]:
    """Positions in the published ESConv.json of DecoupledESC's parts, and of 12 near-duplicates left out of train."""
    text = (files("esckit.corpora") / "decoupled_esc_split_ids.json").read_text(encoding="utf-8")
    ids: dict[str, list[int]] = json.loads(text)
    return ids


def split_by_ratio(conversations: Sequence[Conversation], ratio: str, *, seed: int | None) -> Parts:
    """Draw the parts by dialogue: sizes as ``ratio`` says, rounded; the draw depends on the seed and the ids alone.

    Without a seed nothing is drawn: the first dialogues are the training part, and so on. Versions of one source
    (`origin_of`) are drawn together, so a part may then be larger or smaller by some of them.

    Raises:
        CorpusError: the ratio cannot be read.
    """
    try:
        weights = [float(weight) for weight in ratio.split(":")]
    except ValueError:
        weights = []
    if len(weights) not in (2, 3) or not all(0 <= weight < float("inf") for weight in weights) or not weights[0]:
        raise CorpusError(f"the ratio {ratio!r} cannot be read: write train:valid:test in numbers, such as 8:1:1.")
    versions: dict[str, list[str]] = {}
    for tree in conversations:
        versions.setdefault(origin_of(tree), []).append(tree.id)
    order = list(versions)
    if seed is not None:
        order.sort(key=lambda origin: hashlib.sha256(f"{seed} {origin}".encode()).digest())
    ends = [round(len(conversations) * sum(weights[:count]) / sum(weights)) for count in range(1, len(weights) + 1)]
    part_of: dict[str, str] = {}
    start = 0
    for origin in order:
        part = next(part for part, end in zip(PARTS, ends, strict=False) if start < end)
        part_of |= dict.fromkeys(versions[origin], part)
        start += len(versions[origin])
    return _gather(conversations, part_of)


def split_by_ids(conversations: Sequence[Conversation], ids: dict[str, Any], *, source: str) -> Parts:
    """Take the parts that ``ids`` lists; dialogues that it does not list are in no part.

    Under ``train``, ``valid`` and ``test`` stand conversation ids or (integers) positions in ESConv.json; a key that
    begins with ``excluded`` lists what is left out on purpose. Errors call the ids ``source``.

    Raises:
        CorpusError: the lists have another form, overlap, or name dialogues that are not there.
    """
    _check_ids(ids, source)
    part_of: dict[str, str] = {}
    for part in PARTS:
        for entry in ids.get(part, []):
            conversation_id = f"esconv-{entry}" if isinstance(entry, int) else entry
            if conversation_id in part_of:
                raise CorpusError(
                    f"the split {source} lists {entry!r} for {part_of[conversation_id]} and for {part}: "
                    "list every dialogue once."
                )
            part_of[conversation_id] = part
    missing = sorted(part_of.keys() - {conversation.id for conversation in conversations})
    if missing:
        raise CorpusError(
            f"the split {source} lists {len(part_of)} dialogues, and {len(missing)} of them are not in the file "
            f"(such as {missing[0]!r}): give the file that the ids are about, or train, valid and test files."
        )
    return _gather(conversations, part_of)


def _check_ids(ids: Any, source: str) -> None:
    form = 'write {"train": [ids], "valid": [ids], "test": [ids]}.'
    if not isinstance(ids, dict) or not ids.get("train"):
        raise CorpusError(f"the split {source} lists no dialogues for train: {form}")
    for part, entries in ids.items():
        if part not in PARTS and not part.startswith("excluded"):
            raise CorpusError(f"the split {source} has the unknown part {part!r}: {form}")
        if not isinstance(entries, list) or not all(type(entry) in (int, str) for entry in entries):
            raise CorpusError(f"the split {source} has something else than ids under {part!r}: {form}")


def _read_id_file(path: Path) -> Any:
    text = read_text(path, what=f"an id file, {DECOUPLED_ESC!r} or a ratio such as 8:1:1")
    try:
        return decode_json(text)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{path}:{error.lineno}: not valid JSON ({error.msg}): mend that line.") from error


def _gather(conversations: Sequence[Conversation], part_of: dict[str, str]) -> Parts:
    return Parts(
        *([conversation for conversation in conversations if part_of.get(conversation.id) == part] for part in PARTS)
    )
