"""ESConv and FailedESConv (Liu et al. 2021, CC BY-NC 4.0): the published JSON list, and the Hugging Face Hub's rows.

Every published field finds a place in the tree, so a conversation converts back into an equal JSON object. What the
tree has no field for stays in ``extra``, under the name that it has in the source.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from esckit.conversation import Conversation, Speaker, Turn, check_conversation
from esckit.corpora.corpus import Corpus, make_corpus
from esckit.errors import CorpusError
from esckit.files import read_text
from esckit.strategy import ESCONV

__all__ = ["LICENCE", "conversation_to_esconv", "esconv_to_conversation", "read_esconv", "read_esconv_hub"]

LICENCE: Final = "CC-BY-NC-4.0"
_HUB: Final = "thu-coai/esconv"
_LABELS: Final = ("experience_type", "emotion_type", "problem_type")


@dataclass(frozen=True)
class _Release:
    """How one of the authors' files names its speakers, and which of its labels are other names of the eight."""

    corpus: str
    speakers: Mapping[str, Speaker]
    aliases: Mapping[str, str]


_ESCONV: Final = _Release("esconv", {"seeker": "seeker", "supporter": "supporter"}, {})
_FAILED: Final = _Release(
    "failed-esconv",
    {"speaker": "seeker", "listener": "supporter"},
    MappingProxyType(
        {
            "Approval and Reassurance": "Affirmation and Reassurance",
            "Direct Guidance": "Providing Suggestions",
            "Other": "Others",
            "Questions": "Question",
            "Restatement": "Restatement or Paraphrasing",
        }
    ),
)
_HUB_SPEAKERS: Final = {"usr": "seeker", "sys": "supporter"}


# ---------------------------------------------------------------------------------------------------- JSON to the tree


def esconv_to_conversation(item: dict[str, Any], position: int, *, file: str = "ESConv.json") -> Conversation:
    """Build the conversation of one dialogue of ESConv or FailedESConv.

    Args:
        item: one object of the published list.
        position: its place in the file, from 0; it names the conversation where the object has no ``id``.
        file: the file's name, without folders, for the provenance.

    Raises:
        CorpusError: one sentence that names the dialogue, the turn, and what to do.
    """
    where = _name(item, position)
    dialog = item.get("dialog") if isinstance(item, dict) else None
    if not isinstance(dialog, list) or not dialog:
        raise CorpusError(f"{where} has no list `dialog` of utterances: add one, or remove the dialogue.")
    if not isinstance(item.get("id", position), int | str):
        raise CorpusError(f"{where} has an id that is neither a number nor a text: give it one, or leave it out.")
    _check_encodable(item, where)
    release = _release(dialog)
    turns = [_read_turn(entry, index, release, f"{where}, turn {index}") for index, entry in enumerate(dialog)]
    texts = {key: value for key, value in item.items() if isinstance(value, str)}
    conversation = Conversation(
        id=f"{release.corpus}-{item.get('id', position)}",
        turns=turns,
        taxonomy=ESCONV.name,
        situation=texts.get("situation"),
        labels={key: texts[key] for key in _LABELS if key in texts},
        provenance={"corpus": release.corpus, "file": file, "licence": LICENCE},
        extra={
            key: value
            for key, value in item.items()
            if key != "dialog" and not (key in texts and key in (*_LABELS, "situation"))
        },
    )
    check_conversation(conversation)
    return conversation


def _name(item: Any, position: int) -> str:
    named = f" (id {item['id']!r})" if isinstance(item, dict) and "id" in item else ""
    return f"dialogue {position}{named}"


