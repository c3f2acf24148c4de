"""What speaks for or against a psychological error in a reply: each piece named, a number, and the words it rests on.

English only; the words looked for are listed in ``cues.yaml``. Nothing here asks what a planner would have chosen: the
strategy that a reply is labelled with is compared with its wording and with the moment.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import takewhile
from typing import Any, Final, NamedTuple

from esckit.conversation import Speaker, Turn
from esckit.strategy import ESCONV

_WORD: Final = re.compile(r"[a-z']+")
_WILDCARD: Final = re.compile(r"(?<=\w)\*")
_STEM: Final = 5  # letters by which two content words are taken for the same
_SENTENCE: Final = re.compile(r"(?<=[.!?\n])\s+")
_LOUD: Final = re.compile(r"!|\b[A-Z]{4,}\b")
_RECENT: Final = 3  # turns of a speaker that a reply is held against
_EARLY: Final = 3  # supporter turns up to which a talk is at its beginning
_LONG: Final = 25  # words of a reply that is long


@dataclass(frozen=True, slots=True)
class Case:
    """A reply to judge: what was said before it, the strategy it is labelled with (or None), and its text."""

    context: tuple[Turn, ...]
    strategy: str | None
    response: str


class Evidence(NamedTuple):
    """One piece: a value, mostly 0 to 1, and the words of the texts that it rests on."""

    value: float
    words: tuple[str, ...] = ()


EVIDENCE: Final[dict[str, str]] = {
    "feeling": "the seeker speaks of a feeling",
    "intense": "the seeker writes with intensity",
    "social": "the seeker only greets, thanks or says goodbye",
    "asks_help": "the seeker asks for advice or an answer",
    "refuses": "the seeker objects to what was said",
    "early": "the talk has only begun",
    "no_seeker_turn": "the supporter goes on without an answer in between",
    "acknowledges": "the reply acknowledges what the seeker feels",
    "names_feeling": "the reply takes up a feeling that the seeker named",
    "unheard": "a feeling goes without acknowledgement",
    "advises": "the reply advises",
    "advice_first": "advice comes before any acknowledgement",
    "turns_positive": "the reply turns to the bright side",
    "positive_unheard": "the bright side comes before any acknowledgement",
    "positive_after_a_word": "the bright side follows a short acknowledgement",
    "minimises": "the reply makes the matter small",
    "stock_share": "share of the reply that is stock phrases",
    "stock_only": "the reply is stock phrases and takes up nothing",
    "particulars": "the reply takes up what the seeker told",
    "no_particulars": "nothing that the seeker told is taken up",
    "repeats": "the reply repeats an earlier one",
    "brief": "the reply has few words",
    "long": "the reply has many words",
    "asks": "the reply asks",
    "asks_only": "the reply only asks",
    "asks_much": "the reply asks several things at once",
    "asks_again": "a question follows questions",
    "other_feeling": "the reply names a feeling that the seeker did not name",
    "clashing_feeling": "the reply names gladness where the seeker tells of trouble, or the reverse",
    "of_itself": "the reply speaks of the supporter",
    "of_itself_unlabelled": "the supporter speaks of itself under another strategy",
    "social_reply": "the reply greets, thanks or says goodbye",
    "abuse": "the reply insults or mocks",
    "wording": "the words are not those of the strategy",
    "timing": "the strategy comes before the feeling has been heard",
    "ignores_request": "the seeker asks for help and the strategy gives none",
    "stock_likeness": "likeness of the reply to stock phrases",
    "relevance": "likeness of the reply to what the seeker said",
    **{f"strategy: {label}": f"the strategy is {label}" for label in ESCONV.labels},
}
"""Every piece of evidence by name, and what it says in words."""


def lexical_evidence(case: Case) -> dict[str, Evidence]:
    """Return all evidence that needs no encoder; values are 0 to 1."""
    scene = _Scene.of(case)
    return {
        **_moment(scene),
        **_heard(scene),
        **_substance(scene),
        **_questions(scene),
        **_feelings(scene),
        **_strategy(scene, case.strategy),
    }


def recent_turns(case: Case, speaker: Speaker) -> list[Turn]:
    """A speaker's last turns before the reply, oldest first."""
    return [turn for turn in case.context if turn.speaker == speaker][-_RECENT:]


class _Scene(NamedTuple):
    """A case, read once; texts are normal."""

    reply: str
    parts: list[str]  # its sentences
    words: int
    seeker: str  # what the seeker said last
    loud: list[str]
    earlier: list[str]  # supporter turns, oldest first
    answered: bool  # the seeker spoke last
    acknowledged: list[tuple[int, str]]
    feelings: dict[str, list[str]]  # of the seeker, by family
    named: dict[str, list[str]]  # by the reply, by family

    @classmethod
    def of(cls, case: Case) -> "_Scene":
        reply, said = _normal(case.response), " ".join(turn.text or "" for turn in recent_turns(case, "seeker"))
        seeker = _normal(said)
        return cls(
            reply=reply,
            parts=[_normal(sentence) for sentence in _SENTENCE.split(case.response.strip()) if sentence],
            words=len(reply.split()),
            seeker=seeker,
            loud=_LOUD.findall(said),
            earlier=[_normal(turn.text or "") for turn in case.context if turn.speaker == "supporter"],
            answered=bool(case.context) and case.context[-1].speaker == "seeker",
            acknowledged=_find("acknowledges", reply),
            feelings=_feelings_in(seeker),
            named=_feelings_in(reply),
        )


