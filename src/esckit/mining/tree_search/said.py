"""What a chat model said, as a turn's text: without thought, quotes, names and marks around it."""

import re
from typing import Final

from esckit.conversation.thoughts import without_thought
from esckit.strategy import Taxonomy, fold_label

__all__ = ["clean_reply", "ends_the_talk"]

_END: Final = re.compile(r"\[\s*/?\s*end\s*/?\s*\]|<\s*/?\s*end\s*/?\s*>|/end/", re.IGNORECASE)
_NAMES: Final = frozenset(
    {"seeker", "supporter", "user", "assistant", "person", "helper", "me", "you", "reply", "response", "strategy"}
)
_MARK: Final = re.compile(
    r"\s*(?:[\[(]\s*(?P<marked>[^\[\]()\n]{1,60}?)\s*[\])]|(?P<named>\**[^:\n\[\]()]{1,60}?\**)(?=:)):?\**[ \t]*\n*"
)
_OTHER_SPEAKS: Final = re.compile(r"\n\s*\**(?:seeker|supporter|user|assistant|person)\**\s*:", re.IGNORECASE)
_QUOTES: Final = {'"': '"', "“": "”", "'": "'", "‘": "’", "«": "»", "「": "」"}
_SENTENCE_END: Final = re.compile(r"[.!?…]+[\"'”’)]*(?=\s)|[。！？]+[”」]?")


def ends_the_talk(text: str) -> bool:
    """Whether an answer holds the mark by which a seeker ends the talk: ``[END]``, or as others write it."""
    return _END.search(without_thought(text) or "") is not None


def clean_reply(text: str, taxonomy: Taxonomy, *, cut: bool = False) -> str | None:
    """The words of one turn in an answer; None where none are left.

    The thought goes, the name of a speaker or a strategy before the words, quotes around them, and whatever the model
    wrote for the other speaker after them. An answer that the limit of tokens has cut (``cut``) ends with its last
    whole sentence, if it has one.
    """
    said = (without_thought(text) or "").strip()
    if other := _OTHER_SPEAKS.search(said):
        said, cut = said[: other.start()].rstrip(), False
    if cut and (ends := list(_SENTENCE_END.finditer(f"{said} "))):
        said = said[: ends[-1].end()]
    names = _NAMES | {fold_label(label) for label in taxonomy.labels}
    before = None
    while said != before:
        before = said
        said = _without_mark(_unquoted(said), names)
    return said or None


def _without_mark(text: str, names: frozenset[str]) -> str:
    found = _MARK.match(text)
    if found is None or fold_label(found["marked"] or found["named"]) not in names:
        return text
    return text[found.end() :].strip()


def _unquoted(text: str) -> str:
    """A text without the pair of quotes around all of it; quotes of two words in it stay."""
    inner = text[1:-1]
    closing = _QUOTES.get(text[:1])
    around = len(text) > 1 and closing is not None and text[-1] == closing
    return inner.strip() if around and text[0] not in inner and closing not in inner.replace("'", "") else text
