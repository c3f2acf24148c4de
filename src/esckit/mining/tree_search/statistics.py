"""What came out of a search: CSO's table 5, its figures 3 and 9, and what tells chosen from rejected without reading.

docs/mining.md says how a searched tree is marked.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from esckit.conversation import Conversation, Preference, Turn
from esckit.conversation.records import CSO_REASONS
from esckit.conversation.sixths import SIXTHS, sixth_of
from esckit.strategy import TAXONOMIES

__all__ = ["PARTS", "search_statistics", "turns_by_part"]

PARTS: Final = ("seed_seeker", "seed_supporter", "seeker", "kept", "rejected")
"""Whose turns are told apart: the seed's own, and of the search the seeker's, the kept and the rejected ones."""

_ONCE: Final = "low_value_once"
_JUDGED: Final = ("low_value", _ONCE)


def search_statistics(trees: Iterable[Conversation]) -> dict[str, Any]:
    """Describe what searches kept, JSON-ready: CSO's table 5, its figures 3 and 9. Linear in the trees.

    The paper counts a turn once for each kept dialogue that it stands in; here it counts once.

    Returns:
        ``dialogues`` and ``mean_utterances`` (a dialogue) of the ``seed`` and of the ``kept`` dialogues: talks to an
        end that is kept. ``turns``: for each of `PARTS` the number of ``turns``, ``mean_words`` (between white space)
        and ``mean_characters``. ``strategies``: of the ``seed`` and the ``kept`` turns the shares, 0..1, in each sixth
        of the dialogue (`sixth_of`); a kept turn's dialogue is the longest one to an end that it stands in, or as long
        as the seed where it stands in none. ``pairs`` of replies; ``longer_wins``, the share of them whose chosen side
        has more characters (equal ones count half); ``human_pairs``, those of which one side is the seed's own, and
        ``human_wins``, the share of these that prefer it; ``once``, the share of judged pairs that rest on one
        judgement. Means and shares of nothing are None.
    """
    tally = _Tally()
    for tree in trees:
        tally.add(tree)
    return tally.figures()


def turns_by_part(tree: Conversation) -> dict[str, list[Turn]]:
    """The turns with a text of each of `PARTS`, each turn once.

    ``kept`` are worth keeping, the seed's own among them; ``seeker`` is what the seeker role said before one of them;
    ``rejected`` is what a pair of the search rejects.
    """
    seed = {turn.id for turn in tree.trunk}
    rejected = {preference.rejected for preference in _pairs(tree)}
    before: set[str | None] = set()
    for turn in reversed(tree.turns):
        if "kept" in turn.scores or turn.id in before:
            before.add(turn.parent)
    said = [turn for turn in tree.turns if not turn.planned]
    return {
        "seed_seeker": [turn for turn in said if turn.id in seed and turn.speaker == "seeker"],
        "seed_supporter": [turn for turn in said if turn.id in seed and turn.speaker == "supporter"],
        "seeker": [turn for turn in said if turn.id in before - seed and turn.speaker == "seeker"],
        "kept": [turn for turn in said if "kept" in turn.scores],
        "rejected": [turn for turn in said if turn.id in rejected],
    }


def _pairs(tree: Conversation) -> list[Preference]:
    """The search's pairs of replies: a pair that trains a planner alone says the same of the same two turns."""
    return [each for each in tree.preferences if each.reasons == CSO_REASONS and each.aspect != "strategy"]