def _feelings_in(text: str) -> dict[str, list[str]]:
    found = {family: [word for _, word in _find(family, text)] for family in _families()}
    return {family: words for family, words in found.items() if words}


def _yes(condition: object, *words: str) -> Evidence:
    return Evidence(float(bool(condition)), words if condition else ())


def _words(found: Sequence[tuple[int, str]], full: int = 1) -> Evidence:
    """How many phrases there are, 1 from ``full`` of them."""
    return Evidence(min(len(found), full) / full, tuple(dict.fromkeys(words for _, words in found)))


def _troubled(scene: _Scene) -> list[str]:
    return [word for family, words in scene.feelings.items() if family != "joy" for word in words]


def _moment(scene: _Scene) -> dict[str, Evidence]:
    """What the reply has to answer."""
    troubled = _troubled(scene)
    social = _find("social_seeker", scene.seeker)
    intense = [*(words for _, words in _find("intense", scene.seeker)), *scene.loud]
    few = len(scene.seeker.split()) <= 8
    return {
        "feeling": Evidence(min(len(troubled), 3) / 3, tuple(dict.fromkeys(troubled))),
        "intense": Evidence(min(len(intense), 4) / 4, tuple(dict.fromkeys(intense))),
        "social": _yes(social and few and not troubled, *(words for _, words in social[:2])),
        "asks_help": _words(_find("asks_help", scene.seeker)),
        "refuses": _words(_find("refuses", scene.seeker)),
        "early": _yes(len(scene.earlier) <= _EARLY),
        "no_seeker_turn": _yes(not scene.answered),
    }


def _heard(scene: _Scene) -> dict[str, Evidence]:
    """Whether the feeling is received, and what comes before that."""
    first = scene.acknowledged[0][0] if scene.acknowledged else len(scene.reply)
    advice = [*_find("advises", scene.reply), *_imperatives(scene)]
    positive = _find("turns_positive", scene.reply)
    troubled = _troubled(scene)
    taken_up = [word for family in scene.named if family in scene.feelings for word in scene.named[family]]
    heard = bool(scene.acknowledged)
    length = sum(len(words) for _, words in scene.acknowledged)
    return {
        "acknowledges": _words(scene.acknowledged),
        "names_feeling": _yes(taken_up, *taken_up[:2]),
        "unheard": _yes(troubled and not heard and not taken_up, *troubled[:2]),
        "advises": _words(advice, full=2),
        "advice_first": _words([found for found in advice if found[0] < first]),
        "turns_positive": _words(positive, full=2),
        "positive_unheard": _words([found for found in positive if found[0] < first]),
        "positive_after_a_word": _words(positive if heard and length < len(scene.reply) / 3 else []),
        "minimises": _words(_find("minimises", scene.reply)),
    }


def _imperatives(scene: _Scene) -> list[tuple[int, str]]:
    """Sentences that begin with an order."""
    begun = [(scene.reply.find(part), _find("imperative", part)) for part in scene.parts]
    return [(place, found[0][1]) for place, found in begun if found and found[0][0] == 0]


def _substance(scene: _Scene) -> dict[str, Evidence]:
    """What the reply says that could not be said to anyone."""
    stock = _find("stock", scene.reply)
    share = min(1.0, sum(len(words.split()) for _, words in stock) / max(scene.words, 1))
    told, said = _content_words(scene.seeker), _content_words(scene.reply)
    shared = [said[stem] for stem in said if stem in told]
    again = max((_overlap(scene.reply, earlier) for earlier in scene.earlier), default=0.0)
    social = _find("social_reply", scene.reply)
    abuse = _find("abuse", scene.reply)
    return {
        "stock_share": Evidence(share, tuple(dict.fromkeys(words for _, words in stock))),
        "stock_only": _yes(share > 0.4 and not shared, *(words for _, words in stock)),
        "particulars": Evidence(min(len(shared), 3) / 3, tuple(shared)),
        "no_particulars": _yes(told and not shared),
        "repeats": Evidence(again if again > 0.4 else 0.0),
        "brief": Evidence(max(0.0, 1 - (scene.words - 1) / 9)),
        "long": Evidence(min(1.0, scene.words / (2 * _LONG))),
        "social_reply": _yes(social and scene.words < 12, *(words for _, words in social[:2])),
        "abuse": _words(abuse),
    }


