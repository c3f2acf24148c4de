"""What an encoder planner is told in numbers about a turn: its place, how both write, which strategies came before.

Everything is computed from the path before the turn. Where a turn stands is its absolute index: its share of the whole
dialogue would tell how long the dialogue is going to be. The seeker's situation, a form filled in before the talk, is
not read. Word cues are English and Chinese; in other languages they stay 0, while lengths, marks (full-width ones too),
places and strategies keep their meaning, and the encoder's vectors carry what is said.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from esckit.conversation import Turn
from esckit.errors import CorpusError
from esckit.strategy import Taxonomy


def _cue(english: str, chinese: str) -> re.Pattern[str]:
    return re.compile(f"{english}|{chinese}", re.IGNORECASE)


_THANKS: Final = _cue(r"\bthank|appreciate", r"谢|感激")
_FAREWELL: Final = _cue(
    r"\b(bye|goodbye|take care|good luck|have a (good|great|nice)|good night)",
    r"再见|拜拜|晚安|保重|先这样|下次聊|回头聊|改天聊",
)
_ASKS_HELP: Final = _cue(
    r"\b(help|suggest|advice|idea|what (should|can|do))",
    r"怎么办|咋办|该怎么|怎样才能|帮帮|帮我|建议|支招|有什么办法|有没有办法",
)
_FIRST_PERSON: Final = _cue(r"\b(i|my|me|i'm|i've)\b", r"我|咱|俺")
_SECOND_PERSON: Final = _cue(r"\b(you|your)\b", r"你|您")
_PROPOSES: Final = _cue(
    r"\b(try|maybe|perhaps|could|should|would|have you)\b",
    r"试试|试着|不妨|可以|要不要|要不|也许|或许|比如|建议|先不|愿不愿意",
)
_FEELS: Final = _cue(
    r"\b(feel|sorry|understand|sound|hear|must)",
    r"感受|感觉|觉得|心里|难受|难过|委屈|害怕|生气|着急|理解|不容易|听起来|听上去",
)
_AGREES: Final = _cue(
    r"\b(yes|yeah|sure|ok|okay|right|true|exactly|good idea|i will)\b",
    r"对对|是的|是啊|对啊|没错|好的|好吧|嗯|行[。，！吧 ]|^[对行好是](?:[。，！]|$)|有道理",
)
_DENIES: Final = _cue(r"\b(no|not|don't|can't|never|but)\b", r"不|没|但|可是|不过")
_GREETS: Final = _cue(r"h(i|el|ey)", r"[你您]好|在吗|嗨|哈[喽啰]|早上好|下午好|晚上好|大家好")
_LOWER_I: Final = re.compile(r"\bi\b")
_IDEOGRAPH: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")  # scripts without spaces: a character counts as a word
_ENDS: Final = tuple(".!?。！？")
_OPENING: Final = 40  # characters in which agreement and denial are looked for
_NEVER: Final = 25.0  # supporter turns since a strategy that has not been used


class TextSurface(NamedTuple):
    """What a text shows on its surface; counts unless said otherwise."""

    words: int
    characters: int
    letters: int  # all but white space
    asks: bool  # a question mark anywhere
    ends_asking: bool
    exclaims: bool
    thanks: bool
    farewell: bool
    asks_help: bool
    first_person: int
    second_person: int
    proposes: bool
    feels: bool
    agrees: bool  # in its opening
    denies: bool  # in its opening
    sentences: int  # marks that end one
    greets: bool
    begins_upper: bool
    ends_closed: bool  # with a mark that ends a sentence
    commas: int
    apostrophes: int
    capitals: int
    lower_i: int  # the pronoun written small


class TurnFeatures(NamedTuple):
    """A turn's explicit features.

    hidden: supporter turns stand before it, and none shows its strategy; ``history`` says nothing then.
    follows: a supporter turn stands before it.
    """

    history: NDArray[np.float32]  # (H,)
    shape: NDArray[np.float32]  # (S,)
    hidden: bool
    follows: bool


@lru_cache(maxsize=65536)
def read_text(text: str) -> TextSurface:
    """Read a text's surface; the same text is read once."""
    opening, closed = text[:_OPENING], text.rstrip()
    return TextSurface(
        words=len(_IDEOGRAPH.sub(" x ", text).split()),
        characters=len(text),
        letters=sum(map(len, text.split())),
        asks="?" in text or "？" in text,
        ends_asking=closed.endswith(("?", "？")),
        exclaims="!" in text or "！" in text,
        thanks=bool(_THANKS.search(text)),
        farewell=bool(_FAREWELL.search(text)),
        asks_help=bool(_ASKS_HELP.search(text)),
        first_person=len(_FIRST_PERSON.findall(text)),
        second_person=len(_SECOND_PERSON.findall(text)),
        proposes=bool(_PROPOSES.search(text)),
        feels=bool(_FEELS.search(text)),
        agrees=bool(_AGREES.search(opening)),
        denies=bool(_DENIES.search(opening)),
        sentences=sum(map(text.count, _ENDS)),
        greets=bool(_GREETS.match(text)),
        begins_upper=text[:1].isupper(),
        ends_closed=closed.endswith(_ENDS),
        commas=sum(map(text.count, ",，、")),
        apostrophes=text.count("'"),
        capitals=sum(map(str.isupper, text)),
        lower_i=len(_LOWER_I.findall(text)),
    )


