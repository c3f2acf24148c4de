"""Inferential preference mining (DecoupledESC, section 4.1): keep what the model would have said where gold differs.

Beside a gold supporter turn stands what the model says there: a planned turn for the planner (a strategy without
text), a reply under the gold strategy for the generator, a strategy with its reply for the coupled model. The
preference is for gold. No judge looks at it here; the rule that kept it stands in its place. Under the rule ``judged``
nothing is kept yet: what was sampled goes to `mining.judged_pairs`, for which a planner's strategies are worded, too.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from esckit.conversation import (
    Aspect,
    Conversation,
    Preference,
    Turn,
    conversation_to_json,
    mined_id,
    read_conversations,
)
from esckit.decoding import Decoding, seed_of
from esckit.files import resume_jsonl
from esckit.mining.mining_options import MiningOptions
from esckit.mining.pairs import normalise
from esckit.progress import progress
from esckit.rendering import Part, supporter_turns
from esckit.supporters.proposing import GREEDY, Answers, Candidate, TurnRequest

__all__ = ["SAMPLING", "Miner", "draw_dialogues", "fold_of", "kept_note", "mine", "mining_counts"]

SAMPLING: Final = ("turns", "beyond_budget", "sampled", "equal_to_gold", "sampled_twice", "empty", "cut")
"""What sampling counts into ``provenance["mined"]``, besides the ``pairs`` that are kept."""

Shown = Mapping[str, str]
_Found = tuple[Turn, TurnRequest, Candidate]


@dataclass(frozen=True)
class Miner:
    """What mines one part's pairs.

    Attributes:
        part: whose.
        supporter: who is asked; its planner, generator or both are the part. Under the rule ``random`` it is
            `mining.at_random.AtRandom`.
        source: its name, written into the turns it makes.
        options: how.
        worded_by: name of the generator that words a planner's strategies, under the rule ``judged``; the supporter
            has it.
    """

    part: Part
    supporter: Answers
    source: str
    options: MiningOptions
    worded_by: str | None = None

    def mine(self, conversation: Conversation, shown: Shown, seed: int, most: int | None = None) -> Conversation:
        """Grow one conversation's tree; what was counted stands in its ``provenance["mined"]``, by source.

        Args:
            conversation: its trunk's labelled supporter turns are mined.
            shown: strategies to show in the history, by turn id.
            seed: draws depend on it and on the ids of conversation and turn, on nothing else.
            most: mine so many turns, the first ones; None is all.
        """
        every = supporter_turns(conversation)
        turns = every[:most]
        counts = Counter({"turns": len(turns), "beyond_budget": len(every) - len(turns)})
        grown: dict[str, Turn] = {}
        preferences: list[Preference] = []
        for gold, found in self._sample(conversation, turns, shown, seed, counts):
            counts["sampled"] += 1
            if found.id in grown:
                counts["sampled_twice"] += 1
            elif self._equal(gold, found):
                counts["equal_to_gold"] += 1
            else:
                grown[found.id] = found
                if self.options.rule != "judged":
                    preferences.append(self._preference(gold, found))
        counts["pairs"] = len(preferences)
        mined = {**conversation.provenance.get("mined", {}), self.source: {k: n for k, n in counts.items() if n}}
        tree = conversation.grow(grown.values(), preferences)
        return replace(tree, provenance={**conversation.provenance, "mined": mined})

    def _sample(
        self, conversation: Conversation, turns: Sequence[Turn], shown: Shown, seed: int, counts: Counter[str]
    ) -> Iterable[tuple[Turn, Turn]]:
        """Gold turns, each with what was sampled beside it."""
        requests = [self._request(conversation, turn, shown, seed) for turn in turns]
        found = [
            (gold, request, candidate)
            for gold, request, proposed in zip(turns, requests, self.supporter.propose(requests), strict=True)
            for candidate in proposed
        ]
        if self.worded_by:
            found = self._worded(list(_worth_wording(found, counts)))
        for gold, _, candidate in found:
            counts["cut"] += candidate.finish == "length"
            if candidate.text is None or candidate.text.strip():
                yield gold, self._turn(gold, candidate)
            else:
                counts["empty"] += 1

    def _request(self, conversation: Conversation, gold: Turn, shown: Shown, seed: int) -> TurnRequest:
        options = self.options
        wording = options.decoding
        planning = GREEDY if options.top_k else Decoding(temperature=options.temperature, top_p=options.top_p)
        return TurnRequest(
            conversation,
            gold.parent,
            seed_of(seed, conversation.id, gold.id, self.part, "mining"),
            shown,
            n=options.top_k or options.samples,
            strategy=gold.strategy if self.part == "generator" else None,
            excluded=frozenset({str(gold.strategy)} if options.rule == "random" else ()),
            planning=planning,
            wording=None if self.part == "planner" else wording,
        )

    def _worded(self, found: Sequence[_Found]) -> list[_Found]:
        """What a planner chose, with the replies that follow its strategies."""
        asked = [replace(request, n=1, strategy=c.strategy, wording=self.options.decoding) for _, request, c in found]
        return [
            (gold, request, replace(planned, text=reply.text, finish=reply.finish))
            for (gold, request, planned), replies in zip(found, self.supporter.propose(asked), strict=True)
            for reply in replies
        ]

    def _turn(self, gold: Turn, candidate: Candidate) -> Turn:
        probabilities = candidate.strategy_probabilities or {}
        strategy, text = str(candidate.strategy), candidate.text
        scores = {"probability": round(probabilities[strategy], 6)} if strategy in probabilities else {}
        key = mined_id(gold.parent, self.source, strategy, text)
        extra = {"worded_by": self.worded_by} if self.worded_by else {}
        return Turn(key, gold.parent, "supporter", text, strategy, self.source, scores, extra=extra)

    def _equal(self, gold: Turn, found: Turn) -> bool:
        same_text = found.text is None or normalise(found.text) == normalise(gold.text or "")
        return found.strategy == gold.strategy and same_text

    def _preference(self, gold: Turn, found: Turn) -> Preference:
        aspect: Aspect = "strategy" if self.part == "planner" else "response"
        if self.part == "coupled" and found.strategy != gold.strategy:
            aspect = "turn"
        return Preference(gold.id, found.id, aspect, judge=f"rule:{self.options.rule}")


def _worth_wording(found: Sequence[_Found], counts: Counter[str]) -> Iterable[_Found]:
    """Each strategy once at a turn, and not gold's; the others are counted as `Miner.mine` counts them."""
    seen = set()
    for gold, request, candidate in found:
        key = (gold.id, candidate.strategy)
        name = "equal_to_gold" if candidate.strategy == gold.strategy else "sampled_twice" if key in seen else None
        if name is None:
            yield gold, request, candidate
        else:
            counts["sampled"] += 1
            counts[name] += 1
        seen.add(key)


