"""What a chat model said, as a turn's text: without thought, quotes, names and marks around it."""

import re
import unicodedata
from typing import Final

from esckit.conversation.thoughts import without_thought
from esckit.strategy import Taxonomy, fold_label

__all__ = ["clean_reply", "ends_a_sentence", "ends_the_talk"]

_END: Final = re.compile(r"\[\s*/?\s*end\s*/?\s*\]|<\s*/?\s*end\s*/?\s*>|/end/", re.IGNORECASE)
_NAMES: Final = frozenset(
    {"seeker", "supporter", "user", "assistant", "person", "helper", "reply", "response", "strategy"}
)
_MARK: Final = re.compile(
    r"\**\[[^\[\]\n]{1,150}\]\**:?\**"  # in our own form of a strategy, whatever it names
    r"|\**(?:\((?P<round>[^()\n]{1,60})\)\**:?|(?P<plain>[^:\n()\[\]]{1,60})(?::|\n|\Z))\**"
)
_OTHER_SPEAKS: Final = re.compile(r"\n\s*\**(?:seeker|supporter|user|assistant|person)\**\s*:", re.IGNORECASE)
_REPEATED: Final = 24  # characters of what was asked that nobody says by chance
_QUOTES: Final = {'"': '"', "“": "”", "«": "»", "「": "」"}
_ENDED: Final = re.compile(r"[.!?…~。！？～][\"'”’)」\]*]*\Z")
_SENTENCE_END: Final = re.compile(r"[.!?…]+[\"'”’)]*(?=\s)|[。！？]+[”」]?")


def ends_the_talk(text: str) -> bool:
    """Whether an answer holds the mark by which a seeker ends the talk: ``[END]``, or as others write it."""
    return _END.search(without_thought(text) or "") is not None


def ends_a_sentence(text: str) -> bool:
    """Whether a text ends where a sentence does, and not in the middle of one: with a mark, or a picture behind it."""
    said = text.rstrip()
    return bool(said) and (_ENDED.search(said) is not None or unicodedata.category(said[-1]) == "So")


def clean_reply(text: str, taxonomy: Taxonomy, *, asked: str = "", cut: bool = False) -> str | None:
    """The words of one turn in an answer; None where none are left.

    The thought goes, the name of a speaker or a strategy before the words, quotes around them, and after them whatever
    the model wrote for the other speaker, or repeats of what it was ``asked``. An answer that the limit of tokens has
    cut (``cut``) ends with its last whole sentence, if it has one.
    """
    said = (without_thought(text) or "").strip()
    beginning = asked.strip("()[] \n")[:_REPEATED]
    if len(beginning) == _REPEATED and (again := re.search(re.escape(beginning), said, re.IGNORECASE)):
        said, cut = said[: again.start()].rstrip('([“" \n'), False
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
    name = found and (found["round"] or found["plain"])
    return text if found is None or (name and fold_label(name) not in names) else text[found.end() :].strip()


def _unquoted(text: str) -> str:
    """A text without the quotes around all of it, or before it where the end was cut; quotes of a few words stay."""
    opening, inner = text[:1], text[1:]
    closing = _QUOTES.get(opening)
    if closing is None:
        return text
    inner = inner.removesuffix(closing)
    return text if opening in inner or closing in inner else inner.strip()
