"""People's ratings: the agreement in a table of them, how a judge agrees with them, and which system they prefer."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, groupby
from typing import Any, Final, NamedTuple

import numpy as np

from esckit.errors import EsckitError
from esckit.measures.agreement import LEVELS, Coefficient, Level, cohen_kappa, fleiss_kappa, krippendorff_alpha
from esckit.measures.intervals import DRAWS, Draws, FloatArray, basic_interval
from esckit.measures.judgements import Judgement, rate_of_wins
from esckit.measures.permutation import holm
from esckit.measures.rating_files import Ratings, read_ratings, suspect_words

__all__ = [
    "JudgedItem",
    "Ratings",
    "against_people",
    "agreement",
    "few_items",
    "missing_ratings",
    "pearson",
    "people_wins",
    "read_ratings",
    "spearman",
]

FEW_ITEMS: Final = 10
"""Under so many, intervals over items are too narrow, as they are over dialogues."""


def agreement(ratings: Ratings, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Return every coefficient that the ratings allow, JSON-ready; None where one does not apply (docs/measures.md)."""
    table, raters = ratings.table, ratings.raters
    said = {rating for row in table for rating in row if rating is not None}
    numbers = all(isinstance(rating, float) for rating in said)
    categories = sorted(said, key=lambda rating: (rating, "") if isinstance(rating, float) else (0, rating))
    counts = np.array([[row.count(category) for category in categories] for row in table])
    each = counts.sum(1)
    equally = each.min() == each.max() > 1
    draws = Draws(seed, resamples)

    def cohen(a: int, b: int, quadratic: bool) -> dict[str, Any] | None:
        first, second = ([row[rater] for row in table] for rater in (a, b))
        together = any(None not in pair for pair in zip(first, second, strict=True))
        if not together or (quadratic and not numbers):
            return None
        return cohen_kappa(first, second, quadratic=quadratic, draws=draws).to_json()

    def alpha(level: Level) -> dict[str, Any] | None:
        if each.max() < 2 or (level != "nominal" and not numbers):
            return None
        return krippendorff_alpha(table, level, draws).to_json()

    return {
        "format": 1,
        "seed": seed,
        "resamples": resamples,
        "items": len(table),
        "raters": raters,
        "ratings": int(each.sum()),
        "categories": categories,
        "fleiss": fleiss_kappa(counts, draws).to_json() if equally else None,
        "krippendorff": {level: alpha(level) for level in LEVELS},
        "cohen": [
            {"raters": [raters[a], raters[b]], "plain": cohen(a, b, False), "quadratic": cohen(a, b, True)}
            for a, b in combinations(range(len(raters)), 2)
        ],
        "warnings": _warnings(ratings, numbers, equally),
    }


def _warnings(ratings: Ratings, numbers: bool, equally: bool) -> list[str]:
    """Say in sentences what a reader of the coefficients must know."""
    warnings = few_items(len(ratings.items)) + missing_ratings(ratings)
    if not equally:
        warnings.append("fleiss is null: it needs items that are all rated equally often, at least twice each.")
    if words := suspect_words(ratings):
        shown = ", ".join(map(repr, words[:_SHOWN]))
        warnings.append(
            f"{shown}{', ...' if words[_SHOWN:] else ''} count{'' if words[1:] else 's'} as names, and so do all "
            "ratings: leave a missing one empty, and write numbers where numbers are meant."
        )
    if not numbers:
        warnings.append("Coefficients of numbers (ordinal, interval, quadratic) are null: the ratings are names.")
    return warnings


def missing_ratings(ratings: Ratings) -> list[str]:
    """A warning, where not every rater rated every item."""
    cells = [rating for row in ratings.table for rating in row]
    missing = cells.count(None)
    return [f"{missing} of {len(cells)} ratings {'is' if missing == 1 else 'are'} missing."] if missing else []


def few_items(items: int) -> list[str]:
    """A warning, where there are too few items for intervals to be believed."""
    told = f"Only {items} item{'' if items == 1 else 's'}: under {FEW_ITEMS} of them intervals are too narrow."
    return [told] if items < FEW_ITEMS else []