def turn_features(path: Sequence[Turn], shown: Mapping[str, str], taxonomy: Taxonomy) -> TurnFeatures:
    """Compute a turn's features from the path before it; ``shown`` are strategies by turn id.

    Raises:
        CorpusError: a strategy shown is no label of the taxonomy.
    """
    strategies = shown_indices(path, shown, taxonomy)
    past = [(turn.speaker == "supporter", read_text((turn.text or "").strip())) for turn in path]
    follows = any(supporter for supporter, _ in past)
    texts = [(turn.text or "").strip() for turn in path]
    history = np.concatenate(list(_history(path, strategies, len(taxonomy.labels)).values()))
    shape = np.array(list(_shape(past, texts).values()), dtype=np.float32)
    return TurnFeatures(history.astype(np.float32), shape, follows and max(strategies, default=-1) < 0, follows)


def shown_indices(path: Sequence[Turn], shown: Mapping[str, str], taxonomy: Taxonomy) -> list[int]:
    """The place in the taxonomy of each turn's strategy, -1 where the history shows none.

    Raises:
        CorpusError: a strategy shown is no label of the taxonomy.
    """
    places = _places(taxonomy)
    try:
        return [places[shown[turn.id]] if turn.speaker == "supporter" and turn.id in shown else -1 for turn in path]
    except KeyError as error:
        raise CorpusError(
            f"{error} is no strategy of the taxonomy {taxonomy.name}: plan with a planner of the corpus's own taxonomy."
        ) from error


@cache
def feature_names(taxonomy: Taxonomy) -> tuple[str, ...]:
    """What each feature is, the history's first: for a report, or a look into a linear planner."""
    blocks = _history([], [], len(taxonomy.labels))
    labels = taxonomy.labels
    history = [f"{name}: {labels[i]}" if len(v) > 1 else name for name, v in blocks.items() for i in range(len(v))]
    return (*history, *_shape([], []))


def history_width(taxonomy: Taxonomy) -> int:
    """How many of the features, the first ones, depend on past strategies."""
    return sum(map(len, _history([], [], len(taxonomy.labels)).values()))


@cache
def _places(taxonomy: Taxonomy) -> dict[str, int]:
    return {label: place for place, label in enumerate(taxonomy.labels)}


def _history(path: Sequence[Turn], strategies: Sequence[int], k: int) -> dict[str, NDArray[np.float64]]:
    """Past strategies by name: arrays (K,), one value a label, or (1,)."""
    supporter = [turn.speaker == "supporter" for turn in path]
    said = [(place, strategy) for place, strategy in enumerate(strategies) if strategy >= 0]
    past = [strategy for _, strategy in said]  # oldest first
    n, labels = len(past), np.arange(k)
    again = bool(supporter) and supporter[-1]  # the supporter spoke last and goes on
    counts = np.bincount(np.array(past, dtype=np.intp), minlength=k)
    profile = (counts + 0.5) / (n + 0.5 * k)
    slow, fast, since = np.zeros(k), np.zeros(k), np.full(k, _NEVER)
    for age, strategy in enumerate(reversed(past)):
        slow[strategy] += 0.8**age
        fast[strategy] += 0.5**age
        since[strategy] = min(since[strategy], age)
    alike = np.full(k, 0.3)  # said where the supporter stood as here: going on, or answering
    for place, strategy in said:
        alike[strategy] += (place > 0 and supporter[place - 1]) == again
    followed = np.full(k, 0.1)  # said after the strategy that was said last
    for one, other in pairwise(past):
        followed[other] += one == past[-1]
    last = [(labels == past[-age]).astype(float) if n >= age else np.zeros(k) for age in (1, 2, 3, 4)]
    run = next((age for age in range(n) if past[-1 - age] != past[-1]), n)
    return {
        **{f"strategy {age} before": row for age, row in enumerate(last, start=1)},
        "times": counts.astype(float),
        "share": profile,
        "times, fading by .8": slow,
        "times, fading by .5": fast,
        "share in such places": alike / alike.sum(),
        "share after the last one": followed / followed.sum(),
        "turns since": since,
        "last one, spoken just before": last[0] * again,
        "first one": (labels == past[0]).astype(float) if n else np.zeros(k),
        "run of the last one": np.array([float(run)]),
        "different ones": np.array([float((counts > 0).sum())]),
        "entropy of shares": np.array([-(profile * np.log(profile)).sum()]),
        "share of repeats": np.array([np.mean(np.diff(past) == 0) if n > 1 else 0.0]),
    }