def draw_dialogues(conversations: Sequence[Conversation], number: int | None, seed: int) -> list[Conversation]:
    """So many conversations by a hash of seed and id, in their order; all for None, or where there are no more."""
    if number is None:
        return list(conversations)

    def place(conversation: Conversation) -> bytes:
        return hashlib.sha256(f"{seed}\x1f{conversation.id}".encode("utf-8", "replace")).digest()

    drawn = {conversation.id for conversation in sorted(conversations, key=place)[:number]}
    return [conversation for conversation in conversations if conversation.id in drawn]


def fold_of(index: int, total: int, folds: int) -> int:
    """Which of ``folds`` contiguous, even parts the dialogue at ``index`` of ``total`` is in."""
    return index * folds // total


def mine(
    miner_of: Callable[[int], Miner],
    conversations: Sequence[Conversation],
    out: Path,
    *,
    source: str,
    folds: int = 1,
    contexts: int | None = None,
    shown: Callable[[Conversation], Shown],
    seed: int,
    key: Any,
    title: str = "mine",
) -> Counter[str]:
    """Mine a corpus into a file of grown trees, which appears when it is complete; return what was counted.

    A stopped call is continued by the same call.

    Args:
        miner_of: the miner of a fold (`fold_of`); folds come in order.
        conversations: what is mined.
        out: the file of trees, in the same order.
        source: of all these miners; what it counted is returned.
        folds: how many parts.
        contexts: mine so many turns in all, in order; None is all.
        shown: strategies that a conversation's history shows.
        seed: of the draws.
        key: JSON-ready; names models and options: another key continues nothing.
        title: for the progress bar.

    Raises:
        EsckitError: the file cannot be written.
    """
    total = len(conversations)
    whole_key = [key, folds, seed, [conversation_to_json(conversation) for conversation in conversations]]
    counts: Counter[str] = Counter()
    most = _first_turns(conversations, contexts)
    with resume_jsonl(out, whole_key, [1] * total) as rows, progress(title, total, rows.done) as bar:
        for index in range(rows.done, total):
            miner, conversation = miner_of(fold_of(index, total, folds)), conversations[index]
            grown = miner.mine(conversation, shown(conversation), seed, most[index])
            rows.append([conversation_to_json(grown)])
            counts.update(grown.provenance["mined"][source])
            bar.advance(kept_note(counts))
    return mining_counts(read_conversations(out), source)


def _first_turns(conversations: Sequence[Conversation], contexts: int | None) -> list[int | None]:
    """How many turns of each are mined, where so many may be in all; None is all of them."""
    if contexts is None:
        return [None] * len(conversations)
    left, most = contexts, list[int | None]()
    for conversation in conversations:
        most.append(min(left, len(supporter_turns(conversation))))
        left -= most[-1] or 0
    return most


def kept_note(counts: Mapping[str, int]) -> str:
    """The share kept so far, for a progress bar; nothing before a pair is kept."""
    pairs, sampled = counts.get("pairs", 0), counts.get("sampled", 0)
    return f"kept {pairs} of {sampled} ({pairs / sampled:.0%})" if pairs else f"sampled {sampled}"


def mining_counts(conversations: Iterable[Conversation], source: str) -> Counter[str]:
    """What the miners of this source counted in these trees, all of them together."""
    counts: Counter[str] = Counter()
    for conversation in conversations:
        counts.update(conversation.provenance["mined"][source])
    return counts
