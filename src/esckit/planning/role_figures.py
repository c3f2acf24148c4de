"""How well roles are guessed: weighted precision, recall and F1, by role, and against the topic, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from esckit.measures.intervals import DRAWS, IntArray, basic_interval, resample_totals
from esckit.measures.strategy_measures import Scores, score
from esckit.planning.questions import Question

Guess = str | None
"""A role, or None: it abstains."""

AGAINST: Final = "topic alone"
"""The baseline that others are compared with."""

_FIGURES: Final = ("accuracy", "precision", "recall", "f1", "macro_f1")


def role_figures(
    questions: Sequence[Question], guesses: Sequence[Mapping[str, Guess]], roles: Sequence[str]
) -> dict[str, Any]:
    """Figures of each way of guessing, over questions with a gold role; questions of one source are drawn together.

    Precision, recall and F1 are means over roles, weighed by how often each is gold; ``macro_f1`` is the plain mean
    over roles that are gold. Where a way abstains, only what it answers counts, and ``answered`` says how much that is.

    Args:
        questions: N.
        guesses: for each, by way.
        roles: the bank's.

    Returns:
        JSON-ready, by way: ``n``, ``answered`` (0..1), each figure (0..1) and its ``…_interval``, ``by_role`` (F1), and
        ``over_topic``: F1 less that of the topic alone, with an interval, on the questions that both answer.
    """
    sources = {source: place for place, source in enumerate(dict.fromkeys(each.source for each in questions))}
    rows = np.array([sources[each.source] for each in questions])
    ways = list(guesses[0]) if guesses else []
    counts = {way: _counts(questions, [each[way] for each in guesses], rows, roles) for way in ways}
    found: dict[str, Any] = {}
    for way, own in counts.items():
        found[way] = _figures(own, len(questions), roles)
        if AGAINST in ways and way != AGAINST:
            answered = [each[way] is not None for each in guesses]
            both = [each[AGAINST] if there else None for each, there in zip(guesses, answered, strict=True)]
            found[way]["over_topic"] = _difference(own, _counts(questions, both, rows, roles))
    return found


def _counts(questions: Sequence[Question], said: Sequence[Guess], rows: Any, roles: Sequence[str]) -> IntArray:
    """(D, K + 1, K) guess by gold, as of `strategy_measures`; what is not answered is not counted."""
    counts = np.zeros((int(rows.max()) + 1 if len(rows) else 0, len(roles) + 1, len(roles)), dtype=np.int64)
    for row, question, guess in zip(rows, questions, said, strict=True):
        if guess is not None:
            counts[row, roles.index(guess), roles.index(str(question.role))] += 1
    return counts


def _measures(counts: Any) -> dict[str, Any]:
    """Each of `_FIGURES` (...) of counts (..., K + 1, K)."""
    scores: Scores = score(counts)
    total = np.maximum(scores.gold.sum(-1), 1)
    weighed = {name: (getattr(scores, name) * scores.gold).sum(-1) / total for name in ("precision", "recall", "f1")}
    occurs = scores.gold > 0
    macro = (scores.f1 * occurs).sum(-1) / np.maximum(occurs.sum(-1), 1)
    return {"accuracy": scores.accuracy, **weighed, "macro_f1": macro}


def _figures(counts: IntArray, n: int, roles: Sequence[str]) -> dict[str, Any]:
    exact, drawn = _measures(counts.sum(0)), _measures(resample_totals(counts, DRAWS.resamples, DRAWS.seed))
    found: dict[str, Any] = {"n": n, "answered": round(int(counts.sum()) / max(n, 1), 4)}
    for name in _FIGURES:
        interval = basic_interval(float(exact[name]), drawn[name], high=1.0)
        found |= {name: round(float(exact[name]), 4), f"{name}_interval": [round(end, 4) for end in interval]}
    scores = score(counts.sum(0))
    by_role = {role: round(float(f1), 4) for role, f1, gold in zip(roles, scores.f1, scores.gold, strict=True) if gold}
    return {**found, "by_role": by_role}


def _difference(one: IntArray, other: IntArray) -> dict[str, Any]:
    both = np.stack([one, other], axis=1)  # (D, 2, K + 1, K): both are drawn together
    exact = _measures(both.sum(0))["f1"]
    drawn = _measures(resample_totals(both, DRAWS.resamples, DRAWS.seed))["f1"]
    interval = basic_interval(float(exact[0] - exact[1]), drawn[:, 0] - drawn[:, 1], low=-1.0, high=1.0)
    return {"f1": round(float(exact[0] - exact[1]), 4), "interval": [round(end, 4) for end in interval]}