@dataclass
class _Tally:
    """The running counts."""

    seeds: int = 0
    utterances: int = 0
    kept_lengths: list[int] = field(default_factory=list)
    turns: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    labels: dict[str, None] = field(default_factory=dict)
    sixths: dict[str, list[Counter[str]]] = field(
        default_factory=lambda: {side: [Counter() for _ in range(SIXTHS)] for side in ("seed", "kept")}
    )
    reasons: Counter[str | None] = field(default_factory=Counter)
    pairs: int = 0
    longer: float = 0
    human: int = 0
    human_wins: int = 0

    def add(self, tree: Conversation) -> None:
        seed = {turn.id: place for place, turn in enumerate((t for t in tree.trunk if not t.planned), 1)}
        self.seeds += 1
        self.utterances += len(seed)
        self.labels.update(dict.fromkeys(TAXONOMIES[tree.taxonomy].labels if tree.taxonomy else ()))
        parts = turns_by_part(tree)
        for part, turns in parts.items():
            self.turns[part] += len(turns)
            self.words[part] += sum(len((turn.text or "").split()) for turn in turns)
            self.characters[part] += sum(len(turn.text or "") for turn in turns)
        self._add_lengths(tree, seed, parts)
        for pair in _pairs(tree):
            self._add_pair(tree, pair, seed)

    def _add_lengths(self, tree: Conversation, seed: Mapping[str, int], parts: Mapping[str, Sequence[Turn]]) -> None:
        """How long kept dialogues are, and which sixth each turn stands in."""
        talks = _Talks(tree, seed)
        self.kept_lengths += talks.kept
        for turn in parts["seed_supporter"]:
            self._add_sixth("seed", turn, seed[turn.id], len(seed))
        for turn in parts["kept"]:
            place = talks.places[turn.id]
            self._add_sixth("kept", turn, place, talks.longest.get(turn.id) or max(place, len(seed)))

    def _add_sixth(self, side: str, turn: Turn, place: int, length: int) -> None:
        if turn.strategy:
            self.labels[turn.strategy] = None
            self.sixths[side][sixth_of(place, length)][turn.strategy] += 1

    def _add_pair(self, tree: Conversation, pair: Preference, seed: Mapping[str, int]) -> None:
        chosen, rejected = (len(tree.turn(each).text or "") for each in (pair.chosen, pair.rejected))
        self.pairs += 1
        self.reasons[pair.reason] += 1
        self.longer += (chosen > rejected) + (chosen == rejected) / 2
        if (pair.chosen in seed) != (pair.rejected in seed):
            self.human += 1
            self.human_wins += pair.chosen in seed

    def figures(self) -> dict[str, Any]:
        return {
            "dialogues": {"seed": self.seeds, "kept": len(self.kept_lengths)},
            "mean_utterances": {
                "seed": _mean(self.utterances, self.seeds),
                "kept": _mean(sum(self.kept_lengths), len(self.kept_lengths)),
            },
            "turns": {
                part: {
                    "turns": self.turns[part],
                    "mean_words": _mean(self.words[part], self.turns[part]),
                    "mean_characters": _mean(self.characters[part], self.turns[part]),
                }
                for part in PARTS
            },
            "strategies": {side: [self._shares(sixth) for sixth in sixths] for side, sixths in self.sixths.items()},
            "pairs": self.pairs,
            "longer_wins": _mean(self.longer, self.pairs),
            "human_pairs": self.human,
            "human_wins": _mean(self.human_wins, self.human),
            "once": _mean(self.reasons[_ONCE], sum(self.reasons[reason] for reason in _JUDGED)),
        }

    def _shares(self, counts: Counter[str]) -> dict[str, float]:
        return {label: _mean(counts[label], counts.total()) or 0.0 for label in self.labels}


class _Talks:
    """The talks of a tree, without going along any of them twice.

    Attributes:
        places: of each turn, its number in its talk, from 1; planned turns do not count.
        kept: the lengths of the talks to an end that is kept.
        longest: of each turn that stands in a talk to an end, the longest one's length.
    """

    def __init__(self, tree: Conversation, seed: Mapping[str, int]) -> None:
        self.places: dict[str | None, int] = {None: 0}
        self.kept: list[int] = []
        self.longest: dict[str | None, int] = {}
        for turn in tree.turns:
            self.places[turn.id] = self.places[turn.parent] + (not turn.planned)
            if "end" in turn.scores and not turn.planned:
                # the seed's remaining turns follow its last reply
                self.longest[turn.id] = len(seed) if turn.id in seed else self.places[turn.id]
                if "kept" in turn.scores:
                    self.kept.append(self.longest[turn.id])
        for turn in reversed(tree.turns):
            if turn.id in self.longest:
                self.longest[turn.parent] = max(self.longest[turn.id], self.longest.get(turn.parent, 0))


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None
