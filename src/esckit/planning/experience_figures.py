"""Whether the experience that suits a person is found: hit@1 on held-out pairs, beside chance and words alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from esckit.errors import RoleError
from esckit.files import decode_json, read_text
from esckit.measures.intervals import mean_intervals
from esckit.planning.role_matcher import RoleMatcher
from esckit.roles.bank import RoleBank
from esckit.roles.pairs import Pair
from esckit.roles.telling import TOLERANCE, choose_experience

_WORDS_ALONE: Final = 2.0  # a tolerance under which all centred cosines are equal


def read_own_pairs(path: Path) -> list[Pair]:
    """Read a user's pairs, one JSON object a line: ``role``, ``experience``, and a text under each language.

    Raises:
        RoleError: a line is something else.
    """
    lines = read_text(path, what="pairs of texts and experiences", error=RoleError).splitlines()
    return [_pair(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]


def _pair(where: str, line: str) -> Pair:
    try:
        row = decode_json(line)
    except json.JSONDecodeError as error:
        raise RoleError(f"{where} is not valid JSON ({error.msg}): mend that line.") from error
    texts = (
        isinstance(row, dict) and len(row) > 2 and all(isinstance(text, str) and text.strip() for text in row.values())
    )
    if not (texts and {"role", "experience"} <= row.keys()):
        raise RoleError(f'{where} is no pair: write {{"role": ..., "experience": ..., "en": what a person says}}.')
    return Pair(row.pop("role"), row.pop("experience"), row)


def check_pairs(pairs: Sequence[Pair], bank: RoleBank) -> None:
    """Refuse pairs with a role or an experience that the bank lacks. Raises RoleError."""
    for pair in pairs:
        bank.role(pair.role).experience(pair.experience)


def experience_figures(matcher: RoleMatcher, pairs: Sequence[Pair], tolerance: float = TOLERANCE) -> dict[str, Any]:
    """hit@1 of each way to choose, by language: how often the pair's experience is the one that is chosen.

    Ways: ``as told`` (centred cosine of the scores, those within the tolerance by words), each of the two alone, and
    ``chance``, which is exact: the mean of one over the number of the role's experiences.

    Returns:
        JSON-ready, by language and way: ``n``, ``hit`` (0..1), ``interval`` (pairs drawn); chance has none.

    Raises:
        RoleError: the bank lacks a role, an experience or a language.
    """
    check_pairs(pairs, matcher.bank)
    found: dict[str, Any] = {}
    for language in dict.fromkeys(language for pair in pairs for language in pair.said):
        own = [pair for pair in pairs if language in pair.said]
        felt = matcher.feelings([pair.said[language] for pair in own], language)
        hits: dict[str, list[bool]] = {way: [] for way in ("as told", "emotions alone", "words alone")}
        for pair, feelings in zip(own, felt, strict=True):
            role = matcher.bank.role(pair.role)
            words = matcher.likeness(pair.said[language], [each.text(language) for each in role.experiences], language)
            for way, equal in zip(hits, (tolerance, 0.0, _WORDS_ALONE), strict=True):
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
