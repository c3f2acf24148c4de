"""Patterns over a dialogue, of which users complain: sympathy with advice, repeats, rows of questions, one strategy.

A *trajectory* is what one side says in one dialogue, in order. Sympathy formulas and advice are told by lists
(`patterns.yaml`). docs/measures.md says why each pattern is defined as it is.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
import yaml

from esckit.measures.intervals import Draws, FloatArray, mean_intervals
from esckit.measures.predictions import Prediction
from esckit.measures.results import PatternFigure, Patterns
from esckit.measures.scripts import MOST, is_foreign, share_of
from esckit.measures.text import Tokenizer, choose_tokenizer, make_tokenizer, opening_of
from esckit.strategy import Taxonomy

SYMPATHY: Final = "sympathy_with_advice"
OPENING: Final = "repeated_opening"
QUESTIONS: Final = "question_run"
STRATEGY: Final = "one_strategy"

TEXT_PATTERNS: Final = (SYMPATHY, OPENING, QUESTIONS)
"""Patterns that texts show by themselves."""

PATTERNS: Final = (*TEXT_PATTERNS, STRATEGY)

_BEGINNING: Final = 12  # words, each of a token or more
_RUN: Final = 3  # replies in a row with a question
_QUESTION: Final = re.compile("[?？؟]")


class _Seen(NamedTuple):
    """One pattern in one trajectory of N replies."""

    each: list[bool]  # (N,) whether a reply is part of it
    longest: int  # the longest run, in replies


class MeasuredPatterns(NamedTuple):
    """The figures, and each predicted reply's part in the shares: pattern to (N,), in the order of the rows."""

    figures: Patterns
    each: dict[str, FloatArray]


def patterns_of(reply: str, before: Sequence[str]) -> frozenset[str]:
    """Return the names of the patterns (of ``TEXT_PATTERNS``) that a reply completes.

    It completes ``sympathy_with_advice`` where it opens with sympathy and gives advice and so does the reply before;
    ``repeated_opening`` where an earlier one opened like it; ``question_run`` where it asks and so do the two before.

    Args:
        reply: the supporter's next reply.
        before: the supporter's earlier replies in the dialogue, oldest first.
    """
    said = [*before, reply]
    opened = _openings(said, make_tokenizer(choose_tokenizer(said)))
    found = {
        SYMPATHY: len(said) > 1 and all(map(is_sympathy_with_advice, said[-2:])),
        OPENING: opened[-1] is not None and opened[-1] in opened[:-1],
        QUESTIONS: len(said) >= _RUN and all(map(asks, said[-_RUN:])),
    }
    return frozenset(name for name, completed in found.items() if completed)


def is_sympathy_with_advice(reply: str) -> bool:
    """Whether a reply opens with a formula of sympathy and also gives advice, by the lists of `patterns.yaml`."""
    sympathy, advice, skipped = _lists()
    plain = reply.replace("’", "'").casefold()
    return sympathy.match(skipped.sub("", plain)) is not None and advice.search(plain) is not None


def asks(reply: str) -> bool:
    """Whether a reply holds a question mark."""
    return _QUESTION.search(reply) is not None


@cache
def _lists() -> tuple["re.Pattern[str]", "re.Pattern[str]", "re.Pattern[str]"]:
    """What opens with sympathy (matched at the beginning), what is advice, and what is skipped before a formula."""
    text = (resources.files("esckit.measures") / "patterns.yaml").read_text(encoding="utf-8")
    known: dict[str, list[str]] = yaml.safe_load(text)
    before, skipped, sympathy, advice = (_any_of(known[name]) for name in ("before", "skipped", "sympathy", "advice"))
    return (
        re.compile(rf"\W*(?:{before}\W*)*{sympathy}"),
        re.compile(advice),
        re.compile(rf"{skipped}\s*"),
    )


def _any_of(phrases: Iterable[str]) -> str:
    """A pattern of phrases, those of words whole; a blank stands for any blanks, and Chinese has none between words."""
    longest_first = sorted(phrases, key=lambda phrase: -len(phrase))
    written = [r"\s+".join(map(re.escape, phrase.split())) for phrase in longest_first]
    whole = [rf"\b{each}\b" if phrase.isascii() else each for phrase, each in zip(longest_first, written, strict=True)]
    return f"(?:{'|'.join(whole)})"