Past = Sequence[tuple[bool, TextSurface]]
"""The utterances before a turn: whether the supporter's, and its surface."""


def _shape(past: Past, texts: Sequence[str]) -> dict[str, float]:
    """Where the turn stands, what it answers, how both write."""
    supporter = [utterance for is_supporter, utterance in past if is_supporter]
    seeker = [utterance for is_supporter, utterance in past if not is_supporter]
    answered = _last_run(past, of_supporter=False)
    nothing = read_text("")
    run = read_text(" ".join(texts[len(texts) - answered :]))
    before = seeker[-1] if seeker and not answered else nothing  # where nothing is answered: what the seeker said last
    return {
        **_place(past, supporter, seeker),
        "seeker's turns answered": float(answered),
        **_cues("answered", run),
        **_cues("last reply", supporter[-1] if supporter else nothing),
        **_cues("reply before that", supporter[-2] if len(supporter) > 1 else nothing),
        **_cues("seeker before the last reply", before),
        **_style("supporter", supporter),
        **_style("seeker", seeker),
    }


def _last_run(past: Past, *, of_supporter: bool) -> int:
    """How many utterances one side has just made in a row."""
    turned = (age for age, (is_supporter, _) in enumerate(reversed(past)) if is_supporter != of_supporter)
    return next(turned, len(past))


def _place(past: Past, supporter: Sequence[TextSurface], seeker: Sequence[TextSurface]) -> dict[str, float]:
    """Counts since the dialogue began."""
    pairs = pairwise(past)
    words = [sum(utterance.words for utterance in side) for side in (supporter, seeker)]
    return {
        "utterances": len(past),
        "supporter's utterances": len(supporter),
        "seeker's utterances": len(seeker),
        "supporter's run": _last_run(past, of_supporter=True),
        "supporter's share": len(supporter) / max(len(past), 1),
        "share of replies that go on": sum(one[0] and other[0] for one, other in pairs) / max(len(supporter), 1),
        "words": sum(words),
        "seeker's words": words[1],
        "seeker's words, last three": _mean([utterance.words for utterance in seeker[-3:]]),
        "supporter's words, last three": _mean([utterance.words for utterance in supporter[-3:]]),
        "opened by": float(past[0][0]) if past else 2.0,  # 0 seeker, 1 supporter, 2 nobody yet
        "share of questions, supporter's last three": _mean([utterance.asks for utterance in supporter[-3:]]),
        "share of thanks, seeker's last three": _mean([utterance.thanks for utterance in seeker[-3:]]),
        "seeker's thanks": sum(utterance.thanks for utterance in seeker),
        "farewells": sum(utterance.farewell for _, utterance in past),
        "seeker's questions": sum(utterance.asks for utterance in seeker),
    }


def _cues(name: str, text: TextSurface) -> dict[str, float]:
    words = max(text.words, 1)
    cues: dict[str, float] = {
        "words": text.words,
        "asks": text.asks,
        "ends asking": text.ends_asking,
        "exclaims": text.exclaims,
        "thanks": text.thanks,
        "farewell": text.farewell,
        "asks for help": text.asks_help,
        "first person": text.first_person / words,
        "second person": text.second_person / words,
        "proposes": text.proposes,
        "feels": text.feels,
        "agrees": text.agrees,
        "denies": text.denies,
        "sentences": text.sentences,
        "greets": text.greets,
    }
    return {f"{name}: {cue}": float(value) for cue, value in cues.items()}


def _style(name: str, texts: Sequence[TextSurface]) -> dict[str, float]:
    """How one side types, which tells one annotator's habits from another's; rates are per 50 characters."""
    fifties = max(sum(text.characters for text in texts), 1) / 50
    words = sum(text.words for text in texts)
    style = {
        "begins upper": _mean([text.begins_upper for text in texts]),
        "ends closed": _mean([text.ends_closed for text in texts]),
        "commas": sum(text.commas for text in texts) / fifties,
        "apostrophes": sum(text.apostrophes for text in texts) / fifties,
        "capitals": sum(text.capitals for text in texts) / fifties,
        "small i": sum(text.lower_i for text in texts) / fifties,
        "words": _mean([text.words for text in texts]),
        "asks": _mean([text.asks for text in texts]),
        "letters a word": sum(text.letters for text in texts) / max(words, 1),
    }
    return {f"{name}: {habit}, mean": value for habit, value in style.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
