"""From a draft and what came of refining it to a preference in the tree, or to the filter that kept it out."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from esckit.conversation import SELF_REFINEMENT_REASONS, Aspect, Conversation, Preference, Turn, mined_id
from esckit.measures.patterns import patterns_of
from esckit.mining.self_refinement.asking import Refined
from esckit.mining.self_refinement.filters import pair_fault, too_long
from esckit.mining.self_refinement.options import RefinementOptions
from esckit.mining.tree_search.said import ends_a_sentence
from esckit.rendering import Part

__all__ = ["REPLACEABLE", "Candidate", "Draft", "candidate_of", "preference_of", "refined_turn"]

REPLACEABLE: Final = ("unparsed", "refused", "failed", "longer than the draft", "longer than the human reply")
"""Refinements whose place the human reply takes in the paper (appendix A)."""


class Draft(NamedTuple):
    """A reply of a dialogue that was drafted anew.

    Attributes:
        tree: with the drafts.
        human: what the dialogue's supporter said there.
        draft: what the policy said, which is refined.
        rejected: the draft itself, or the first policy's.
    """

    tree: Conversation
    human: Turn
    draft: Turn
    rejected: Turn


class Candidate(NamedTuple):
    """What a draft has come to.

    Attributes:
        chosen: the turn that is preferred, if nothing keeps it from it.
        fault: the filter that does (`filters.FILTERS`); None where the two are a pair.
        replaced: why a human reply takes the refined one's place, where one does.
    """

    chosen: Turn | None
    fault: str | None = None
    replaced: str | None = None


def refined_turn(draft: Draft, refined: Refined, refiner: str) -> Turn | None:
    """The refined reply as a sibling of the draft, with what was seen in the person; None where there is none."""
    if refined.state != "done":
        return None
    source = f"refined:{refiner}"
    key = mined_id(draft.human.parent, source, refined.strategy, refined.text)
    seen: dict[str, Any] = {"draft": draft.draft.id, **refined.seen}
    return Turn(
        key, draft.human.parent, "supporter", refined.text, refined.strategy, source, extra={"refinement": seen}
    )


def candidate_of(draft: Draft, refined: Refined | None, turn: Turn | None, options: RefinementOptions) -> Candidate:
    """What a draft has come to; without a refinement, people's replies are chosen.

    Args:
        draft: the draft.
        refined: what came of refining it; None where nobody was asked.
        turn: the refined reply, if there is one.
        options: which filters.
    """
    fault = replaced = None
    chosen = turn or draft.human
    if refined is not None:
        texts = ((turn.text or "") if turn else "", draft.draft.text or "", draft.human.text or "")
        fault = refined.state if turn is None else too_long(*texts, options.longest)
        if fault in REPLACEABLE and options.instead == "human":
            chosen, fault, replaced = draft.human, None, fault
    if fault is not None:
        return Candidate(turn, fault)
    if chosen is draft.human and chosen.strategy is None:
        return Candidate(turn, "no human reply")  # every part reads or says a strategy
    if chosen is turn and options.whole and not ends_a_sentence(chosen.text or ""):
        return Candidate(turn, "cut")
    fault = pair_fault(chosen.text or "", draft.rejected.text or "", options)
    if fault is None and options.patterns and patterns_of(chosen.text or "", _before(draft)):
        fault = "pattern"
    return Candidate(chosen, fault, replaced if fault is None else None)


def _before(draft: Draft) -> Sequence[str]:
    """The supporter's replies before the draft."""
    path = draft.tree.path(draft.human.parent)
    return [turn.text or "" for turn in path if turn.speaker == "supporter"]


def preference_of(chosen: Turn, draft: Draft, judge: str, part: Part) -> Preference:
    """The preference; a generator's sides have one strategy."""
    rejected = draft.rejected
    aspect: Aspect = "response" if part == "generator" or chosen.strategy == rejected.strategy else "turn"
    reason = "human" if chosen is draft.human else "refined"
    return Preference(chosen.id, rejected.id, aspect, reason, judge, reasons=SELF_REFINEMENT_REASONS)
