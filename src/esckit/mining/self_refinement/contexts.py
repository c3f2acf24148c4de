"""Which replies of a dialogue are drafted anew: those that follow the seeker, without greetings and without danger."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final, NamedTuple

from esckit.conversation import Conversation, Turn
from esckit.conversation.records import Speaker
from esckit.conversation.turn_rule import merge_turns
from esckit.mining.self_refinement.options import RefinementOptions
from esckit.rendering import Part
from esckit.safety import stop_after

__all__ = ["Contexts", "choose_contexts", "within_budget"]

_OTHER: Final[dict[Speaker, Speaker]] = {"seeker": "supporter", "supporter": "seeker"}


class Contexts(NamedTuple):
    """The human replies of a dialogue that are drafted anew.

    Attributes:
        tree: the dialogue, with one speaker's runs joined and roles changed where the options say so.
        turns: the human replies, in order.
        counts: replies that were left out, by filter; ``swapped`` is 1 where the roles were changed, ``merged`` is how
            many utterances were joined to the one before.
    """

    tree: Conversation
    turns: list[Turn]
    counts: Counter[str]


def choose_contexts(conversation: Conversation, options: RefinementOptions, part: Part) -> Contexts:
    """Prepare a dialogue, and choose its replies (self-evolution, appendix A).

    Raises:
        CorpusError: utterances are to be joined, and the dialogue has branches or scores.
    """
    counts: Counter[str] = Counter()
    tree = conversation
    if options.first_speaker == "seeker" and tree.trunk and tree.trunk[0].speaker == "supporter":
        tree = _swapped(tree)
        counts["swapped"] += 1
    if options.merge and any(one.speaker == other.speaker for one, other in pairwise(tree.trunk)):
        before, tree = len(tree.turns), merge_turns(tree)
        counts["merged"] += before - len(tree.turns)
    replies = [turn for turn in tree.trunk if turn.speaker == "supporter" and (turn.text or "").strip()]
    last = len(replies) - options.skip_last
    kept = []
    for place, turn in enumerate(replies):
        greets = "first turn" if place < options.skip_first else "last turns" if place >= last else None
        if fault := greets or _fault(tree, turn, part):
            counts[fault] += 1
        else:
            kept.append(turn)
    return Contexts(tree, kept, counts)


def _fault(tree: Conversation, turn: Turn, part: Part) -> str | None:
    """Why a reply is not drafted anew; None where it is."""
    path = tree.path(turn.parent)
    if not path or path[-1].speaker != "seeker":
        return "not after the seeker"
    if stop_after([each.text or "" for each in path if each.speaker == "seeker"]):
        return "danger"  # there a fixed text answers, and no model is to learn another way
    return "no strategy" if part == "generator" and turn.strategy is None else None


def _swapped(tree: Conversation) -> Conversation:
    """The dialogue with the speakers' roles changed; strategies, which seekers have none of, go to ``extra``."""
    turns = [
        replace(
            turn,
            speaker=_OTHER[turn.speaker],
            strategy=None,
            extra={**turn.extra, **({"strategy": turn.strategy} if turn.strategy else {})},
        )
        for turn in tree.turns
    ]
    return replace(tree, turns=turns)


def within_budget(chosen: Sequence[Contexts], options: RefinementOptions) -> list[Contexts]:
    """The first contexts, in the dialogues' order, about which the budget allows every question.

    Dialogues that it does not reach are not among them: a later round may take them.
    """
    if options.budget_calls is None:
        return list(chosen)
    left, kept = options.budget_calls // options.calls_a_context, []
    for each in chosen:
        if left == 0:
            break
        kept.append(each._replace(turns=each.turns[:left]))
        left -= len(kept[-1].turns)
    return kept
