"""A round of self-refinement over many dialogues, into a folder: drafts, refinements, filters, preferences."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from esckit.chat_models.asker import Asker
from esckit.chat_models.ledger import Ledger
from esckit.chat_models.protocol import ChatModel
from esckit.conversation import Conversation, Preference, Turn, write_conversations
from esckit.decoding import seed_of
from esckit.files import write_json
from esckit.judging.better_reply import Sides, acceptor_name, advantages
from esckit.measures.intervals import Draws
from esckit.mining.pairs import Pair
from esckit.mining.self_refinement.asking import STEP, Refined, read_refined, refine_request
from esckit.mining.self_refinement.contexts import Contexts, choose_contexts, within_budget
from esckit.mining.self_refinement.drafting import Policy, draft_replies, drafts_of
from esckit.mining.self_refinement.filters import FILTERS, count_words
from esckit.mining.self_refinement.options import EMBEDDED, RefinementOptions
from esckit.mining.self_refinement.pairing import (
    REPLACEABLE,
    Candidate,
    Draft,
    candidate_of,
    preference_of,
    refined_turn,
)
from esckit.strategy import TAXONOMIES

__all__ = ["REFINEMENT", "Models", "refine_dialogues"]

REFINEMENT: Final = "refinement.json"
"""In the folder of a refine stage: what was found, filtered and paid."""

TREES: Final = "trees.jsonl"


@dataclass(frozen=True)
class Models:
    """Who takes part besides the policy.

    Attributes:
        first: the model after SFT, whose drafts are rejected; None where the policy's own are.
        refiner: opens the chat model that refines; None where people's replies are chosen.
        refiner_name: for records.
        acceptor: opens the chat model that has to accept; None where an annotator does, or nobody.
    """

    first: Policy | None = None
    refiner: Callable[[], ChatModel] | None = None
    refiner_name: str = "people"
    acceptor: Callable[[], ChatModel] | None = None


def refine_dialogues(
    conversations: Sequence[Conversation],
    options: RefinementOptions,
    out: Path,
    policy: Policy,
    models: Models,
    *,
    ledger: Path,
    seed: int,
    key: Any,
    title: str = "refine",
    number: int = 1,
) -> dict[str, Any]:
    """Make the pairs of a round, and write ``trees.jsonl`` and `REFINEMENT` into a folder.

    A call that was stopped or killed is continued by the same call: drafts are on the disk, answers in the ledger.

    Args:
        conversations: of one taxonomy; all of them are drafted.
        options: how.
        out: the folder.
        policy: who drafts.
        models: who else takes part.
        ledger: file of the answers.
        seed: of every draw.
        key: JSON-ready; all that drafts depend on besides the dialogues.
        title: for the progress bars.
        number: of the round, for the record.

    Returns:
        What stands in `REFINEMENT`.

    Raises:
        CorpusError: see `choose_contexts`.
        BudgetSpent, ChatError, LedgerError: a model cannot go on; what was answered is kept.
    """
    out.mkdir(parents=True, exist_ok=True)
    chosen = within_budget([choose_contexts(each, options, policy.part) for each in conversations], options)
    made = _Round(chosen, options, policy, models, out, seed, key, title)
    made.draft()
    with Ledger(ledger) as opened:
        opened.forget_failed()
        made.refine(opened)
        made.accept(opened)
        usage = opened.used(made.keys)
    trees = made.grown()
    write_conversations(out / TREES, trees)
    record = {
        "refined_by": options.refined_by,
        "refiner": models.refiner_name,
        "mode": options.mode,
        "round": number,
        "drafted_by": policy.source,
        "rejected_from": "first" if models.first else "current",
        **made.figures(),
        "tokens": {"prompt": usage.prompt, "completion": usage.completion},
        "relevance": _relevance(made.pairs, options.encoder, seed),
    }
    write_json(out / REFINEMENT, record)
    return record


@dataclass
class _Round:
    """A round, step by step: what each step finds stands here for the next one."""

    chosen: list[Contexts]
    options: RefinementOptions
    policy: Policy
    models: Models
    out: Path
    seed: int
    key: Any
    title: str
    counts: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    keys: list[str] = field(default_factory=list)  # of all questions in the ledger
    trees: list[Conversation] = field(default_factory=list)  # with the policy's drafts
    drafts: list[Draft] = field(default_factory=list)
    refined: list[Refined | None] = field(default_factory=list)
    turns: list[Turn | None] = field(default_factory=list)  # the refined replies
    candidates: list[Candidate] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)

    def draft(self) -> None:
        """Every draft, with the one that is rejected."""
        first, wanted = self.models.first, sum(len(each.turns) for each in self.chosen)
        self.trees = self._drafted(self.policy, f"{self.title} drafts")
        own = [drafts_of(tree, self.policy.source) for tree in self.trees]
        rejected = own
        if first is not None:
            before = self._drafted(first, f"{self.title} first drafts")
            rejected = [drafts_of(tree, first.source) for tree in before]
        self.calls["draft"] = wanted * (1 + (first is not None))
        for each, tree, drafted, other in zip(self.chosen, self.trees, own, rejected, strict=True):
            self.counts.update(each.counts)
            grown = tree.grow(other.values())
            both = [human for human in each.turns if human.id in drafted and human.id in other]
            self.drafts += [Draft(grown, human, drafted[human.id], other[human.id]) for human in both]
            unlabelled = tree.provenance["drafted"][self.policy.source].get("no strategy", 0)
            self.counts["no strategy"] += unlabelled
            self.counts["empty draft"] += len(each.turns) - len(both) - unlabelled

    def _drafted(self, policy: Policy, title: str) -> list[Conversation]:
        how: dict[str, Any] = {"seed": self.seed, "key": self.key, "title": title}
        return draft_replies(self.chosen, policy, self.options.wording, self.out, **how)

    def refine(self, ledger: Ledger) -> None:
        """Ask about each draft; where people's replies are chosen, nobody is asked."""
        self.refined = list(self._asked(ledger)) if self.models.refiner and self.drafts else [None] * len(self.drafts)
        name = self.models.refiner_name
        for draft, each in zip(self.drafts, self.refined, strict=True):
            turn = refined_turn(draft, each, name) if each is not None else None
            self.turns.append(turn)
            self.candidates.append(candidate_of(draft, each, turn, self.options))

    def _asked(self, ledger: Ledger) -> Iterator[Refined]:
        assert self.models.refiner is not None
        model, options, part = self.models.refiner(), self.options.refiner, self.policy.part
        taxonomy, prompts = TAXONOMIES[str(self.drafts[0].tree.taxonomy)], options.read_prompts()
        requests = [
            refine_request(
                each.tree,
                each.draft,
                part,
                taxonomy,
                options.decoding,
                prompts,
                seed_of(self.seed, each.tree.id, each.human.id, "refine"),
            )
            for each in self.drafts
        ]
        self.calls["refine"] = len(requests)
        self.keys += [request.key(STEP, model.identity) for request in requests]
        for outcome, each in zip(Asker(model, ledger, STEP, options.pace).ask(requests), self.drafts, strict=True):
            yield read_refined(outcome, each.draft, part, taxonomy)

    def accept(self, ledger: Ledger) -> None:
        """Let a second judge look at the pairs; those that it does not accept have that as their fault."""
        places = [place for place, each in enumerate(self.candidates) if each.fault is None]
        if self.options.accept is None or not places:
            return
        model = self.models.acceptor() if self.models.acceptor else None
        sides = [_sides(self.drafts[place], _chosen(self.candidates[place])) for place in places]
        better, keys = advantages(sides, self.options.accept, model, ledger)
        self.calls["accept"] = len(keys)
        self.keys += keys
        for place, by in zip(places, better, strict=True):
            if by <= 0:
                self.candidates[place] = Candidate(self.candidates[place].chosen, "not accepted")

    def grown(self) -> list[Conversation]:
        """The dialogues with drafts, refined replies and preferences; ``faults`` are filters by the draft's id."""
        options, source = self.options, self.policy.source
        judge = acceptor_name(options.accept) if options.accept else f"rule:{options.refined_by}"
        turns: defaultdict[str, list[Turn]] = defaultdict(list)
        preferences: defaultdict[str, list[Preference]] = defaultdict(list)
        faults: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for draft, turn, candidate in zip(self.drafts, self.turns, self.candidates, strict=True):
            turns[draft.tree.id] += [draft.rejected, *([turn] if turn else [])]
            if candidate.fault is not None:
                faults[draft.tree.id][draft.draft.id] = candidate.fault
            else:
                preference = preference_of(_chosen(candidate), draft, judge, self.policy.part)
                preferences[draft.tree.id].append(preference)
        trees = []
        for each, tree in zip(self.chosen, self.trees, strict=True):
            counts = {name: count for name, count in each.counts.items() if count}
            own = {"left_out": counts, "faults": faults[tree.id]}
            known = {**tree.provenance.get("refined", {}), source: own}
            grown = tree.grow(turns[tree.id], preferences[tree.id])
            trees.append(replace(grown, provenance={**grown.provenance, "refined": known}))
            self.pairs += [Pair(grown, preference) for preference in preferences[tree.id]]
        return trees

    def figures(self) -> dict[str, Any]:
        """What the record says in numbers."""
        counts = self.counts + Counter(each.fault for each in self.candidates if each.fault)
        replaced = Counter(each.replaced for each in self.candidates if each.replaced)
        scores = Counter(str(each.seen["score"]) for each in self.refined if each and each.state == "done")
        both = zip(self.candidates, self.drafts, strict=True)
        pairs = [(_chosen(each), draft) for each, draft in both if each.fault is None]
        return {
            "dialogues": len(self.chosen),
            "swapped": counts["swapped"],
            "merged": counts["merged"],
            "contexts": sum(len(each.turns) for each in self.chosen),
            "filters": {name: counts[name] for name in FILTERS},
            "replaced": {name: replaced[name] for name in REPLACEABLE},
            "pairs": len(pairs),
            "from_people": sum(chosen is draft.human for chosen, draft in pairs),
            "scores": {str(score): scores[str(score)] for score in range(1, 6)},
            "calls": {name: self.calls[name] for name in ("draft", "refine", "accept")},
            "words": _lengths([(chosen.text or "", draft.rejected.text or "") for chosen, draft in pairs]),
        }


