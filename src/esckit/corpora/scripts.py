"""The language of a dialogue as far as its script tells it."""

import re
from collections.abc import Iterable
from typing import Final

from esckit.conversation import Turn

_SCRIPTS: Final = {
    "ja": re.compile(r"[\u3040-\u30ff]"),
    "ko": re.compile(r"[\uac00-\ud7af]"),
    "th": re.compile(r"[\u0e00-\u0e7f]"),
    "zh": re.compile(r"[\u4e00-\u9fff]"),
}
_LETTER: Final = re.compile(r"[^\W\d_]")
_LEAST: Final = 0.2


def language_of(turns: Iterable[Turn]) -> str:
    """``ja``, ``ko``, ``th`` or ``zh`` where a fifth of the letters are of that script, else ``en``.

    Languages that share their letters with English are not told from it.
    """
    text = " ".join(turn.text or "" for turn in turns)
    if text.isascii():
        return "en"
    letters = len(_LETTER.findall(text))
    return next((name for name, one in _SCRIPTS.items() if len(one.findall(text)) > _LEAST * letters), "en")
