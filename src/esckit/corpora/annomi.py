"""AnnoMI (Wu et al. 2022): transcripts of motivational-interviewing demonstrations, labelled by experts.

A table with a row an utterance and annotator. Its labels are what the therapist mainly does (the taxonomy ``annomi``),
no support strategies; where several experts labelled an utterance, the most frequent label counts, and of equally
frequent ones the one that the earliest annotator gave. All annotations stay in ``extra``.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from esckit.conversation import Conversation, Speaker
from esckit.corpora.encodings import text_of
from esckit.corpora.labels import LABELS_READ, NO_MAP, LabelMap
from esckit.corpora.records import Dialogue, Reading
from esckit.corpora.source_files import Record
from esckit.strategy import ANNOMI, Taxonomy

LICENCE: Final = (
    'none stated (no licence file; README: released "to benefit research community", "publicly and freely available")'
)
_CORPUS: Final = "annomi"
_SPEAKERS: Final[Mapping[str, Speaker]] = {"client": "seeker", "therapist": "supporter"}
_OF_TRANSCRIPT: Final = ("transcript_id", "mi_quality", "video_title", "video_url", "topic")
_OF_UTTERANCE: Final = ("utterance_id", "interlocutor", "timestamp", "utterance_text")
_OF_ANNOTATION: Final = ("annotator_id", "main_therapist_behaviour", "client_talk_type")
_COLUMNS: Final = (*_OF_TRANSCRIPT, *_OF_UTTERANCE, *_OF_ANNOTATION)
_NONE: Final = "n/a"

Row = dict[str, str]


def annomi_records(path: Path) -> Iterator[Record]:
    """Yield the transcripts of ``AnnoMI-full.csv``, each a list of its rows, in the order of their first rows."""
    reader = csv.DictReader(io.StringIO(text_of(path, "AnnoMI-full.csv"), newline=""))
    missing = sorted(set(_COLUMNS) - set(reader.fieldnames or ()))
    if missing:
        yield Record(1, problem=f"the table has no column {', '.join(missing)}: give AnnoMI-full.csv as published.")
        return
    transcripts: dict[str, list[Row]] = {}
    lines: dict[str, int] = {}
    before = reader.line_num
    for row in reader:
        if None in row or None in row.values():
            yield Record(before + 1, problem="this row has not as many cells as the table has columns: mend it.")
        else:
            lines.setdefault(row["transcript_id"], before + 1)
            transcripts.setdefault(row["transcript_id"], []).append(row)
        before = reader.line_num
    for name, rows in transcripts.items():
        yield Record(lines[name], rows)


def read_annomi_transcript(
    rows: Sequence[Row], position: int | str, file: str = "AnnoMI-full.csv", labels: LabelMap = NO_MAP
) -> Reading:
    """Read one transcript (`records`) from its rows, one for each utterance and annotator."""
    first = rows[0]
    dialogue = Dialogue(f"transcript {first['transcript_id']}")
    utterances: dict[str, list[Row]] = {}
    for row in rows:
        utterances.setdefault(row["utterance_id"], []).append(row)
    taxonomy = labels.taxonomy(ANNOMI)
    for name, annotations in utterances.items():
        _read_utterance(dialogue, name, annotations, taxonomy, labels)
    conversation = Conversation(
        id=f"{_CORPUS}-{first['transcript_id']}",
        turns=dialogue.turns,
        taxonomy=taxonomy.name,
        labels={key: first[key] for key in ("topic", "mi_quality")},
        provenance={"corpus": _CORPUS, "file": file, "licence": LICENCE},
        extra={key: first[key] for key in ("video_title", "video_url")},
    )
    return dialogue.reading(conversation)


def _read_utterance(
    dialogue: Dialogue, name: str, annotations: Sequence[Row], taxonomy: Taxonomy, labels: LabelMap
) -> None:
    first = annotations[0]
    speaker = _SPEAKERS.get(first["interlocutor"])
    if not name.isdecimal() or speaker is None:
        known = " or ".join(_SPEAKERS)
        dialogue.problem(
            "speaker", f"has an utterance {name!r} by {first['interlocutor']!r}: use numbers, and {known}."
        )
        return
    behaviour = _majority(annotations, "main_therapist_behaviour")
    read = dialogue.label(behaviour, int(name), taxonomy, labels)
    extra: dict[str, Any] = {"timestamp": first["timestamp"]}
    if read.labels is not None:
        extra[LABELS_READ] = read.labels
    if talk := _majority(annotations, "client_talk_type"):
        extra["client_talk_type"] = talk
    known_columns = (*_OF_TRANSCRIPT, *_OF_UTTERANCE)
    extra["annotations"] = [
        {key: value for key, value in row.items() if key not in known_columns and value != _NONE} for row in annotations
    ]
    dialogue.add(int(name), speaker, first["utterance_text"], read.strategy, extra)


def _majority(annotations: Sequence[Row], column: str) -> str | None:
    """The most frequent value, the first of equally frequent ones; None where there is none."""
    counts = Counter(row[column] for row in annotations if row[column] != _NONE)
    return counts.most_common(1)[0][0] if counts else None
