"""ESConv and FailedESConv (Liu et al. 2021, CC BY-NC 4.0): the published form, and the Hugging Face Hub's rows.

Every published field finds a place in the tree, so a conversation converts back into an equal JSON object. What the
tree has no field for stays in ``extra``, under the name that it has in the source. Rows of ``text``, ``usr`` and
``sys`` are read as the published form, and written in it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from esckit.conversation import Conversation, Speaker, Turn
from esckit.corpora.forms import unwrapped
from esckit.corpora.labels import LABELS_READ, NO_MAP, LabelMap, UnknownLabelError, read_label
from esckit.corpora.records import Dialogue, Reading, dialogue_name
from esckit.corpora.scripts import language_of
from esckit.corpora.speakers import speaker_of
from esckit.corpora.splits import Corpus
from esckit.errors import CorpusError
from esckit.files import read_text
from esckit.hub import unreachable
from esckit.strategy import ESCONV, FAILED_ESCONV_TO_ESCONV, Taxonomy

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
_FAILED: Final = _Release("failed-esconv", {"speaker": "seeker", "listener": "supporter"}, FAILED_ESCONV_TO_ESCONV)


def read_esconv_item(item: Any, position: int | str, file: str = "ESConv.json", labels: LabelMap = NO_MAP) -> Reading:
    """Read one dialogue of ESConv or FailedESConv (`records`); without an ``id`` its position names it."""
    dialogue = Dialogue(dialogue_name(item, position))
    entries = dialogue.entries(item, "dialog")
    if not entries:
        return Reading(None, dialogue.problems)
    entries = [_published(entry) for entry in entries]
    release = _release(entries)
    reader = _TurnReader(dialogue, release, labels, labels.taxonomy(ESCONV))
    for index, entry in enumerate(entries):
        reader.read(entry, index)
    texts = {key: value for key, value in item.items() if isinstance(value, str)}
    conversation = Conversation(
        id=f"{release.corpus}-{item.get('id', position)}",
        turns=dialogue.turns,
        language=language_of(dialogue.turns),
        taxonomy=reader.taxonomy.name,
        situation=texts.get("situation"),
        labels={key: texts[key] for key in _LABELS if key in texts},
        provenance={"corpus": release.corpus, "file": file, "licence": LICENCE},
        extra={
            key: value
            for key, value in item.items()
            if key != "dialog" and not (key in texts and key in (*_LABELS, "situation"))
        },
    )
    return dialogue.reading(conversation)


def _release(dialog: Sequence[Any]) -> _Release:
    """FailedESConv is known by its speaker names; every other dialogue has to be ESConv's."""
    speakers = [entry.get("speaker") for entry in dialog if isinstance(entry, dict)]
    return _FAILED if any(speaker in speakers for speaker in _FAILED.speakers) else _ESCONV


def _published(entry: Any) -> Any:
    """A row's entry (``text``, a strategy beside it) in the published form; any other entry as it is."""
    if not isinstance(entry, dict) or "content" in entry or "text" not in entry:
        return entry
    rest = {key: value for key, value in entry.items() if key not in ("text", "strategy")}
    rest["speaker"] = speaker_of(entry.get("speaker")) or entry.get("speaker")
    strategy = entry.get("strategy")
    return {"annotation": {} if strategy is None else {"strategy": strategy}, **rest, "content": entry["text"]}


class _TurnReader(NamedTuple):
    """Adds utterances to a dialogue."""

    dialogue: Dialogue
    release: _Release
    labels: LabelMap
    taxonomy: Taxonomy

    def read(self, entry: Any, index: int) -> None:
        text = self.dialogue.text(entry, "content", index)
        speaker = self.dialogue.speaker(entry, self.release.speakers, index)
        if not isinstance(entry, dict):
            return
        annotation = entry.get("annotation", {})
        if not isinstance(annotation, dict):
            problem = "has an `annotation` that is no object: write {} where there is nothing to say."
            self.dialogue.problem("record", problem, index)
            annotation = {}
        written = annotation.get("strategy", entry.get("strategy") if speaker == "supporter" else None)
        read = self.dialogue.label(written, index, self.taxonomy, self.labels, self.release.aliases)
        extra = {key: value for key, value in entry.items() if key not in ("speaker", "content", "annotation")}
        if speaker is not None and entry["speaker"] not in self.release.speakers:
            extra["speaker"] = entry["speaker"]  # another spelling is written back
        if "annotation" not in entry:
            extra["annotation"] = None  # so that writing leaves it out again
        elif rest := {k: v for k, v in annotation.items() if k != "strategy" or v != read.strategy or v is None}:
            extra["annotation"] = rest  # a label that is written otherwise, and a null, stay here as they were written
        if read.labels is not None:
            extra[LABELS_READ] = read.labels
        self.dialogue.add(index, speaker, text, read.strategy, extra)


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
    rest = {key: value for key, value in turn.extra.items() if key != LABELS_READ}
    entry = {"speaker": speaker, **rest, "content": turn.text}
    annotation = dict(turn.extra.get("annotation") or {})
    place = entry if turn.speaker == "supporter" and "strategy" in rest and "strategy" not in annotation else annotation
    if turn.strategy != _read_back(turn, place.get("strategy"), release):
        place.pop("strategy", None)
        place |= {} if turn.strategy is None else {"strategy": turn.strategy}
    entry["annotation"] = annotation
    if not annotation and "annotation" in turn.extra:
        del entry["annotation"]
    return entry