def _overlap(one: str, other: str) -> float:
    """Jaccard similarity of the words."""
    first, second = set(one.split()), set(other.split())
    return len(first & second) / max(len(first | second), 1)


def _questions(scene: _Scene) -> dict[str, Evidence]:
    asking = [part for part in scene.parts if part.endswith("?")]
    before = len(list(takewhile(lambda earlier: "?" in earlier, reversed(scene.earlier))))
    return {
        "asks": _yes("?" in scene.reply),
        "asks_only": _yes(asking and len(asking) == len(scene.parts)),
        "asks_much": _yes(scene.reply.count("?") > 1 or (asking and max(p.count(",") for p in asking) > 1)),
        "asks_again": Evidence(min(before, 2) / 2 if asking else 0.0),
    }


def _feelings(scene: _Scene) -> dict[str, Evidence]:
    other = {family: words for family, words in scene.named.items() if family not in scene.feelings}
    strange = [word for family, words in other.items() if family != "joy" for word in words]
    troubled, glad = _troubled(scene), scene.feelings.get("joy", [])
    clash = other.get("joy", []) if troubled else strange if glad else []
    of_itself = _find("discloses", scene.reply)
    return {
        "other_feeling": _yes(strange and scene.feelings and "you" in scene.reply, *strange[:2]),
        "clashing_feeling": _yes(clash, *clash[:2]),
        "of_itself": Evidence(min(1.0, 4 * len(of_itself) / max(scene.words, 1)), tuple(w for _, w in of_itself[:2])),
    }


def _strategy(scene: _Scene, strategy: str | None) -> dict[str, Evidence]:
    """The strategy's label against the reply's words and the moment."""
    said = _content_words(scene.reply)
    shared = said.keys() & _content_words(scene.seeker).keys()
    advice = _find("advises", scene.reply) or _imperatives(scene)
    itself = _find("discloses", scene.reply)
    fits = {
        "Question": "?" in scene.reply,
        "Restatement or Paraphrasing": _find("restates", scene.reply) and shared,
        "Reflection of feelings": scene.named or scene.acknowledged,
        "Self-disclosure": itself,
        "Affirmation and Reassurance": _find("reassures", scene.reply) and not scene.reply.endswith("?"),
        "Providing Suggestions": advice,
        "Information": _find("informs", scene.reply) and not scene.reply.endswith("?"),
        "Others": not advice and scene.words < _LONG,
    }
    troubled = _troubled(scene)
    gives = strategy in ("Providing Suggestions", "Information", "Self-disclosure")
    asked = _find("asks_help", scene.seeker)
    silent = strategy in ("Reflection of feelings", "Restatement or Paraphrasing", "Others", "Question")
    unlabelled = strategy is not None and strategy != "Self-disclosure" and len(itself) > 1 and "you" not in scene.reply
    return {
        "of_itself_unlabelled": _yes(unlabelled, *(words for _, words in itself[:2])),
        "wording": _yes(strategy in fits and not fits[str(strategy)]),
        "timing": _yes(gives and troubled and not asked and not scene.acknowledged, *troubled[:2]),
        "ignores_request": _yes(asked and silent, *(words for _, words in asked[:1])),
        **{f"strategy: {label}": _yes(strategy == label) for label in ESCONV.labels},
    }


# --------------------------------------------------------------------------------------------------------------- words


def _normal(text: str) -> str:
    """Lower case, straight apostrophes, single spaces."""
    return " ".join(text.lower().replace("’", "'").replace("`", "'").split())


def _find(kind: str, text: str) -> list[tuple[int, str]]:
    """Where the phrases of one kind stand in a normal text, longest first at each place, and their words."""
    return [(match.start(), match[0].strip()) for match in _pattern(kind).finditer(text)]


@cache
def _families() -> tuple[str, ...]:
    """Names of the families of feelings."""
    return tuple(_lists()["families"])


def _content_words(text: str) -> dict[str, str]:
    """The words of a normal text that carry its matter: beginnings, by which words are compared, to the words."""
    words = (word.strip("'") for word in _WORD.findall(text))
    return {word[:_STEM]: word for word in words if len(word) > 2 and word not in _stopwords()}


@cache
def stock_sentences() -> list[str]:
    """Sentences that could be said to anyone."""
    return list(_lists()["stock_sentences"])


@cache
def lists_text() -> str:
    """The lists as they are written: what is found depends on them."""
    return (files("esckit.judging") / "cues.yaml").read_text(encoding="utf-8")


@cache
def _lists() -> Any:
    import yaml

    return yaml.safe_load(lists_text())


@cache
def _stopwords() -> frozenset[str]:
    return frozenset(_lists()["stopwords"].split())


@cache
def _pattern(kind: str) -> re.Pattern[str]:
    phrases = _lists()["families"][kind] if kind in _families() else _lists()[kind]
    whole = "|".join(_WILDCARD.sub(r"\\w*", phrase) for phrase in phrases)
    return re.compile(rf"(?<![\w'])(?:{whole})(?!\w)")