def pattern_figures(
    rows: Sequence[Prediction], taxonomy: Taxonomy, tokenizer: Tokenizer, draws: Draws
) -> MeasuredPatterns:
    """Count the patterns in the predicted replies, and in the human replies to the same turns.

    The order of a dialogue's replies is that of ``position`` where all its rows have one, else that of the rows. A
    predicted text that is null is an empty reply. What cannot be told is None: ``sympathy_with_advice`` where texts are
    neither English nor Chinese, any pattern of texts where a side has none, ``one_strategy`` where no strategy was
    chosen (none is labelled, or strategies were given to the model).
    """
    order = _trajectories(rows)
    given = any("strategy_given" in row.extra for row in rows)
    predicted = _Side(
        [row.predicted_text or "" for row in rows],
        [None if given else taxonomy.match(row.predicted_strategy) for row in rows],
    )
    gold = _Side([row.gold_text for row in rows], [taxonomy.match(row.gold_strategy) for row in rows])
    dialogues = [str(row.conversation_id) for row in rows]
    found = predicted.measure(order, tokenizer)
    figures = Patterns(
        dialogues=len(order),
        replies=len(rows),
        predicted=_figures(found, order, dialogues, draws),
        gold=_figures(gold.measure(order, tokenizer), order, dialogues, draws),
    )
    return MeasuredPatterns(figures, {name: each for name, (each, _) in found.items()})


def _trajectories(rows: Sequence[Prediction]) -> list[list[int]]:
    """The places of each dialogue's rows, in the order of the talk."""
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(str(row.conversation_id), []).append(place)
    return [
        sorted(own, key=lambda place: rows[place].position or [0]) if all(rows[i].position for i in own) else own
        for own in places.values()
    ]


class _Side(NamedTuple):
    """What one side said at N turns."""

    texts: list[str]
    strategies: list[str | None]

    def measure(self, order: list[list[int]], tokenizer: Tokenizer) -> dict[str, tuple[FloatArray, FloatArray]]:
        """Each pattern that can be told: its flags (N,) and its longest run of each trajectory (D,)."""
        told = {name for name in TEXT_PATTERNS if any(self.texts)} | ({STRATEGY} if any(self.strategies) else set())
        if is_foreign(self.texts) and share_of("Chinese", self.texts) <= MOST:
            told.discard(SYMPATHY)
        opened = _openings(self.texts, tokenizer)
        found: dict[str, tuple[FloatArray, FloatArray]] = {}
        for name in PATTERNS:
            if name in told:
                flags, longest = np.zeros(len(self.texts)), np.zeros(len(order))
                for trajectory, places in enumerate(order):
                    seen = self._seen(name, places, opened)
                    flags[places], longest[trajectory] = seen.each, seen.longest
                found[name] = flags, longest
        return found

    def _seen(self, name: str, places: list[int], opened: list[str | None]) -> _Seen:
        texts = [self.texts[place] for place in places]
        if name == STRATEGY:
            return _one_strategy([self.strategies[place] for place in places])
        if name == SYMPATHY:
            return _alike([is_sympathy_with_advice(text) for text in texts])
        if name == OPENING:
            own = [opened[place] for place in places]
            return _alike([each is not None and each in own[:place] for place, each in enumerate(own)])
        return _question_runs([asks(text) for text in texts])


def _openings(texts: Iterable[str], tokenizer: Tokenizer) -> list[str | None]:
    """Each text's opening. It stands in the first words: the others need not be taken apart, which takes long."""
    return [opening_of(tokenizer.tokenize(" ".join(text.split()[:_BEGINNING]))) for text in texts]


def _runs(values: Sequence[object]) -> list[int]:
    """Of each value the length of the run of equal ones that it stands in."""
    lengths = [len(list(run)) for _, run in groupby(values)]
    return [length for length in lengths for _ in range(length)]


def _longest(values: Sequence[object]) -> int:
    """The longest run of equal values other than False and None."""
    return max((length for value, length in zip(values, _runs(values), strict=True) if value), default=0)


def _alike(flags: list[bool]) -> _Seen:
    return _Seen(flags, _longest(flags))


def _question_runs(asking: list[bool]) -> _Seen:
    each = [asked and length >= _RUN for asked, length in zip(asking, _runs(asking), strict=True)]
    return _Seen(each, _longest(asking))


def _one_strategy(strategies: list[str | None]) -> _Seen:
    counts = Counter(label for label in strategies if label)
    most = max(counts, key=lambda label: counts[label], default=None)
    return _Seen([label is not None and label == most for label in strategies], _longest(strategies))


def _figures(
    found: Mapping[str, tuple[FloatArray, FloatArray]], order: list[list[int]], dialogues: Sequence[str], draws: Draws
) -> dict[str, PatternFigure | None]:
    shares = mean_intervals({name: each for name, (each, _) in found.items()}, dialogues, draws)
    runs = {name: longest for name, (_, longest) in found.items()}
    lengths = mean_intervals(runs, [dialogues[places[0]] for places in order], draws, high=np.inf)
    figures: dict[str, PatternFigure | None] = dict.fromkeys(PATTERNS)
    for name, (each, longest) in found.items():
        share, run = shares[name], lengths[name]
        assert share is not None
        assert run is not None
        figures[name] = PatternFigure(
            share=float(each.mean()),
            share_interval=share,
            run=float(longest.mean()),
            run_interval=run,
            longest=int(longest.max()),
        )
    return figures
