"""The rules of the tree that types alone do not say, a record at a time: each finds what is wrong, or None."""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite

from esckit.conversation.records import REASONS, Preference, Turn, Verdict

__all__ = ["label_problem", "preference_problem", "scores_problem", "turn_problem", "verdict_problem"]


def turn_problem(turn: Turn, turns: Sequence[Turn], places: Mapping[str, int]) -> str | None:
    """What is wrong with a turn among those before it, whose places in ``turns`` are known by id."""
    if not turn.id:
        return "the id is empty; give every turn an id that is unique in its conversation."
    if turn.id in places:
        return "the id occurs twice; turn ids are unique in a conversation."
    if turn.parent is not None and turn.parent not in places:
        return f"its parent {turn.parent!r} does not stand before it; write parents before their children."
    if turn.parent is not None and turns[places[turn.parent]].planned:
        return f"its parent {turn.parent!r} is planned (a strategy without text) and can have no children."
    if turn.planned and turn.strategy is None:
        return "it has neither text nor strategy; give a text, or a supporter turn a strategy."
    return scores_problem(turn.scores) or verdict_problem(turn.verdicts)


def label_problem(turn: Turn, labels: tuple[str, ...]) -> str | None:
    """What is wrong with a turn's strategy."""
    if turn.speaker == "seeker" and turn.strategy is not None:
        return f"a seeker turn carries the strategy {turn.strategy!r}; only supporter turns have one."
    if turn.strategy is not None and turn.strategy not in labels:
        return (
            f"unknown strategy {turn.strategy!r}; allowed are {', '.join(labels) or 'none, as the taxonomy is null'}."
        )
    return None


def scores_problem(scores: Mapping[str, float]) -> str | None:
    """What is wrong with scores; a search that divides by 0 must not find out when it writes."""
    for name, value in scores.items():
        if isinstance(value, bool) or not (isinstance(value, int | float) and isfinite(value)):
            return f"the score {name!r} is {value!r}; scores are finite numbers."
    return None


def verdict_problem(verdicts: Iterable[Verdict]) -> str | None:
    """What is wrong with the first bad verdict."""
    for verdict in verdicts:
        if problem := _reason_problem("error type", verdict.error, verdict.reasons) or scores_problem(verdict.scores):
            return problem
        if verdict.state != "done" and (verdict.error is not None or verdict.scores):
            return f"the {verdict.state} verdict of {verdict.judge!r} carries a result; only a done verdict has one."
    return None


def preference_problem(preference: Preference, turns: Sequence[Turn], places: Mapping[str, int]) -> str | None:
    """What is wrong with a preference between two of ``turns``, whose places are known by id."""
    for turn_id in (preference.chosen, preference.rejected):
        if turn_id not in places:
            return f"there is no turn {turn_id!r}; a preference names two turns of its conversation."
    chosen, rejected = turns[places[preference.chosen]], turns[places[preference.rejected]]
    if chosen.id == rejected.id or chosen.parent != rejected.parent:
        return "they are not two siblings; a preference joins different turns of one parent."
    if "seeker" in (chosen.speaker, rejected.speaker):
        return "one is a seeker's; preferences are about supporter turns."
    if problem := _reason_problem("reason", preference.reason, preference.reasons):
        return problem
    if preference.aspect == "strategy":
        ok = None not in (chosen.strategy, rejected.strategy) and chosen.strategy != rejected.strategy
        return None if ok else "aspect strategy needs two different strategies."
    if chosen.planned or rejected.planned:
        return f"aspect {preference.aspect} needs two texts, and one turn is planned."
    if preference.aspect == "response" and chosen.strategy != rejected.strategy:
        return "aspect response needs the same strategy on both sides; use aspect turn."
    return None


def _reason_problem(what: str, reason: str | None, reasons: str) -> str | None:
    known = REASONS.get(reasons)
    if known is None:
        return f"unknown taxonomy of reasons {reasons!r}; known are {', '.join(REASONS)}."
    if reason is not None and reason not in known:
        return f"unknown {what} {reason!r}; allowed are {', '.join(known)}, or null."
    return None
