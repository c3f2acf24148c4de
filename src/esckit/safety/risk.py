"""Whether someone's words speak of danger: suicide, self-harm, an overdose, harm to others, abuse.

The words stand in ``en.yaml``, ``zh.yaml`` and ``es.yaml``, by kind, and every message is read with all three. They err
towards stopping: a message that says "I don't want to kill myself", or that a brother killed himself, is a hit as well.
No list is complete: that nothing is found does not mean that nobody is in danger.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib import resources
from typing import Any, Final, Literal, NamedTuple, get_args

import yaml

Danger = Literal["overdose", "suicide", "self-harm", "harm to others", "abuse"]
Language = Literal["en", "zh", "es"]
DANGERS: Final[tuple[Danger, ...]] = get_args(Danger)
"""The most urgent first: a message that speaks of several is named by the first one."""
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)

_APOSTROPHES: Final = re.compile("['’‘‛`´ʼ′＇]")
_QUOTED: Final = re.compile(r"(?<!\w)'[^']{2,}'(?!\w)|\"[^\"]{2,}\"|[“«「『‘][^”»」』’]{2,}[”»」』’]")
_TITLE: Final = re.compile("《[^》]*》")
_SPELLED: Final = re.compile(r"(?<![a-z])[a-z]([ ._\-*/|,~]{1,2})(?:[a-z]\1)+[a-z](?![a-z])")
_SENTENCE_END: Final = re.compile(r"[.!?;。！？；…\n]+|(?<=[\u4e00-\u9fff])[,、]+")
_NO_WORD: Final = re.compile(r"[^\w.]|_")
_BETWEEN_HAN: Final = re.compile(r"(?<=[\u4e00-\u9fff])[ ·*\-_/|]+(?=[\u4e00-\u9fff])")
_DOTS_BETWEEN_HAN: Final = re.compile(r"(?<=[\u4e00-\u9fff])\.(?=[\u4e00-\u9fff](?:\.|$))")
_RUN: Final = re.compile(r"([a-z])\1{2,}")
_DIGITS_AS_LETTERS: Final = re.compile(r"(?<=[a-z])[013457@$!|]+(?!\d)|\b[05](?=[a-z]{2})")
_AS_LETTER: Final = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s", "!": "i", "|": "i"}
_MASKED: Final = re.compile(r"(?<!\w)[a-z]+[*#]+[a-z*#]*(?!\w)")
_OFTEN_MASKED: Final = (
    *("kill", "killing", "killed", "suicide", "suicidal", "die", "dead", "unalive"),
    *("rape", "raped", "murder", "overdose", "overdosed"),
)


class _Words(NamedTuple):
    """The patterns of a language."""

    harmless: re.Pattern[str]
    fiction: re.Pattern[str]
    third: re.Pattern[str]
    first: re.Pattern[str]
    always: dict[Danger, re.Pattern[str]]
    about: dict[Danger, re.Pattern[str]]


@lru_cache(maxsize=4096)
def risk_of(text: str) -> Danger | None:
    """The kind of danger that a message speaks of; None where no pattern of any language finds one."""
    found = {danger for form in normal_forms(text) for _, danger in _dangers(form)}
    return next((danger for danger in DANGERS if danger in found), None)


def languages_of_risk(text: str) -> set[Language]:
    """The languages whose words of danger a message has."""
    return {language for form in normal_forms(text) for language, _ in _dangers(form)}


def words_hash() -> str:
    """SHA-256 of all the words: what is filtered by them is made again where they have changed."""
    return hashlib.sha256("".join(map(_text, LANGUAGES)).encode()).hexdigest()


def normal_forms(text: str) -> tuple[str, ...]:
    """The ways in which a text is read: without accents and tricks of spelling, one form for each reading.

    A run of three or more letters is read as two and as one, and a digit between letters as itself and as a letter.
    What is quoted is left out where the text has a word of a film, a book, a song or a game.
    """
    plain = _TITLE.sub(" ", _plain(text))
    if _QUOTED.search(plain) and any(_words(each).fiction.search(_line(plain)) for each in LANGUAGES):
        plain = _QUOTED.sub(" film ", plain)
    forms = []
    for said in (plain, _DIGITS_AS_LETTERS.sub(lambda match: "".join(_AS_LETTER[c] for c in match[0]), plain)):
        line = _line(_MASKED.sub(_unmasked, said))
        forms += [_RUN.sub(r"\1\1", line), _RUN.sub(r"\1", line)]
    return tuple(dict.fromkeys(forms))


def _plain(text: str) -> str:
    """Small letters, no accents, no characters that nobody sees, simplified Chinese characters."""
    small = unicodedata.normalize("NFKC", text).casefold()
    apart = unicodedata.normalize("NFD", small)
    return "".join(c for c in apart if unicodedata.category(c) not in ("Mn", "Cf")).translate(_simplified())


def _line(text: str) -> str:
    """Words with a space between them, and " . " between sentences."""
    text = _BETWEEN_HAN.sub("", _DOTS_BETWEEN_HAN.sub("", text))
    text = _SPELLED.sub(lambda match: match[0].replace(match[1], ""), text)
    text = _SENTENCE_END.sub(" . ", _APOSTROPHES.sub("", text))
    return " ".join(_NO_WORD.sub(" ", text).split())


def _unmasked(match: re.Match[str]) -> str:
    """The word that was meant by one with stars, such as k*ll."""
    letters = re.compile("".join("[a-z]?" if c in "*#" else c for c in match[0]))
    return next((word for word in _OFTEN_MASKED if letters.fullmatch(word)), match[0])


def _dangers(form: str) -> Iterator[tuple[Language, Danger]]:
    """The dangers that a form speaks of, each with the language whose words say so."""
    words = [_words(language) for language in LANGUAGES]
    fiction = any(each.fiction.search(form) for each in words)
    first_person = any(each.first.search(form) for each in words)
    if fiction and not first_person and any(each.third.search(form) for each in words):
        return  # somebody else's story
    for each in words:
        form = each.harmless.sub(" ~ ", form)
    for language, each in zip(LANGUAGES, words, strict=True):
        for patterns in (each.always,) if fiction else (each.always, each.about):
            yield from ((language, danger) for danger, pattern in patterns.items() if pattern.search(form))


def _text(language: Language) -> str:
    return (resources.files("esckit.safety") / f"{language}.yaml").read_text(encoding="utf-8")


@cache
def _read(language: Language) -> Any:
    return yaml.safe_load(_text(language))


@cache
def _simplified() -> dict[int, str]:
    return {ord(traditional): plain for traditional, plain in _read("zh")["traditional"].split()}


@cache
def _words(language: Language) -> _Words:
    lists = _read(language)
    words = dict(line.split(": ", 1) for line in _whole_lines(lists["words"]))

    def compiled(patterns: str) -> re.Pattern[str]:
        return _compiled(patterns, words, spaced=language != "zh")

    return _Words(
        compiled(lists["harmless"]),
        compiled(lists["fiction"]),
        compiled(lists["third"]),
        compiled(lists["first"]),
        {danger: compiled(patterns) for danger, patterns in lists["always"].items()},
        {danger: compiled(patterns) for danger, patterns in lists["about"].items()},
    )


def _whole_lines(text: str) -> list[str]:
    """The lines, each with those that go on from it: these begin with a bar."""
    return re.sub(r"\n *\|", "|", text.strip()).splitlines()


def _compiled(patterns: str, words: dict[str, str], *, spaced: bool) -> re.Pattern[str]:
    """One expression of a pattern a line; words are separate in all languages but Chinese."""
    joined = "|".join(_whole_lines(patterns))
    while name := re.search(r"\{([a-z]+)\}", joined):
        joined = joined.replace(name[0], f"(?:{words[name[1]]})")
    if spaced:
        return re.compile(rf"(?<!\w)(?:{joined.replace(' ... ', ' (?:[^ .]+ ){0,4}')})(?!\w)")
    return re.compile(joined.replace("...", "[^ .]{0,6}"))