_SHOWN: Final = 5  # words of a note
_Row = list[str | float | None]  # of `Ratings.table`
_FEWEST: Final = 3  # items; two points always lie on a line


class JudgedItem(NamedTuple):
    """A judge's score, and the dialogue that its reply stands in."""

    score: int
    dialogue: str


def against_people(judged: Mapping[str, JudgedItem], ratings: Ratings, draws: Draws = DRAWS) -> dict[str, Any]:
    """Compare a judge with people over the items that both rated.

    Returns:
        JSON-ready: ``items``; ``pearson`` and ``spearman`` of the judge with the mean of the people who rated an item
        (None for fewer than three items, or where one side never varies); ``cohen``, with each rater: ``rater``,
        ``items``, ``plain`` and ``quadratic`` kappa; each coefficient with ``value`` and 95% ``interval``; ``people``,
        the same people among each other (`ratings.agreement`), None where there is one.

    Raises:
        EsckitError: a rating is no number, or no rated item was judged.
    """
    if names := [rating for row in ratings.table for rating in row if isinstance(rating, str)]:
        shown = (suspect_words(ratings) or names)[0]
        raise EsckitError(f"people's ratings are no numbers ({shown!r} is one): rate on the judge's scale.")
    rows = [
        (judged[item], [None if rating is None else float(rating) for rating in row])
        for item, row in zip(ratings.items, ratings.table, strict=True)
        if item in judged and any(rating is not None for rating in row)
    ]
    if not rows:
        raise EsckitError("no rated item was judged: take the items from the sheet that judging wrote.")
    scores = np.array([own.score for own, _ in rows], dtype=np.float64)
    means = np.array([np.mean([rating for rating in row if rating is not None]) for _, row in rows])
    dialogues = [own.dialogue for own, _ in rows]

    both = pearson(scores, means, dialogues, draws), spearman(scores, means, dialogues, draws)
    return {
        "items": len(rows),
        **{name: found and found.to_json() for name, found in zip(("pearson", "spearman"), both, strict=True)},
        "cohen": [
            found
            for place, rater in enumerate(ratings.raters)
            if (found := _kappas(rater, [(own, row[place]) for own, row in rows], draws))
        ],
        "people": _agreement(ratings, draws) if len(ratings.raters) > 1 else None,
    }


def people_wins(replies: Mapping[str, Judgement], ratings: Ratings, draws: Draws = DRAWS) -> list[dict[str, Any]]:
    """Which of two systems people prefer, quality by quality (DecoupledESC, figure 6).

    A person prefers the reply to which they gave more points, of two to the same turn; equal points are a tie. Only
    a person's own two ratings are set against each other, so that strict and mild people count the same. Dialogues are
    permuted and drawn, for kappa turns. ``replies`` says of an item whose reply it is, to which turn and quality.

    Returns:
        JSON-ready, a row for each quality and two systems that somebody compared: ``quality``, ``a``, ``b``, ``turns``,
        ``verdicts`` (of all people), ``wins``, ``ties``, ``losses`` of a, ``win_rate`` (wins + ties / 2) / verdicts
        with ``interval``, ``p`` that it is one half and ``p_holm`` over all rows, ``fleiss`` kappa of the verdicts
        (None unless every turn has equally many, and at least two).
    """
    given: dict[tuple[str, tuple[str, str]], dict[str, _Row]] = {}
    for item, said in zip(ratings.items, ratings.table, strict=True):
        if item in replies:
            reply = replies[item]
            given.setdefault((reply.rubric, (reply.conversation_id, reply.turn_id)), {})[reply.system] = said
    compared: dict[tuple[str, str, str], dict[tuple[str, str], _Row]] = {}
    for (quality, turn), by_system in given.items():
        for a, b in combinations(sorted(by_system), 2):
            verdicts = [_verdict(*pair) for pair in zip(by_system[a], by_system[b], strict=True)]
            if any(verdict is not None for verdict in verdicts):
                compared.setdefault((quality, a, b), {})[turn] = [*verdicts]
    rows = [
        {"quality": quality, "a": a, "b": b, **_wins(turns, ratings.raters, draws)}
        for (quality, a, b), turns in sorted(compared.items())
    ]
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = corrected
    return rows