def _read_back(turn: Turn, written: Any, release: _Release) -> str | None:
    """The strategy that a label as written was read as; it is written again where it still is the turn's."""
    if (labels := turn.extra.get(LABELS_READ)) is not None:
        return labels[0] if labels else None
    try:
        return read_label(written, ESCONV, aliases=release.aliases).strategy
    except UnknownLabelError:  # of a tree that was labelled anew
        return None


class SurveyCount(NamedTuple):
    """What the seekers' own surveys say of dialogues that are given as failed."""

    dialogues: int
    no_failure: int
    no_final_intensity: int

    def __str__(self) -> str:
        return (
            f"{self.no_failure} of {self.dialogues} dialogues given as failed are no failures by their own survey (the "
            "intensity of the emotion fell, empathy and relevance are above 3), and "
            f"{self.no_final_intensity} have no final intensity"
        )


def count_surveys(conversations: Sequence[Conversation]) -> SurveyCount | None:
    """Count the dialogues that are no failures by their own survey: ESConv's scores of 1 to 5; None without surveys."""
    surveys = [tree.extra["survey_score"] for tree in conversations if "survey_score" in tree.extra]
    if not surveys:
        return None
    seekers = [survey.get("seeker") or {} if isinstance(survey, dict) else {} for survey in surveys]
    no_final = sum(_score(seeker, "final_emotion_intensity") is None for seeker in seekers)
    return SurveyCount(len(conversations), sum(map(_is_no_failure, seekers)), no_final)


def _is_no_failure(seeker: dict[str, Any]) -> bool:
    names = ("initial_emotion_intensity", "final_emotion_intensity", "empathy", "relevance")
    before, after, empathy, relevance = (_score(seeker, name) for name in names)
    if before is None or after is None or empathy is None or relevance is None:
        return False
    return after < before and empathy > 3 and relevance > 3


def _score(seeker: Any, name: str) -> int | None:
    value = seeker.get(name) if isinstance(seeker, dict) else None
    return int(value) if isinstance(value, int | str) and str(value).strip().isdecimal() else None


def read_esconv_hub(download: Callable[[str], Path] | None = None) -> Corpus:
    """Fetch ESConv from the Hugging Face Hub, in the parts that its authors publish there (910 / 195 / 195 dialogues).

    The rows there have no ids, their text has its white space collapsed, and their parts are not DecoupledESC's.
    ``download`` fetches a file of the Hub's repository by name; the default asks ``huggingface_hub``.

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
    return Corpus("esconv", **parts, licence=LICENCE, source=f"https://huggingface.co/datasets/{_HUB}")


def _download(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError

    if unreachable(_HUB, file=name, kind="dataset"):
        raise ConnectionError
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
        item = unwrapped(json.loads(line))
        for entry in item["dialog"]:
            entry["speaker"], entry["text"]
    except (ValueError, TypeError, KeyError) as error:
        raise CorpusError(
            f"{_HUB} {part}.txt:{number}: the row is no dialogue of the known form ({type(error).__name__}: {error}): "
            "give a local ESConv file as docs/corpora.md describes."
        ) from error
    reading = read_esconv_item(item, number - 1, f"{part}.txt")
    for problem in reading.problems:
        raise CorpusError(f"{_HUB} {part}.txt:{number}: {problem.text}")
    assert reading.conversation is not None
    return replace(reading.conversation, id=f"esconv-hub-{part}-{number - 1}")
