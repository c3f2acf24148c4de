"""Drafts: what a policy says where the human supporter spoke, beside it in the tree."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from esckit.conversation import Conversation, Turn, conversation_to_json, mined_id, read_conversations
from esckit.decoding import Decoding, seed_of
from esckit.files import resume_jsonl
from esckit.mining.self_refinement.contexts import Contexts
from esckit.progress import progress
from esckit.rendering import Part
from esckit.supporters.proposing import Answers, TurnRequest, expect_one

__all__ = ["Policy", "draft_replies", "drafts_of"]


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


def draft_replies(
    chosen: Sequence[Contexts], policy: Policy, wording: Decoding, folder: Path, *, seed: int, key: Any, title: str
) -> list[Conversation]:
    """The dialogues with a draft beside each chosen reply.

    They stand in a file of the folder, whose name changes with all that the drafts depend on: a stopped call is
    continued by the same call, and what is complete is read.

    Args:
        chosen: the dialogues and their replies.
        policy: who drafts; it is opened only where drafts are missing.
        wording: how a draft is drawn, its strategy as well.
        folder: where the file stands.
        seed: a draft depends on it and on the ids of conversation and turn, on nothing else.
        key: JSON-ready; names what the policy is made of.
        title: for the progress bar.

    Raises:
        EsckitError: the file cannot be written.
    """
    texts = [[conversation_to_json(each.tree), [turn.id for turn in each.turns]] for each in chosen]
    depends_on = json.dumps([key, policy.source, policy.part, asdict(wording), seed, texts], sort_keys=True)
    path = folder / f"drafts-{hashlib.sha256(depends_on.encode()).hexdigest()[:12]}.jsonl"
    if not path.exists():
        with resume_jsonl(path, depends_on, [1] * len(chosen)) as rows:
            supporter = policy.open() if rows.done < len(chosen) else None
            with progress(title, len(chosen), rows.done) as bar:
                for each in chosen[rows.done :]:
                    assert supporter is not None
                    rows.append([conversation_to_json(_drafted(each, policy, supporter, wording, seed))])
                    bar.advance()
    return read_conversations(path)


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
