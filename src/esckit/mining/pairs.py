"""From grown trees to the pairs that a part is trained on, with a linter on the way. It needs no torch."""

import math
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, Final, Literal, NamedTuple

from esckit.conversation import DECOUPLED_ESC_REASONS, Aspect, Conversation, Preference, Turn
from esckit.conversation.turn_rule import reply_text
from esckit.errors import CorpusError
from esckit.rendering import PairExample, Part, Renderer

ASPECTS: Final[Mapping[Part, tuple[Aspect, ...]]] = {
    "planner": ("strategy",),
    "generator": ("response",),
    "coupled": ("response", "turn"),
}
"""Which preferences train which part."""

PairKind = Literal["PsNr", "NsNr", "NsPr"]
"""Of a coupled pair, what is wrong with the rejected side: its reply, both, or its strategy (DecoupledESC, table 7)."""

_SPACES: Final = re.compile(r"\s+")


def normalise(text: str) -> str:
    """The form in which two replies count as equal: NFKC, case-folded, spaces joined, without those at the ends."""
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", text)).strip().casefold()


class Pair(NamedTuple):
    """A preference in its conversation."""

    conversation: Conversation
    preference: Preference

    @property
    def chosen(self) -> Turn:
        """The turn that is preferred."""
        return self.conversation.turn(self.preference.chosen)

    @property
    def rejected(self) -> Turn:
        """The turn that it is preferred to."""
        return self.conversation.turn(self.preference.rejected)

    @property
    def texts(self) -> tuple[str, str]:
        """What is compared, chosen and rejected: ``[Strategy] text``; the label alone where the aspect is strategy."""
        return self._side(self.chosen), self._side(self.rejected)

    def _side(self, turn: Turn) -> str:
        return (
            f"[{turn.strategy}]" if self.preference.aspect == "strategy" else reply_text(turn.strategy, turn.text or "")
        )


def kind_of(pair: Pair) -> PairKind:
    """What is wrong with the rejected side of a coupled pair: its reply, both, or its strategy (DecoupledESC, table 7).

    The strategy is negative where it is not the chosen one. The reply is negative where the judge blames it; where
    nobody has judged by DecoupledESC's reasons, where it is another one (`normalise`). How the paper made NsPr pairs
    it does not say: that the judge blames the strategy alone is our definition.
    """
    if pair.chosen.strategy == pair.rejected.strategy:
        return "PsNr"
    preference = pair.preference
    if preference.reason is None or preference.reasons != DECOUPLED_ESC_REASONS:
        positive = normalise(pair.chosen.text or "") == normalise(pair.rejected.text or "")
    else:
        positive = preference.reason == "strategy_mismatch"
    return "NsPr" if positive else "NsNr"


class PairReport(NamedTuple):
    """What the linter counted.

    Attributes:
        pairs: all of them.
        equal: chosen equals rejected, spaces around them aside: the loss would be a constant. They are faulty.
        duplicates: pairs that stand there a second time: same context, same two replies (`normalise`).
        longer_chosen: pairs whose chosen reply is the longer one, in characters.
        length_ratio: mean characters of the chosen replies over those of the rejected ones.
    """

    pairs: int
    equal: int
    duplicates: int
    longer_chosen: int
    length_ratio: float


def pairs_of(conversations: Iterable[Conversation], part: Part) -> list[Pair]:
    """The preferences that train a part, in order."""
    return [
        Pair(conversation, preference)
        for conversation in conversations
        for preference in conversation.preferences
        if preference.aspect in ASPECTS[part]
    ]


def lint_pairs(pairs: Sequence[Pair]) -> PairReport:
    """Count what would spoil training, and how far length alone tells chosen from rejected."""
    faults = Counter(fault for _, fault in _faults(pairs))
    lengths = [(len(chosen), len(rejected)) for chosen, rejected in (pair.texts for pair in pairs)]
    rejected_length = sum(rejected for _, rejected in lengths)
    return PairReport(
        len(pairs),
        faults["equal"],
        faults["duplicate"],
        sum(chosen > rejected for chosen, rejected in lengths),
        sum(chosen for chosen, _ in lengths) / rejected_length if rejected_length else 1.0,
    )