def _lengths(pairs: Sequence[tuple[str, str]]) -> dict[str, float] | None:
    """Mean words of both sides, and the share of pairs whose chosen side is longer; None without pairs."""
    words = [(count_words(chosen), count_words(rejected)) for chosen, rejected in pairs]
    if not words:
        return None
    chosen, rejected = (round(fmean(side), 2) for side in zip(*words, strict=True))
    longer = round(fmean(one > other for one, other in words), 4)
    return {"chosen": chosen, "rejected": rejected, "longer_chosen": longer}


def _relevance(pairs: Sequence[Pair], encoder: str | None, seed: int) -> dict[str, Any] | None:
    """Self-evolution's figure 5; None where nothing measures it, or there is nothing that the encoder reads."""
    english = all(pair.conversation.language == "en" for pair in pairs)
    if encoder is None or not pairs or (encoder == EMBEDDED and not english):
        return None
    from esckit.mining.relevance import pair_relevance
    from esckit.planning.encoder import load_encoder

    return pair_relevance(pairs, load_encoder(encoder).embed, Draws(seed=seed))


def _sides(draft: Draft, chosen: Turn) -> Sides:
    context = tuple(draft.tree.path(chosen.parent))
    return Sides(
        (draft.tree.id, draft.human.id),
        context,
        (chosen.strategy, chosen.text or ""),
        (draft.rejected.strategy, draft.rejected.text or ""),
        draft.tree.language,
    )


def _chosen(candidate: Candidate) -> Turn:
    assert candidate.chosen is not None
    return candidate.chosen
