"""ExTES (Zheng et al. 2024), written by a model.

It is a list of ``{"scene", "description", "content": [{"User": text}, {"AI": text, "AI Strategy": label}, ...]}``.
Its sixteen strategies are read as CSO's eight. As in CSO (appendix F.1), a dialogue with a reply that has no strategy,
"Others", or a label that does not exist is left out.
"""

from typing import Any

from esckit.conversation import Conversation, Problem
from esckit.corpora.labels import LABELS_READ, NO_MAP, LabelMap, ReadLabel, UnknownLabelError, read_label
from esckit.corpora.records import Dialogue, Reading, dialogue_name
from esckit.strategy import CSO, EXTES_TO_CSO, Taxonomy


def read_extes_item(item: Any, position: int | str, file: str = "ExTES.json", labels: LabelMap = NO_MAP) -> Reading:
    """Read one dialogue of ExTES (`records`), named by its position; original labels stay in ``extra``."""
    dialogue = Dialogue(dialogue_name(item, position))
    entries = dialogue.entries(item, "content")
    if not entries:
        return Reading(None, dialogue.problems)
    taxonomy = labels.taxonomy(CSO)
    read = [_read_turn(dialogue, entry, index, taxonomy, labels) for index, entry in enumerate(entries)]
    dropped = [reason for reason in read if reason]
    scene, description = item.get("scene"), item.get("description")
    conversation = Conversation(
        id=f"extes-{position}",
        turns=dialogue.turns,
        taxonomy=taxonomy.name,
        situation=description if isinstance(description, str) else None,
        labels={"scene": scene} if isinstance(scene, str) else {},
        provenance={"corpus": "extes", "file": file},
        extra={key: value for key, value in item.items() if key not in ("scene", "description", "content")},
    )
    return dialogue.reading(conversation, dropped)


def _read_turn(dialogue: Dialogue, entry: Any, index: int, taxonomy: Taxonomy, labels: LabelMap) -> Problem | None:
    """Add one utterance; return why the dialogue has to be dropped for it, if it has to."""
    if not isinstance(entry, dict) or ("User" in entry) == ("AI" in entry):
        dialogue.problem("record", 'is neither {"User": text} nor {"AI": text, "AI Strategy": label}: mend it.', index)
        return None
    extra = {key: value for key, value in entry.items() if key not in ("User", "AI", "AI Strategy")}
    if "User" in entry:
        dialogue.add(index, "seeker", dialogue.text(entry, "User", index), extra=extra)
        return None
    written = entry.get("AI Strategy")
    try:
        read = read_label(written, taxonomy, labels, EXTES_TO_CSO)
    except UnknownLabelError:
        read = ReadLabel(None)
    extra["AI Strategy"] = written
    if read.labels is not None:
        extra[LABELS_READ] = read.labels
    dialogue.add(index, "supporter", dialogue.text(entry, "AI", index), read.strategy, extra)
    return None if read.strategy else _reason(dialogue, written, index)


def _reason(dialogue: Dialogue, written: Any, index: int) -> Problem:
    label = written.strip() if isinstance(written, str) else written
    if label in (None, ""):
        return dialogue.named("no label", "has no `AI Strategy`: the dialogue is left out.", index)
    if label == "Others":
        return dialogue.named("Others", "has the strategy 'Others', which is none of CSO's: it is left out.", index)
    return dialogue.named("unknown label", f"has the unknown strategy {label!r}: the dialogue is left out.", index)
