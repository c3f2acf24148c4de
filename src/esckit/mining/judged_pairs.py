"""Judged mining (DecoupledESC, section 4.1 and figure 15): an annotator says which sampled sides are faulty, and how.

A pair is kept by three criteria. *Faulty*: the rejected side has an error of the part's (`ROUTES`). *Clean chosen*, an
option: the chosen side has none of them, by the same annotator. *Unequal*, ours: what the error blames is not gold's,
so that gold's own strategy or words are never rejected.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from esckit.conversation import Aspect, Conversation, Preference, Turn, Verdict
from esckit.judging.annotation import RUBRIC, Annotator, judge_turns, open_turns
from esckit.mining.inferential import SAMPLING, kept_note
from esckit.mining.pairs import Pair, kind_of, normalise
from esckit.rendering import Part, supporter_turns

__all__ = ["ROUTES", "Keeper", "judge_sampled"]

_STRATEGY: Final = "strategy_mismatch"
_REPLY: Final = ("lack_of_empathy", "early_emotion_shift", "template_response")

ROUTES: Final[Mapping[Part, tuple[str, ...]]] = {
    "planner": (_STRATEGY,),
    "generator": _REPLY,
    "coupled": (_STRATEGY, *_REPLY),
}
"""Which errors make pairs of which part (DecoupledESC, section 4.1); ``emotion_misread`` and ``other`` make none."""


class _Sides(NamedTuple):
    """A gold turn, and what was sampled beside it."""

    gold: Turn
    sampled: Turn


@dataclass(frozen=True)
class Keeper:
    """What turns a tree with sampled turns into one with verdicts and preferences.

    Attributes:
        part: whose pairs.
        source: of the sampled turns.
        clean_chosen: see `mining.mining_options.MiningOptions`.
        judge: the annotator's name.
    """

    part: Part
    source: str
    clean_chosen: bool
    judge: str

    def to_judge(self, tree: Conversation) -> list[Turn]:
        """Sampled turns, and with ``clean_chosen`` gold ones beside them, without a verdict of this judge."""
        sides = self._sides(tree)
        wanted = {pair.sampled.id for pair in sides} | {pair.gold.id for pair in sides if self.clean_chosen}
        return [turn for turn in open_turns(tree, self.judge) if turn.id in wanted]

    def keep(self, tree: Conversation) -> Conversation:
        """Return the judged tree with its preferences; counts go to those of the source in its provenance."""
        sides = self._sides(tree)
        before = tree.provenance.get("mined", {}).get(self.source, {})
        counts = Counter({name: before[name] for name in SAMPLING if name in before})
        counts.update(f"judged:{self._outcome(pair.sampled)}" for pair in sides)
        if self.clean_chosen:
            counts.update(f"gold_judged:{self._outcome(turn)}" for turn in {p.gold.id: p.gold for p in sides}.values())
        kept = [preference for pair in sides if (preference := self._preference(pair, counts))]
        counts.update(f"kept:{preference.reason}" for preference in kept)
        counts.update(f"kept:{kind_of(Pair(tree, preference))}" for preference in kept if self.part == "coupled")
        counts["pairs"] = len(kept)
        mined = {**tree.provenance.get("mined", {}), self.source: {name: n for name, n in counts.items() if n}}
        return replace(tree.grow((), kept), provenance={**tree.provenance, "mined": mined})

    def _sides(self, tree: Conversation) -> list[_Sides]:
        gold = {turn.parent: turn for turn in supporter_turns(tree)}
        return [
            _Sides(gold[turn.parent], turn)
            for turn in tree.turns
            if turn.source == self.source and turn.parent in gold and turn.id != gold[turn.parent].id
        ]

    def _outcome(self, turn: Turn) -> str:
        """An error type, "none", or what became of the verdict: unparsed, refused, failed."""
        verdict = self._verdict(turn)
        if verdict is None:
            return "failed"
        return (verdict.error or "none") if verdict.state == "done" else verdict.state

    def _verdict(self, turn: Turn) -> Verdict | None:
        own = (verdict for verdict in turn.verdicts if verdict.judge == self.judge and verdict.rubric == RUBRIC)
        return next(own, None)

    def _preference(self, sides: _Sides, counts: Counter[str]) -> Preference | None:
        """The preference for gold, where every criterion is met; else the one that is not is counted."""
        verdict, error = self._verdict(sides.sampled), self._outcome(sides.sampled)
        if verdict is None or error not in ROUTES[self.part]:
            return None
        if _blames_gold(sides, error):
            counts["blames_gold"] += 1
            return None
        chosen = self._outcome(sides.gold) if self.clean_chosen else "none"
        if chosen in ROUTES[self.part]:
            counts["chosen_faulty"] += 1
            return None
        if chosen in ("unparsed", "refused", "failed"):
            counts["chosen_unjudged"] += 1
            return None
        why = verdict.explanation
        return Preference(sides.gold.id, sides.sampled.id, self._aspect(sides), error, self.judge, why)

    def _aspect(self, sides: _Sides) -> Aspect:
        if self.part == "planner":
            return "strategy"
        return "response" if sides.gold.strategy == sides.sampled.strategy else "turn"


def _blames_gold(sides: _Sides, error: str) -> bool:
    """Whether what an error blames, the strategy or the words, is gold's own."""
    if error == _STRATEGY:
        return sides.gold.strategy == sides.sampled.strategy
    return normalise(sides.gold.text or "") == normalise(sides.sampled.text or "")


def judge_sampled(
    trees: Sequence[Conversation], annotator: Annotator, keeper: Keeper, out: Path, *, key: Any, title: str
) -> None:
    """Judge what was sampled, and write the trees with verdicts and preferences; the file appears when it is complete.

    A stopped call is continued by the same call, after its last whole tree; a chat model's answers until then are in
    its ledger.

    Args:
        trees: with sampled turns.
        annotator: who judges; open.
        keeper: of this annotator's name.
        out: the file of trees, in the same order.
        key: JSON-ready; all that ``trees`` depend on.
        title: for the progress bar.

    Raises:
        EsckitError: the annotator cannot go on, or the file cannot be written; what was judged is kept.
    """
    counts: Counter[str] = Counter()

    def keep(tree: Conversation) -> Conversation:
        kept = keeper.keep(tree)
        counts.update(kept.provenance["mined"][keeper.source])
        return kept

    todo = [keeper.to_judge(tree) for tree in trees]
    whole_key = [key, keeper.part, keeper.source, keeper.clean_chosen, keeper.judge]
    judge_turns(trees, todo, annotator, out, key=whole_key, title=title, then=keep, note=lambda: kept_note(counts))