def _check_encodable(item: dict[str, Any], where: str) -> None:
    """Refuse what JSON can spell and no UTF-8 file can hold, now rather than when the tree is written."""
    try:
        json.dumps(item, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise CorpusError(f"{where} holds half a character or a number that is none ({error}): mend it.") from error


def _release(dialog: Sequence[Any]) -> _Release:
    """FailedESConv is known by its speaker names; every other dialogue has to be ESConv's."""
    speakers = [entry.get("speaker") for entry in dialog if isinstance(entry, dict)]
    return _FAILED if any(speaker in speakers for speaker in _FAILED.speakers) else _ESCONV


def _read_turn(entry: Any, index: int, release: _Release, where: str) -> Turn:
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        raise CorpusError(f"{where} has no text under `content`: give every utterance a text.")
    speaker = entry.get("speaker")
    if not isinstance(speaker, str) or speaker not in release.speakers:
        raise CorpusError(f"{where} has the unknown speaker {speaker!r}: use {' or '.join(release.speakers)}.")
    annotation = entry.get("annotation", {})
    if not isinstance(annotation, dict):
        raise CorpusError(f"{where} has an `annotation` that is no object: write {{}} where there is nothing to say.")
    strategy = _read_strategy(annotation, release, where)
    extra = {key: value for key, value in entry.items() if key not in ("speaker", "content", "annotation")}
    if "annotation" not in entry:
        extra["annotation"] = None  # so that writing leaves it out again
    elif rest := {
        key: value for key, value in annotation.items() if key != "strategy" or value != strategy or value is None
    }:
        extra["annotation"] = rest  # an alias and a null strategy stay here as they were written
    parent = str(index - 1) if index else None
    return Turn(str(index), parent, release.speakers[speaker], entry["content"], strategy, extra=extra)


def _read_strategy(annotation: dict[str, Any], release: _Release, where: str) -> str | None:
    written = annotation.get("strategy")
    if written is None:
        return None
    strategy = release.aliases.get(written, written) if isinstance(written, str) else None
    if strategy not in ESCONV.labels:
        raise CorpusError(f"{where} has the unknown strategy {written!r}: use one of {', '.join(ESCONV.labels)}.")
    return strategy


# ---------------------------------------------------------------------------------------------------- the tree to JSON


def conversation_to_esconv(conversation: Conversation) -> dict[str, Any]:
    """Return the ESConv object of a conversation, equal to the object that it was read from.

    Raises:
        CorpusError: the conversation holds what the format cannot: branches, judgements, or another taxonomy.
    """
    problem = _unwritable(conversation)
    if problem:
        raise CorpusError(
            f"conversation {conversation.id!r} has {problem}, which the esconv format cannot hold: write it as a tree."
        )
    release = _FAILED if conversation.provenance.get("corpus") == _FAILED.corpus else _ESCONV
    item = {**conversation.extra, **conversation.labels}
    if conversation.situation is not None:
        item["situation"] = conversation.situation
    item["dialog"] = [_write_turn(turn, release) for turn in conversation.trunk]
    return item


def _unwritable(conversation: Conversation) -> str | None:
    if conversation.taxonomy not in (ESCONV.name, None):
        return f"strategies of the taxonomy {conversation.taxonomy!r}"
    if len(conversation.trunk) != len(conversation.turns) or conversation.preferences:
        return "alternative turns or preferences"
    if any(turn.planned or turn.scores or turn.verdicts for turn in conversation.turns):
        return "planned turns, scores or verdicts"
    return None


def _write_turn(turn: Turn, release: _Release) -> dict[str, Any]:
    speaker = next(name for name, meaning in release.speakers.items() if meaning == turn.speaker)
    entry = {**turn.extra, "speaker": speaker, "content": turn.text}
    annotation = dict(turn.extra.get("annotation") or {})
    if turn.strategy is not None and release.aliases.get(annotation.get("strategy", "")) != turn.strategy:
        annotation["strategy"] = turn.strategy
    entry["annotation"] = annotation
    if not annotation and "annotation" in turn.extra:
        del entry["annotation"]
    return entry


# ---------------------------------------------------------------------------------------------------------------- files


def read_esconv(path: Path) -> list[Conversation]:
    """Read ``ESConv.json``, ``FailedESConv.json``, or a part of one: a JSON list of dialogues.

    Raises:
        CorpusError: one sentence that names the file and the dialogue.
    """
    try:
        items = json.loads(read_text(path, what="an ESConv file"))
    except json.JSONDecodeError as error:
        raise CorpusError(f"{path}:{error.lineno}: not valid JSON ({error.msg}): mend that line.") from error
    if not isinstance(items, list) or not items:
        raise CorpusError(f"{path} is no list of dialogues: an ESConv file is one JSON list with an object a dialogue.")
    conversations: dict[str, Conversation] = {}
    for position, item in enumerate(items):
        try:
            conversation = esconv_to_conversation(item, position, file=path.name)
        except CorpusError as error:
            raise CorpusError(f"{path}: {error}") from error
        if conversation.id in conversations:
            raise CorpusError(f"{path}: {_name(item, position)} has an id that occurs before: make the ids unique.")
        conversations[conversation.id] = conversation
    return list(conversations.values())


def read_esconv_hub(download: Callable[[str], Path] | None = None) -> Corpus:
    """Fetch ESConv from the Hugging Face Hub, in the parts that its authors publish there (910 / 195 / 195 dialogues).

    The rows there have no ids, their text has its white space collapsed, and their parts are not DecoupledESC's.

    Args:
        download: fetches a file of the Hub's repository by name; the default asks ``huggingface_hub``.

    Raises:
        CorpusError: the Hub cannot be reached, or a row is not what it used to be.
    """
    parts: dict[str, list[Conversation]] = {}
    for part in ("train", "valid", "test"):
        try:
            path = (download or _download)(f"{part}.txt")
        except (ImportError, OSError) as error:
            raise CorpusError(
                f"{_HUB} cannot be fetched from the Hugging Face Hub ({type(error).__name__}): install esckit[train] "
                "and go online, or give a local ESConv file as docs/corpora.md describes."
            ) from error
        lines = read_text(path, what=f"{_HUB}'s {part}.txt").split("\n")
        parts[part] = [hub_row_to_conversation(line, n, part) for n, line in enumerate(lines, 1) if line.strip()]
    return make_corpus("esconv", **parts, licence=LICENCE, source=f"https://huggingface.co/datasets/{_HUB}")


def _download(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError

    try:
        return Path(hf_hub_download(_HUB, name, repo_type="dataset"))
    except HTTPError as error:  # a broken transfer; all other failures are OSErrors already
        raise OSError(str(error)) from error


def hub_row_to_conversation(line: str, number: int, part: str) -> Conversation:
    """Build a conversation from one line of the Hub's files: a dialogue, or an object with the dialogue under ``text``.

    Raises:
        CorpusError: one sentence that names the file, the line and the turn.
    """
    try:
        row = json.loads(line)
        item = json.loads(row["text"]) if isinstance(row, dict) and "text" in row else row
        dialog = [
            {
                "speaker": _HUB_SPEAKERS.get(entry["speaker"], entry["speaker"]),
                "annotation": {"strategy": entry["strategy"]} if "strategy" in entry else {},
                "content": entry["text"],
            }
            for entry in item["dialog"]
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise CorpusError(
            f"{_HUB} {part}.txt:{number}: the row is no dialogue of the known form ({type(error).__name__}: {error}): "
            "give a local ESConv file as docs/corpora.md describes."
        ) from error
    try:
        conversation = esconv_to_conversation({**item, "dialog": dialog}, number - 1, file=f"{part}.txt")
    except CorpusError as error:
        raise CorpusError(f"{_HUB} {part}.txt:{number}: {error}") from error
    return replace(conversation, id=f"esconv-hub-{part}-{number - 1}")
