"""The first step: a question and its answer become a dialogue; a dialogue without strategies gets them."""

import re
from collections.abc import Sequence
from random import Random
from typing import Final, NamedTuple

from esckit.conversation import Turn
from esckit.mining.derivation.exchanges import PHASES, Exchange, Talk
from esckit.mining.derivation.options import Filters
from esckit.mining.derivation.rules import Rules, rules_in
from esckit.mining.derivation.sources import Source
from esckit.strategy import FAILED_ESCONV_TO_ESCONV, Taxonomy

__all__ = ["dialogue_by_rules"]

_SENTENCE: Final = re.compile(r".+?(?:[。！？!?…]+[\"'”’」』）)]*|[.]+[\"'”’)]*(?=\s|$)|\n+|$)\s*", re.DOTALL)
_SHORT: Final = 12  # characters; a shorter piece is joined to a neighbour where there are enough pieces
_LONG: Final = 40  # characters; the description of a question that is longer is told in two turns


class _Piece(NamedTuple):
    text: str
    strategy: str


def dialogue_by_rules(source: Source, filters: Filters, taxonomy: Taxonomy, random: Random) -> Talk:
    """A dialogue without a model.

    Of a question, the asker's text and the answer are cut into turns, in order and word by word; where somebody has to
    say something between them, it is a stock phrase (``stock``). Strategies are those of the answer's labelled spans,
    else what its words point to.
    """
    rules = rules_in(source.language)
    if not source.is_question:
        return tuple(each._replace(strategy=each.strategy or rules.strategy_of(each.supporter)) for each in source.talk)
    told = _told(source.talk[0].seeker)
    answer = next(turn for turn in source.tree.trunk if turn.speaker == "supporter")
    pieces = _pieces(answer, taxonomy, rules, filters.fewest - len(told) + 1, filters.most - len(told) + 1)
    talk = [
        Exchange(one, question, "Question")
        for one, question in zip(told[:-1], random.sample(rules.explore, len(told) - 1), strict=True)
    ]
    for place, (text, strategy) in enumerate(pieces):
        stock = place > 0
        said = told[-1]
        if stock:
            said = rules.seeker_turn(talk[-1].supporter, strategy, [each.seeker for each in talk], random)
        talk.append(Exchange(said, text, strategy, stock=stock))
    return _in_phases(talk, len(told))


def _told(question: str) -> list[str]:
    """What the asker tells, in one to three turns: the question, and its description, a long one in two."""
    question, _, description = question.partition("\n")
    description = description.strip()
    if not description or description == question.strip():
        return [question.strip()]
    sentences = _sentences(description)
    if len(description) < _LONG or len(sentences) == 1:
        return [question.strip(), description]
    half = _merged([_Piece(each, "") for each in sentences], 2, 2)
    return [question.strip(), *(piece.text.strip() for piece in half)]


def _sentences(text: str) -> list[str]:
    return [match[0] for match in _SENTENCE.finditer(text) if match[0].strip()]


def _pieces(answer: Turn, taxonomy: Taxonomy, rules: Rules, fewest: int, most: int) -> list[_Piece]:
    """The sentences of an answer with their strategies, joined to as many pieces as there shall be at most."""
    spans, start, pieces = _spans(answer, taxonomy), 0, []
    for sentence in _sentences(answer.text or ""):
        middle = start + len(sentence) // 2
        labelled = next((label for begin, end, label in spans if begin <= middle < end), None)
        pieces.append(_Piece(sentence, labelled or rules.strategy_of(sentence)))
        start += len(sentence)
    return [piece._replace(text=piece.text.strip()) for piece in _merged(pieces, fewest, most)]


def _spans(answer: Turn, taxonomy: Taxonomy) -> list[tuple[int, int, str]]:
    """The labelled parts of an answer of PsyQA."""
    found = []
    for span in answer.extra.get("labels_sequence") or ():
        if isinstance(span, dict) and isinstance(span.get("start"), int) and isinstance(span.get("end"), int):
            written = str(span.get("type"))
            # its interpretations, which may reflect, restate or inform, are none of ESConv's strategies
            if label := taxonomy.match(FAILED_ESCONV_TO_ESCONV.get(written, written)):
                found.append((span["start"], span["end"], label))
    return found


def _merged(pieces: Sequence[_Piece], fewest: int, most: int) -> list[_Piece]:
    """Join neighbours until there are few enough and none is short: those of one strategy first, then the shortest."""
    pieces = list(pieces)

    def cost(place: int) -> tuple[bool, bool, int]:
        one, other = pieces[place : place + 2]
        short = min(len(one.text), len(other.text)) < _SHORT
        return not short, one.strategy != other.strategy, len(one.text) + len(other.text)

    while len(pieces) > 1:
        place = min(range(len(pieces) - 1), key=cost)
        if len(pieces) <= most and (len(pieces) <= fewest or cost(place)[0]):
            break
        one, other = pieces[place : place + 2]
        longer = max(one, other, key=lambda piece: len(piece.text))
        pieces[place : place + 2] = [_Piece(one.text + other.text, longer.strategy)]
    return pieces


def _in_phases(talk: Sequence[Exchange], told: int) -> Talk:
    """Exploration while the asker tells, then comforting and action, half of the rest each."""
    rest = len(talk) - told
    ends = (told, told + (rest + 1) // 2, len(talk))
    return tuple(
        each._replace(phase=next(phase for phase, end in zip(PHASES, ends, strict=True) if place < end))
        for place, each in enumerate(talk)
    )