def _verdict(first: str | float | None, second: str | float | None) -> float | None:
    """1 where the first has more points, .5 for equally many, 0 for fewer; None where one is not rated."""
    if first is None or second is None:
        return None
    return 0.5 if first == second else float(float(first) > float(second))


def _wins(turns: Mapping[tuple[str, str], _Row], raters: list[str], draws: Draws) -> dict[str, Any]:
    said = [(float(verdict), turn[0]) for turn, row in turns.items() for verdict in row if verdict is not None]
    outcomes = np.array([outcome for outcome, _ in said])
    table = Ratings([str(turn) for turn in turns], raters, [*turns.values()])
    return {
        "turns": len(turns),
        "verdicts": len(said),
        "wins": int((outcomes == 1).sum()),
        "ties": int((outcomes == 0.5).sum()),
        "losses": int((outcomes == 0).sum()),
        **rate_of_wins(outcomes, [dialogue for _, dialogue in said], draws),
        "fleiss": _agreement(table, draws)["fleiss"],
    }


def _agreement(ratings: Ratings, draws: Draws) -> dict[str, Any]:
    return agreement(ratings, resamples=draws.resamples, seed=draws.seed)


def pearson(
    first: FloatArray, second: FloatArray, dialogues: Sequence[str], draws: Draws = DRAWS
) -> Coefficient | None:
    """Return Pearson's correlation of two raters (N,), with a 95% basic bootstrap interval over dialogues, in -1..1.

    None for fewer than three items, or where one side never varies; resamples in which one does not vary are left out.
    """
    return _with_interval(first, second, dialogues, _correlation, draws)


def spearman(
    first: FloatArray, second: FloatArray, dialogues: Sequence[str], draws: Draws = DRAWS
) -> Coefficient | None:
    """Return Spearman's correlation: Pearson's of the ranks, equal ratings sharing their mean rank. See `pearson`."""
    return _with_interval(first, second, dialogues, lambda one, other: _correlation(_ranks(one), _ranks(other)), draws)


def _with_interval(
    first: FloatArray,
    second: FloatArray,
    dialogues: Sequence[str],
    correlation: Callable[[FloatArray, FloatArray], float | None],
    draws: Draws,
) -> Coefficient | None:
    value = correlation(first, second) if len(first) >= _FEWEST else None
    if value is None:
        return None
    order = sorted(range(len(first)), key=lambda place: dialogues[place])
    clusters = [np.array(list(own)) for _, own in groupby(order, key=lambda place: dialogues[place])]
    rng = np.random.default_rng(draws.seed)
    replicates = []
    for _ in range(draws.resamples):
        drawn = np.concatenate([clusters[cluster] for cluster in rng.integers(len(clusters), size=len(clusters))])
        if (found := correlation(first[drawn], second[drawn])) is not None:
            replicates.append(found)
    return Coefficient(value, basic_interval(value, np.array(replicates), low=-1, high=1))


def _correlation(first: FloatArray, second: FloatArray) -> float | None:
    one, two = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((one**2).sum() * (two**2).sum()))
    return None if scale < 1e-12 else float((one * two).sum() / scale)


def _ranks(ratings: FloatArray) -> FloatArray:
    """(N,) ranks, equal ratings sharing their mean rank."""
    _, place, number = np.unique(ratings, return_inverse=True, return_counts=True)
    return np.asarray((number.cumsum() - (number - 1) / 2)[place])


def _kappas(rater: str, pairs: Sequence[tuple[JudgedItem, float | None]], draws: Draws) -> dict[str, Any] | None:
    both = [(float(own.score), rating, own.dialogue) for own, rating in pairs if rating is not None]
    if not both:
        return None
    judge, person, dialogues = zip(*both, strict=True)
    plain, quadratic = (
        cohen_kappa(judge, person, quadratic=weighted, clusters=dialogues, draws=draws).to_json()
        for weighted in (False, True)
    )
    return {"rater": rater, "items": len(both), "plain": plain, "quadratic": quadratic}