def pair_statistics(conversations: Iterable[Conversation]) -> dict[str, Any]:
    """Describe all preferences of some trees, JSON-ready: DecoupledESC's table 2, and its figures 9 and 10.

    Returns:
        ``pairs``; ``aspects``, ``kinds`` (of pairs with texts, `kind_of`) and ``reasons`` with their counts, the most
        frequent first; ``strategies``: for each label that occurs its counts among chosen and rejected sides;
        ``mean_characters`` of the chosen and rejected replies as they are written, null where no pair has texts.
    """
    pairs = [Pair(tree, preference) for tree in conversations for preference in tree.preferences]
    worded = [pair for pair in pairs if pair.preference.aspect != "strategy"]
    chosen = Counter(pair.chosen.strategy or "none" for pair in pairs)
    rejected = Counter(pair.rejected.strategy or "none" for pair in pairs)
    labels = sorted(chosen | rejected, key=lambda label: (-chosen[label], label))
    return {
        "pairs": len(pairs),
        "aspects": _counted(pair.preference.aspect for pair in pairs),
        "kinds": _counted(kind_of(pair) for pair in worded),
        "reasons": _counted(pair.preference.reason for pair in pairs if pair.preference.reason),
        "strategies": {label: {"chosen": chosen[label], "rejected": rejected[label]} for label in labels},
        "mean_characters": {
            "chosen": _mean([pair.chosen.text for pair in worded]),
            "rejected": _mean([pair.rejected.text for pair in worded]),
        },
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _mean(texts: Sequence[str | None]) -> float | None:
    return fmean(len(text or "") for text in texts) if texts else None


def _faults(pairs: Iterable[Pair]) -> Iterator[tuple[Pair, str | None]]:
    """Each pair with what is wrong with it; that its sides are siblings is a rule of the tree."""
    seen = set()
    for pair in pairs:
        one, other = pair.texts
        key = (pair.conversation.id, pair.chosen.parent, normalise(one), normalise(other))
        yield pair, "equal" if one == other else "duplicate" if key in seen else None
        seen.add(key)


def check_pairs(pairs: Sequence[Pair], *, drop: bool = False) -> list[Pair]:
    """Refuse pairs of equal sides, or leave them and duplicates out where told to ``drop`` them.

    Raises:
        CorpusError: there is no pair, or one of equal sides and not ``drop``.
    """
    equal = lint_pairs(pairs).equal
    if equal and not drop:
        raise CorpusError(
            f"{equal} of {len(pairs)} preference pairs must not be trained on, as their sides are equal: mend the "
            "trees, or leave them out (drop_faulty)."
        )
    kept = [pair for pair, fault in _faults(pairs) if fault is None] if drop else list(pairs)
    if not kept:
        raise CorpusError("there is no preference pair to train on: mine more samples, or another part.")
    return kept


def length_matched(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """The largest subset whose length says nothing: as many longer chosen as longer rejected replies, at each ratio.

    Pairs are put into bins of the ratio of their lengths in characters (factors of the square root of 2); of each bin
    and its mirror image, the larger is cut to the size of the smaller by a seeded draw. Order is kept.
    """
    bins: dict[int, list[int]] = {}
    for index, pair in enumerate(pairs):
        bins.setdefault(_length_bin(*map(len, pair.texts)), []).append(index)
    draw = random.Random(seed)
    kept: set[int] = set(bins.get(0, []))
    for number, members in sorted(bins.items()):
        if number:
            kept.update(draw.sample(members, min(len(members), len(bins.get(-number, [])))))
    return [pair for index, pair in enumerate(pairs) if index in kept]


def _length_bin(chosen: int, rejected: int) -> int:
    """0 for equal lengths, then bins of half an octave from 1 on, negative where rejected is longer."""
    ratio = max(chosen, rejected) / min(chosen, rejected)
    return (1 + int(2 * math.log2(ratio))) * ((chosen > rejected) - (chosen < rejected))


def render_pairs(
    pairs: Sequence[Pair], renderer: Renderer, part: Part, shown: Callable[[Conversation], Mapping[str, str]]
) -> list[list[PairExample]]:
    """Render pairs for a part, those of one conversation together."""
    grouped: dict[str, list[Pair]] = {}
    for pair in pairs:
        grouped.setdefault(pair.conversation.id, []).append(pair)
    rendered = []
    for members in grouped.values():
        known = shown(members[0].conversation)
        rendered.append([renderer.pair(pair.conversation, pair.preference, part, known) for pair in members])
    return rendered
