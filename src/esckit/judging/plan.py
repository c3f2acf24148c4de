"""A judging without its files: what is asked in all, the answers, and everything made of them.

Everything is asked in one go under one step, so that a model takes as much at once as it can; a quality that fails
takes no other with it, because each is an item of its own.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from esckit.chat_models.asker import Asker
from esckit.chat_models.protocol import ChatRequest
from esckit.conversation import Conversation
from esckit.judging.duelling import Pairing, contest_of, duel_requests, pairings
from esckit.judging.judging_options import Reference
from esckit.judging.known_groups import known_replies
from esckit.judging.rubric import Rubric
from esckit.judging.same_judge import also_mined
from esckit.judging.sampling import SampledTurns
from esckit.judging.scoring import SHIPPED, Scoring, judgement_of, score_request
from esckit.measures.judgements import STATES, Judgement, group_orders, score_tests, scores_by_system
from esckit.measures.judging_results import JudgedRubric, Judging, KnownGroups
from esckit.measures.pairwise import Contest, pairwise_tests, strengths
from esckit.prompts.own import Prompts

__all__ = ["FORMAT", "STEP", "Judged", "Plan", "figures", "make_plan"]

FORMAT: Final = 1
STEP: Final = "judge/1"
"""Name and version of what asks, in ledgers; a rubric's text is part of each item's key by itself."""

_SHOWN: Final[dict[Reference, tuple[bool, ...]]] = {"both": (False, True), "shown": (True,), "hidden": (False,)}


@dataclass(frozen=True)
class Judged:
    """The answers.

    Attributes:
        judgements: of the systems' replies.
        groups: of known replies; ``system`` is the group.
        contests: pairs of systems' replies.
    """

    judgements: list[Judgement]
    groups: list[Judgement]
    contests: list[Contest]


@dataclass(frozen=True)
class Plan:
    """What is asked.

    Attributes:
        scorings: of the systems' replies, a call each.
        groups: of known replies, likewise.
        duels: two calls each.
        rubrics: what about.
        max_new_tokens: of an answer.
        prompts: in whose words.
    """

    scorings: list[Scoring]
    groups: list[Scoring]
    duels: list[Pairing]
    rubrics: list[Rubric]
    max_new_tokens: int = 512
    prompts: Prompts = SHIPPED

    def requests(self) -> list[ChatRequest]:
        """All of them: scores, known groups, duels."""
        most, prompts = self.max_new_tokens, self.prompts
        scores = [score_request(scoring, most, prompts) for scoring in (*self.scorings, *self.groups)]
        duels = [duel_requests(pairing, self.rubrics, most, prompts) for pairing in self.duels]
        return scores + [request for both in duels for request in both]

    def ask(self, asker: Asker) -> Judged:
        """Ask for everything that the asker's ledger does not hold yet.

        Raises:
            BudgetSpent, ChatError, LedgerError: see `Asker.answers`; the answers so far are in the ledger.
        """
        outcomes = iter(asker.ask(self.requests()))
        judgements = [judgement_of(scoring, next(outcomes)) for scoring in self.scorings]
        groups = [judgement_of(scoring, next(outcomes)) for scoring in self.groups]
        contests = [contest_of(duel, [] if duel.equal else [next(outcomes), next(outcomes)]) for duel in self.duels]
        return Judged(judgements, groups, contests)


def make_plan(
    sampled: SampledTurns,
    rubrics: Sequence[Rubric],
    *,
    reference: Reference = "both",
    duels: bool = False,
    known_groups: bool = False,
    failed: Sequence[Conversation] | None = None,
    seed: int = 0,
    max_new_tokens: int = 512,
    prompts: Prompts = SHIPPED,
) -> Plan:
    """Lay out a judging: turn by turn, so that what shares a talk is asked together and prompt caches hold.

    Args:
        sampled: the turns and the systems' replies.
        rubrics: a call each.
        reference: whether the judge sees the human reply: both ways by default, which doubles the calls.
        duels: compare every pair of systems, too.
        known_groups: score known groups at the same turns, too; never with the reference, which is one of them.
        failed: dialogues for the group of failed replies.
        seed: of the known groups.
        max_new_tokens: of an answer.
        prompts: in whose words the judge is asked.

    Raises:
        EsckitError: the known groups cannot be made.
    """
    scorings = [
        Scoring(system, turn, replies[turn.key], rubric, shown)
        for turn in sampled.turns
        for system, replies in sampled.replies.items()
        for shown in _SHOWN[reference]
        for rubric in rubrics
    ]
    known = known_replies(sampled.turns, failed, seed) if known_groups else []
    groups = [Scoring(each.group, each.turn, each.text, rubric, False) for each in known for rubric in rubrics]
    pairs = pairings(sampled.turns, sampled.replies) if duels else []
    return Plan(scorings, groups, pairs, list(rubrics), max_new_tokens, prompts)


def figures(
    judged: Judged,
    plan: Plan,
    sampled: SampledTurns,
    *,
    judge: str,
    identity: Any,
    miners: Sequence[str] = (),
    seed: int = 0,
    permutations: int = 10_000,
    resamples: int = 1000,
) -> Judging:
    """Return all figures of a judging (docs/judging.md).

    Args:
        judged: the answers.
        plan: to what.
        sampled: of which turns.
        judge: name of the model that judged.
        identity: of it.
        miners: judges of the preferences that the systems were trained on (`same_judge.mining_judges`).
        seed: of bootstrap and permutations.
        permutations: of each test.
        resamples: of each interval.
    """
    scales = {rubric.name: (rubric.lowest, rubric.highest) for rubric in plan.rubrics}
    orders = {rubric.name: rubric.known_groups for rubric in plan.rubrics}
    drawn = {"resamples": resamples, "seed": seed}
    same = also_mined(judge, identity, miners)
    found = Judging(
        format=FORMAT,
        judge=judge,
        identity=identity,
        prompts=plan.prompts.label,
        also_mined=same,
        turns=len(sampled.turns),
        dialogues=len({turn.conversation_id for turn in sampled.turns}),
        systems=list(sampled.replies),
        rubrics=[
            JudgedRubric(name=rubric.name, version=rubric.version, lowest=rubric.lowest, highest=rubric.highest)
            for rubric in plan.rubrics
        ],
        **drawn,
        scores=scores_by_system(judged.judgements, scales, **drawn),
        differences=score_tests(judged.judgements, permutations=permutations, **drawn),
        pairs=pairwise_tests(judged.contests, permutations=permutations, **drawn),
        strengths=strengths(judged.contests, **drawn),
        known_groups=_known_groups(judged, scales, orders, drawn),
        warnings=[],
    )
    return replace(found, warnings=_warnings(found, judged, sampled))


def _known_groups(
    judged: Judged, scales: dict[str, tuple[int, int]], orders: dict[str, Any], drawn: dict[str, int]
) -> KnownGroups | None:
    if not judged.groups:
        return None
    rows = group_orders(judged.groups, orders, **drawn)
    return KnownGroups(
        scores=scores_by_system(judged.groups, scales, **drawn),
        orders=rows,
        in_order=bool(rows) and all(row.found == "in order" for row in rows),
    )


def _warnings(found: Judging, judged: Judged, sampled: SampledTurns) -> list[str]:
    warnings = []
    if found.also_mined:
        warnings.append(
            f"{found.judge} also judged the preferences that were trained on ({', '.join(found.also_mined)}): "
            "its scores favour what it taught, so judge with another model."
        )
    if found.known_groups is None:
        warnings.append("Known groups were not judged: nothing shows that this judge tells good replies from bad ones.")
    elif not found.known_groups.in_order:
        results = Counter(row.found for row in found.known_groups.orders)
        counts = ", ".join(f"{number} {result}" for result, number in results.items()) or "none was to be expected"
        warnings.append(
            f"The known groups did not come out in order ({counts}): do not believe this judge about the systems, or "
            "judge more turns where groups are not told apart."
        )
    states = [each.state for each in (*judged.judgements, *judged.groups)]
    states += [state for contest in judged.contests if contest.asked for state in contest.states]
    if lost := {state: states.count(state) for state in STATES[1:] if state in states}:
        told = ", ".join(f"{number} {state}" for state, number in lost.items())
        warnings.append(f"Of {len(states)} verdicts {told}: they have no score and are in no mean.")
    if sampled.left_out:
        warnings.append(
            f"{sampled.left_out} turns are not in every predictions file and could not be drawn; "
            f"{sampled.shared} could."
        )
    for system, replies in sampled.replies.items():
        if blank := sum(not text.strip() for text in replies.values()):
            warnings.append(f"{system} has no text at {blank} of the turns; they were judged as empty replies.")
    if found.dialogues < 10:
        warnings.append(f"The turns are of {found.dialogues} dialogues: intervals over so few are too narrow.")
    return warnings
