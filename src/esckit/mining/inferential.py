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
from typing import Any

import numpy as np

from esckit.conversation import (
    Aspect,
    Conversation,
    Preference,
    Turn,
    conversation_to_json,
    mined_id,
    read_conversations,
)
from esckit.decoding import Decoding, choose_strategy
from esckit.files import resume_jsonl
from esckit.language_models.backbone import Reply, seed_everything
from esckit.language_models.label_scores import score_strategies
from esckit.mining.mining_options import MiningOptions
from esckit.mining.pairs import normalise
from esckit.progress import progress
from esckit.rendering import Part, Renderer, supporter_turns
from esckit.supporters.generator import write_replies

__all__ = [
    "Miner",
    "ReplyPool",
    "draw_dialogues",
    "fold_of",
    "kept_note",
    "mine",
    "mining_counts",
    "reply_pool",
]

Shown = Mapping[str, str]
ReplyPool = Mapping[str, Sequence[tuple[str, str]]]
"""Strategy to (conversation id, text) of gold replies, for the rule ``random``."""


def reply_pool(conversations: Iterable[Conversation]) -> ReplyPool:
    """The gold replies of the labelled supporter turns, by strategy."""
    pool: dict[str, list[tuple[str, str]]] = {}
    for conversation in conversations:
        for turn in supporter_turns(conversation):
            pool.setdefault(str(turn.strategy), []).append((conversation.id, turn.text or ""))
    return pool


@dataclass(frozen=True)
class Miner:
    """What mines one part's pairs.

    Attributes:
        part: whose.
        model: a causal language model with the part's adapter active; not asked under the rule ``random``. To word a
            planner's strategies it has an adapter ``generator``, too.
        renderer: of the model's tokenizer.
        source: the model's name, written into the turns it makes.
        options: how.
        pool: gold replies, for the rule ``random``.
        worded_by: name of the generator that words a planner's strategies, under the rule ``judged``.
    """

    part: Part
    model: Any
    renderer: Renderer
    source: str
    options: MiningOptions
    pool: ReplyPool
    worded_by: str | None = None

    def mine(self, conversation: Conversation, shown: Shown, seed: int) -> Conversation:
        """Grow one conversation's tree; what was counted stands in its ``provenance["mined"]``, by source.

        Args:
            conversation: its trunk's labelled supporter turns are mined.
            shown: strategies to show in the history, by turn id.
            seed: draws depend on it and on the conversation's id, on nothing else.
        """
        turns = supporter_turns(conversation)
        counts = Counter({"turns": len(turns)})
        grown: dict[str, Turn] = {}
        preferences: list[Preference] = []
        for gold, found in self._sample(conversation, turns, shown, seed, counts):
            counts["sampled"] += 1
            if found.id in grown:
                counts["sampled twice"] += 1
            elif self._equal(gold, found):
                counts["equal to gold"] += 1
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
        if not turns:
            return
        random = np.random.default_rng(seed_everything(seed, conversation.id, self.part, "mining"))
        if self.part == "generator":
            planned = [(turn, str(turn.strategy), 1.0) for turn in turns for _ in range(self.options.samples)]
        else:
            planned = list(self._strategies(conversation, turns, shown, random))
        if self.part == "planner" and not self.worded_by:
            yield from ((gold, self._turn(gold, label, None, p)) for gold, label, p in planned)
            return
        if self.worded_by:
            planned = list(_worth_wording(planned, counts))
        replies = self._replies(conversation, planned, shown, random) if planned else []
        for (gold, label, p), reply in zip(planned, replies, strict=True):
            counts["cut at max_new_tokens"] += reply.finish == "length"
            if reply.text.strip():
                yield gold, self._turn(gold, label, reply.text, p)
            else:
                counts["empty"] += 1

    def _strategies(
        self, conversation: Conversation, turns: Sequence[Turn], shown: Shown, random: np.random.Generator
    ) -> Iterable[tuple[Turn, str, float]]:
        """Strategies for each turn, each with its probability: drawn, the likeliest ones, or any but gold."""
        labels, options = self.renderer.taxonomy.labels, self.options
        if options.rule == "random":
            for turn in turns:
                others = [label for label in labels if label != turn.strategy]
                for label in random.choice(others, min(options.samples, len(others)), replace=False):
                    yield turn, str(label), 1 / len(others)
            return
        decoding = Decoding(temperature=options.temperature, top_p=options.top_p)
        scores = score_strategies(self.model, self.renderer, conversation, turns, shown, self.part)
        for turn, row in zip(turns, scores, strict=True):
            if options.top_k:
                chosen = np.argsort(-row, kind="stable")[: options.top_k].tolist()
            else:
                chosen = [choose_strategy(row, decoding, random) for _ in range(options.samples)]
            yield from ((turn, labels[index], float(np.exp(row[index]))) for index in chosen)

    def _replies(
        self,
        conversation: Conversation,
        planned: Sequence[tuple[Turn, str, float]],
        shown: Shown,
        random: np.random.Generator,
    ) -> list[Reply]:
        """A reply for each planned strategy: the model's, or one of another dialogue's under the same strategy."""
        if self.options.rule == "random":
            others = [
                [text for owner, text in self.pool.get(strategy, ()) if owner != conversation.id]
                for _, strategy, _ in planned
            ]
            return [Reply(texts[random.integers(len(texts))] if texts else "", "stop") for texts in others]
        decoding = Decoding(
            temperature=self.options.temperature, top_p=self.options.top_p, max_new_tokens=self.options.max_new_tokens
        )
        turns, labels = [turn for turn, _, _ in planned], [label for _, label, _ in planned]
        if not self.worded_by:
            return write_replies(self.model, self.renderer, conversation, turns, labels, shown, decoding, self.part)
        self.model.set_adapter("generator")
        replies = write_replies(self.model, self.renderer, conversation, turns, labels, shown, decoding, "generator")
        self.model.set_adapter(self.part)
        return replies

    def _turn(self, gold: Turn, strategy: str, text: str | None, probability: float) -> Turn:
        scores = {} if self.part == "generator" else {"probability": round(probability, 6)}
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


def _worth_wording(
    planned: Sequence[tuple[Turn, str, float]], counts: Counter[str]
) -> Iterable[tuple[Turn, str, float]]:
    """Each strategy once at a turn, and not gold's; the others are counted as `Miner.mine` counts them."""
    seen = set()
    for gold, label, probability in planned:
        name = "equal to gold" if label == gold.strategy else "sampled twice" if (gold.id, label) in seen else None
        if name is None:
            yield gold, label, probability
        else:
            counts["sampled"] += 1
            counts[name] += 1
        seen.add((gold.id, label))


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
    with resume_jsonl(out, whole_key, [1] * total) as rows, progress(title, total, rows.done) as bar:
        for index in range(rows.done, total):
            miner, conversation = miner_of(fold_of(index, total, folds)), conversations[index]
            grown = miner.mine(conversation, shown(conversation), seed)
            rows.append([conversation_to_json(grown)])
            counts.update(grown.provenance["mined"][source])
            bar.advance(kept_note(counts))
    return mining_counts(read_conversations(out), source)


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
