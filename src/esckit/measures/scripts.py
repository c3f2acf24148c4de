"""Which script and language texts are in: it decides what a word is, and which figures mean anything."""

import re
from collections.abc import Sequence
from typing import Final, Literal

Script = Literal["without blanks", "Chinese", "Thai or Lao", "not Latin", "not ASCII"]

_NO_LETTERS: Final = re.compile(r"[\W\d_]+")
_WORD: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_HAN: Final = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA: Final = "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_THAI_LAO: Final = "\u0e00-\u0eff"
_OTHERS: Final = (
    "\u0f00-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Tibetan, Burmese
    "\u1780-\u17ff"  # Khmer
    "\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf"  # Tai scripts
    "\u1b00-\u1b7f\ua980-\ua9df\uaa00-\uaa5f"  # Balinese, Javanese, Cham
    "\u3100-\u312f\ua000-\ua4cf"  # Bopomofo, Yi
)
_SCRIPTS: Final = {
    "without blanks": re.compile(f"[{_HAN}{_KANA}{_THAI_LAO}{_OTHERS}]"),
    "Chinese": re.compile(f"[{_HAN}]"),
    "Thai or Lao": re.compile(f"[{_THAI_LAO}]"),
    "not Latin": re.compile("[^A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a]"),
    "not ASCII": re.compile("[^A-Za-z]"),
}
MOST: Final = 0.5
"""A script with more than this share of the letters decides how texts are measured."""

SOME: Final = 0.1
"""A script with more than this share is worth a note."""

_ENGLISH: Final = frozenset(_WORD.findall("the and you it that of what your have my this with not be for it's i'm"))
"""Frequent in whatever is written in English (a quarter of ESConv's words), and rare in other languages."""

_ENGLISH_SHARE: Final = 0.05
_FEWEST_WORDS: Final = 200  # that show which language it is
_LOOKED_AT: Final = 1000  # texts


def share_of(script: Script, texts: Sequence[str]) -> float:
    """The share (0..1) of a script among the letters of all texts; 0 where they have none.

    ``without blanks`` are the scripts that put none between words: Chinese, Japanese, Thai, Lao, Khmer, Burmese,
    Tibetan and some of their neighbours.
    """
    together = " ".join(texts)
    if together.isascii():  # what no script here is: a corpus in English is looked through in no time
        return 0.0
    letters = _NO_LETTERS.sub("", together)
    return len(_SCRIPTS[script].findall(letters)) / len(letters) if letters else 0.0


def is_foreign(texts: Sequence[str]) -> bool:
    """Whether texts show that they are not English: by their letters, or, from 200 words on, by their commonest words.

    At most the first 1,000 texts are looked at.
    """
    texts = texts[:_LOOKED_AT]
    words = [word.lower().replace("’", "'") for text in texts for word in _WORD.findall(text)]
    known = sum(word in _ENGLISH for word in words)
    return share_of("not ASCII", texts) > MOST or (len(words) >= _FEWEST_WORDS and known < _ENGLISH_SHARE * len(words))
