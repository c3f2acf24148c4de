"""Whether the experience that suits a person is found: hit@1 on held-out pairs, beside chance and words alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from esckit.errors import RoleError
from esckit.files import decode_json, read_text
from esckit.measures.intervals import mean_intervals
from esckit.planning.role_matcher import RoleMatcher
from esckit.roles.bank import RoleBank
from esckit.roles.telling import TOLERANCE, choose_experience

_WORDS_ALONE: Final = 2.0  # a tolerance under which all centred cosines are equal


class Pair(NamedTuple):
    """What a person wrote, and the experience of a role that suits it best, by whoever wrote the pair."""

    language: str
    text: str
    role: str
    experience: str


def read_pairs(path: Path) -> list[Pair]:
    """Read pairs, one JSON object a line with the four fields of `Pair`.

    Raises:
        RoleError: a line is something else.
    """
    pairs = []
    for number, line in enumerate(
        read_text(path, what="pairs of texts and experiences", error=RoleError).splitlines(), 1
    ):
        if line.strip():
            try:
                value = decode_json(line)
                pairs.append(Pair(*(str(value[name]) for name in Pair._fields)))
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                fields = ", ".join(Pair._fields)
                raise RoleError(f"{path}:{number} is no pair: write a JSON object with {fields}.") from error
    return pairs


def check_pairs(pairs: Sequence[Pair], bank: RoleBank) -> None:
    """Refuse pairs with a role or an experience that the bank lacks. Raises RoleError."""
    for pair in pairs:
        bank.role(pair.role).experience(pair.experience)


def experience_figures(matcher: RoleMatcher, pairs: Sequence[Pair], tolerance: float = TOLERANCE) -> dict[str, Any]:
    """hit@1 of each way to choose, by language: how often the pair's experience is the one that is chosen.

    Ways: ``emotions`` (as roles tell: centred cosine of the scores, ties by words), ``words alone``, and ``chance``,
    which is exact: the mean of one over the number of the role's experiences.

    Returns:
        JSON-ready, by language and way: ``n``, ``hit`` (0..1), ``interval`` (pairs drawn); chance has none.

    Raises:
        RoleError: the bank lacks a role, an experience or a language.
    """
    check_pairs(pairs, matcher.bank)
    found: dict[str, Any] = {}
    for language in dict.fromkeys(pair.language for pair in pairs):
        own = [pair for pair in pairs if pair.language == language]
        felt = matcher.feelings([pair.text for pair in own], language)
        hits: dict[str, Any] = {"emotions": [], "words alone": []}
        for pair, feelings in zip(own, felt, strict=True):
            role = matcher.bank.role(pair.role)
            words = matcher.likeness(pair.text, [each.text(language) for each in role.experiences], language)
            for way, equal in (("emotions", tolerance), ("words alone", _WORDS_ALONE)):
                chosen = choose_experience(role, feelings, words, (), equal)
                hits[way].append(chosen is not None and chosen.id == pair.experience)
        found[language] = _figures(hits, own, matcher.bank)
    return found


def _figures(hits: Mapping[str, Sequence[bool]], pairs: Sequence[Pair], bank: RoleBank) -> dict[str, Any]:
    each = {way: np.array(own, dtype=np.float64) for way, own in hits.items()}
    intervals = mean_intervals(each, [str(place) for place in range(len(pairs))])
    chance = float(np.mean([1 / len(bank.role(pair.role).experiences) for pair in pairs]))
    ways = {
        way: {
            "n": len(pairs),
            "hit": round(float(own.mean()), 4),
            "interval": [round(e, 4) for e in intervals[way] or ()],
        }
        for way, own in each.items()
    }
    return {**ways, "chance": {"n": len(pairs), "hit": round(chance, 4)}}
