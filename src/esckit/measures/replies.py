"""A reply as a model writes it, ``[Strategy] text``, taken apart; and labels that are written in other ways."""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from esckit.strategy import Taxonomy

_BRACKETS: Final = "[]【】［］(){}"
_AROUND: Final = _BRACKETS + "*_.:：\"'“”` \t\r\n"
_MARK: Final = r"[ \t>*_#\"'“-]*[\[【［]([^\[\]【】［］\n]*)[\]】］][*_:：]*"
_FIRST_MARK: Final = re.compile(rf"\s*{_MARK}(.*)", re.DOTALL)
_LINE_MARK: Final = re.compile(rf"^{_MARK}[ \t]*", re.MULTILINE)


class Reply(NamedTuple):
    """A label as it was written, None where there is none; and a text, None where a label stands alone."""

    strategy: str | None
    text: str | None


def bare_label(written: str) -> str:
    """A label without brackets, quotes and emphasis around it."""
    return written.strip(_AROUND)


def split_reply(said: str, match: Callable[[str], str | None]) -> Reply:
    """Take ``[Strategy] text`` apart; a label alone may stand without brackets.

    A mark at the beginning counts, whatever it names; else one that names a label at the beginning of a later line, if
    all such marks name the same one: what stands before it is no part of the reply. Emphasis and quotes around a mark
    are no part of it.

    Args:
        said: the reply.
        match: the label that a text names, or None.
    """
    if found := _FIRST_MARK.fullmatch(said):
        return Reply(found[1].strip("*_"), found[2].strip() or None)
    if not set(said) & set(_BRACKETS) and (alone := match(said)):
        return Reply(alone, None)
    marks = [(match(mark[1]), mark) for mark in _LINE_MARK.finditer(said)]
    labels = {label for label, _ in marks if label}
    if len(labels) != 1:
        return Reply(None, said.strip())
    first = next(mark for label, mark in marks if label)
    return Reply(labels.pop(), said[first.end() :].strip() or None)


def otherwise_labelled(reply: str, taxonomy: Taxonomy) -> bool:
    """Whether a reply begins with a label that is not marked by square brackets, as in ``Question: text``."""
    labels = "|".join(map(re.escape, taxonomy.labels))
    return re.match(rf"\W*(?:strategy\W+)?(?:{labels})[ \t]*(?:[^\w\s,.?!'’]|\n|\Z)", reply, re.IGNORECASE) is not None
