"""CPsyCoun (CC BY 4.0) and SMILE (CC0 1.0): Chinese counselling dialogues that models wrote, without strategies.

JSON Lines of ``{"id", "dialog": [{"speaker": "client" | "counselor", "content"}]}``, CPsyCoun's evaluation cases with a
``topic`` (their ids are unique in a topic only).
"""

from collections.abc import Mapping
from typing import Any, Final

from esckit.conversation import Conversation, Speaker
from esckit.corpora.record_reading import Dialogue, Reading, dialogue_name

__all__ = ["LICENCES", "read_counselling_item"]

LICENCES: Final[Mapping[str, str]] = {"cpsycoun": "CC-BY-4.0", "smile": "CC0-1.0"}
_SPEAKERS: Final[Mapping[str, Speaker]] = {"client": "seeker", "counselor": "supporter"}


def read_counselling_item(item: Any, position: int, file: str, *, corpus: str) -> Reading:
    """Read one dialogue of ``cpsycoun`` or ``smile`` (`record_reading`); without an ``id`` its position names it."""
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
