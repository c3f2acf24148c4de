"""Drafts: what a policy says where the human supporter spoke, beside it in the tree."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from esckit.conversation import Conversation, Turn, conversation_to_json, mined_id
from esckit.decoding import Decoding, seed_of
from esckit.files import resume_jsonl
from esckit.mining.self_refinement.contexts import Contexts
from esckit.progress import progress
from esckit.rendering import Part
from esckit.supporters.proposing import Answers, TurnRequest, expect_one

__all__ = ["Policy", "drafts_of", "write_drafts"]


@dataclass(frozen=True)
class Policy:
    """Who drafts.

    Attributes:
        source: its name, written into the turns that it makes.
        part: that it is: ``coupled``, which chooses strategies, or ``generator``, which drafts under the human one's.
        open: loads it; it is asked only then.
        shown: the strategies that a conversation's history shows.
    """

    source: str
    part: Part
    open: Callable[[], Answers]
    shown: Callable[[Conversation], Mapping[str, str]]


def write_drafts(
    chosen: Sequence[Contexts], policy: Policy, wording: Decoding, out: Path, *, seed: int, key: Any, title: str
) -> None:
    """Write the dialogues with a draft beside each chosen reply; the file appears when it is complete.

    A stopped call is continued by the same call.

    Args:
        chosen: the dialogues and their replies.
        policy: who drafts.
        wording: how a draft is drawn, its strategy as well.
        out: the JSON Lines file of trees.
        seed: a draft depends on it and on the ids of conversation and turn, on nothing else.
        key: JSON-ready; names policy and options: another key continues nothing.
        title: for the progress bar.

    Raises:
        EsckitError: the file cannot be written.
    """
    texts = [[conversation_to_json(each.tree), [turn.id for turn in each.turns]] for each in chosen]
    with resume_jsonl(out, [key, seed, texts], [1] * len(chosen)) as rows:
        supporter = policy.open() if rows.done < len(chosen) else None
        with progress(title, len(chosen), rows.done) as bar:
            for each in chosen[rows.done :]:
                assert supporter is not None
                rows.append([conversation_to_json(_drafted(each, policy, supporter, wording, seed))])
                bar.advance()


def _drafted(each: Contexts, policy: Policy, supporter: Answers, wording: Decoding, seed: int) -> Conversation:
    shown = policy.shown(each.tree)
    requests = [
        TurnRequest(
            each.tree,
            turn.parent,
            seed_of(seed, each.tree.id, turn.id, policy.part, "draft"),
            shown,
            strategy=turn.strategy if policy.part == "generator" else None,
            planning=replace(wording, max_new_tokens=Decoding.max_new_tokens),
            wording=wording,
        )
        for turn in each.turns
    ]
    counts: Counter[str] = Counter(contexts=len(requests))
    grown = []
    for turn, request, proposed in zip(each.turns, requests, supporter.propose(requests), strict=True):
        said = expect_one(proposed, request)
        if not (said.text or "").strip():
            counts["empty draft"] += 1
        elif said.strategy is None:
            counts["no strategy"] += 1
        else:
            grown.append(_turn(turn, said.strategy, said.text, said.finish, policy.source))
    known = {**each.tree.provenance.get("drafted", {}), policy.source: dict(counts)}
    tree = each.tree.grow(grown)
    return replace(tree, provenance={**tree.provenance, "drafted": known})


def _turn(human: Turn, strategy: str | None, text: str | None, finish: str | None, source: str) -> Turn:
    extra: dict[str, Any] = {"draft_of": human.id, **({"finish": finish} if finish else {})}
    return Turn(
        mined_id(human.parent, source, strategy, text), human.parent, "supporter", text, strategy, source, extra=extra
    )


def drafts_of(tree: Conversation, source: str) -> dict[str, Turn]:
    """A policy's drafts in a tree, by the id of the human reply."""
    drafts = (turn for turn in tree.turns if turn.source == source and "draft_of" in turn.extra)
    return {str(turn.extra["draft_of"]): turn for turn in drafts}
