"""Dialogues that models wrote: ExTES (Zheng et al. 2024), CPsyCoun (CC BY 4.0) and SMILE (CC0 1.0).

ExTES is a list of ``{"scene", "description", "content": [{"User": text}, {"AI": text, "AI Strategy": label}, ...]}``.
Its sixteen strategies are read as CSO's eight. As in CSO (appendix F.1), a dialogue with a reply that has no strategy,
"Others", or a label that does not exist is left out.

CPsyCoun and SMILE are Chinese counselling without strategies: JSON Lines of ``{"id", "dialog": [{"speaker": "client" |
"counselor", "content"}]}``, CPsyCoun's evaluation cases with a ``topic`` (their ids are unique in a topic only).
"""

from collections.abc import Mapping
from typing import Any, Final

from esckit.conversation import Conversation, Problem, Speaker
from esckit.corpora.records import Dialogue, Reading, dialogue_name
from esckit.strategy import CSO, EXTES_TO_CSO

LICENCES: Final[Mapping[str, str]] = {"cpsycoun": "CC-BY-4.0", "smile": "CC0-1.0"}
_SPEAKERS: Final[Mapping[str, Speaker]] = {"client": "seeker", "counselor": "supporter"}
_MAP: Final[Mapping[str, str]] = {label.casefold(): strategy for label, strategy in EXTES_TO_CSO.items()}


def read_extes_item(item: Any, position: int, file: str = "ExTES.json") -> Reading:
    """Read one dialogue of ExTES (`records`), named by its position; original labels stay in ``extra``."""
    dialogue = Dialogue(dialogue_name(item, position))
    entries = dialogue.entries(item, "content")
    if not entries:
        return Reading(None, dialogue.problems)
    dropped = [reason for index, entry in enumerate(entries) if (reason := _read_turn(dialogue, entry, index))]
    scene, description = item.get("scene"), item.get("description")
    conversation = Conversation(
        id=f"extes-{position}",
        turns=dialogue.turns,
        taxonomy=CSO.name,
        situation=description if isinstance(description, str) else None,
        labels={"scene": scene} if isinstance(scene, str) else {},
        provenance={"corpus": "extes", "file": file},
        extra={key: value for key, value in item.items() if key not in ("scene", "description", "content")},
    )
    return dialogue.reading(conversation, dropped)


def _read_turn(dialogue: Dialogue, entry: Any, index: int) -> Problem | None:
    """Add one utterance; return why the dialogue has to be dropped for it, if it has to."""
    if not isinstance(entry, dict) or ("User" in entry) == ("AI" in entry):
        dialogue.problem("record", 'is neither {"User": text} nor {"AI": text, "AI Strategy": label}: mend it.', index)
        return None
    extra = {key: value for key, value in entry.items() if key not in ("User", "AI", "AI Strategy")}
    if "User" in entry:
        dialogue.add(index, "seeker", dialogue.text(entry, "User", index), extra=extra)
        return None
    written = entry.get("AI Strategy")
    strategy = _MAP.get(written.strip().casefold()) if isinstance(written, str) else None
    dialogue.add(index, "supporter", dialogue.text(entry, "AI", index), strategy, {**extra, "AI Strategy": written})
    return None if strategy else _reason(dialogue, written, index)


def _reason(dialogue: Dialogue, written: Any, index: int) -> Problem:
    label = written.strip() if isinstance(written, str) else written
    if label in (None, ""):
        return dialogue.named("no label", "has no `AI Strategy`: the dialogue is left out.", index)
    if label == "Others":
        return dialogue.named("Others", "has the strategy 'Others', which is none of CSO's: it is left out.", index)
    return dialogue.named("unknown label", f"has the unknown strategy {label!r}: the dialogue is left out.", index)


def read_counselling_item(item: Any, position: int, file: str, *, corpus: str) -> Reading:
    """Read one dialogue of ``cpsycoun`` or ``smile`` (`records`); without an ``id`` its position names it."""
    dialogue = Dialogue(dialogue_name(item, position))
    entries = dialogue.entries(item, "dialog")
    if not entries:
        return Reading(None, dialogue.problems)
    for index, entry in enumerate(entries):
        text = dialogue.text(entry, "content", index)
        speaker = dialogue.speaker(entry, _SPEAKERS, index)
        if speaker:
            extra = {key: value for key, value in entry.items() if key not in ("speaker", "content")}
            dialogue.add(index, speaker, text, extra=extra)
    topic = item.get("topic")
    labels = {"topic": topic} if isinstance(topic, str) else {}
    conversation = Conversation(
        id="-".join([corpus, *labels.values(), str(item.get("id", position))]),
        turns=dialogue.turns,
        language="zh",
        taxonomy=None,
        labels=labels,
        provenance={"corpus": corpus, "file": file, "licence": LICENCES[corpus]},
        extra={key: value for key, value in item.items() if key != "dialog" and key not in labels},
    )
    return dialogue.reading(conversation)
