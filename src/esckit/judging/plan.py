"""A judging without its files: what is asked in all, the answers, and everything made of them.

Everything is asked in one go under one step, so that a model takes as much at once as it can; a quality that fails
takes no other with it, because each is an item of its own.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from esckit.chat_models.asker import Asker
from esckit.chat_models.opening import PromptedOptions
from esckit.chat_models.protocol import ChatRequest
from esckit.conversation import Conversation
from esckit.decoding import Decoding
from esckit.errors import EsckitError
from esckit.judging.judge_questions import (
    Pairing,
    Scoring,
    contest_of,
    duel_requests,
    judgement_of,
    pairings,
    score_request,
)
from esckit.judging.known_groups import known_replies
from esckit.judging.rubric import Rubric
from esckit.judging.sampling import JudgedTurn, SampledTurns
from esckit.measures.intervals import DRAWS, Draws
from esckit.measures.judgements import (
    STATES,
    Contest,
    Judgement,
    group_orders,
    pairwise_tests,
    problem_shares,
    score_tests,
    scores_by_system,
    strengths,
)
from esckit.measures.judging_results import JudgedRubric, Judging, KnownGroups
from esckit.prompts.own import Prompts

FORMAT: Final = 1
STEP: Final = "judge/2"
"""Name and version of what asks, in ledgers; a rubric's text is part of each item's key by itself."""

Reference = Literal["both", "shown", "hidden"]
_SHOWN: Final[dict[Reference, tuple[bool, ...]]] = {"both": (False, True), "shown": (True,), "hidden": (False,)}


class JudgingOptions(PromptedOptions):
    """Who judges what (`judging.judge_run`).

    Attributes:
        model: the judge.
        decoding: a model that thinks before it answers needs thousands of tokens.
        turns: how many are judged, the same for all systems.
        rubrics: ``decoupled-esc``, ``empath``, ``self-evolution``, or a folder with a file for each quality.
        bank: of the roles that replies were made in, ``shipped`` or a folder; qualities that need a role's card are
            asked with it, and without it left out.
        language: of the prompts; None asks in each dialogue's where the rubric has it, else in the rubric's own.
        caps: tell the judge the rubrics' limits and deductions, too; their names in results then end in ``+caps``.
        reference: whether the judge sees the human reply; both ways doubles the calls.
        pairs: compare every two systems, too, in both orders.
        known_groups: judge replies whose order is known, too; never with the reference, which is one of them.
        failed: dialogues of failed support, one more known group.
    """

    asks_with: ClassVar[str] = "judge"

    model: str = Field(min_length=1)
    decoding: Decoding = Decoding(greedy=True, max_new_tokens=512)
    turns: int = Field(100, ge=1)
    rubrics: str = "decoupled-esc"
    bank: str | None = None
    language: str | None = None
    caps: bool = False
    reference: Reference = "both"
    pairs: bool = False
    known_groups: bool = False
    failed: str | None = None


@dataclass(frozen=True)
class JudgeAnswers:
    """The answers."""

    judgements: list[Judgement]  # of the systems' replies
    groups: list[Judgement]  # of known replies; ``system`` is the group
    contests: list[Contest]  # pairs of systems' replies
    left_out: list[str]  # settings that the judge was not told, by any of its calls


@dataclass(frozen=True)
class JudgePlan:
    """What is asked."""

    scorings: list[Scoring]  # of the systems' replies, a call each
    groups: list[Scoring]  # of known replies, likewise
    duels: list[Pairing]  # two calls each
    rubrics: list[Rubric]  # what about
    language: str | None  # of the prompts; None: see `in_language`
    without_role: dict[str, int]  # by system, replies that were not asked what needs a role's card
    decoding: Decoding  # of an answer
    prompts: Prompts  # in whose words

    def requests(self) -> list[ChatRequest]:
        """All of them: scores, known groups, duels."""
        how, prompts = self.decoding, self.prompts
        scores = [score_request(scoring, how, prompts) for scoring in (*self.scorings, *self.groups)]
        weighed = [rubric for rubric in self.rubrics if not rubric.needs]
        duels = [
            duel_requests(pairing, in_language(weighed, pairing.turn, self.language), how, prompts)
            for pairing in self.duels
        ]
        return scores + [request for both in duels for request in both]

    def ask(self, asker: Asker) -> JudgeAnswers:
        """Ask for everything that the asker's ledger does not hold yet.

        Raises:
            BudgetSpent, ChatError, LedgerError: see `Asker.answers`; the answers so far are in the ledger.
        """
        answers = asker.ask(self.requests())
        left_out = sorted({name for outcome in answers for name in filter(None, outcome.left_out.split(","))})
        outcomes = iter(answers)
        judgements = [judgement_of(scoring, next(outcomes)) for scoring in self.scorings]
        groups = [judgement_of(scoring, next(outcomes)) for scoring in self.groups]
        contests = [contest_of(duel, [] if duel.equal else [next(outcomes), next(outcomes)]) for duel in self.duels]
        return JudgeAnswers(judgements, groups, contests, left_out)


def make_plan(
    sampled: SampledTurns,
    rubrics: Sequence[Rubric],
    options: JudgingOptions,
    *,
    failed: Sequence[Conversation] | None = None,
    card: Callable[[str, str], str] | None = None,
    seed: int = 0,
) -> JudgePlan:
    """Lay out a judging: turn by turn, so that what shares a talk is asked together and prompt caches hold.

    ``failed`` are dialogues for the group of failed replies, ``card`` gives the card of a role in a language (None:
    there is no bank), ``seed`` is that of the known groups.

    Raises:
        EsckitError: the known groups cannot be made, or a user's prompts are wrong.
        RoleError: the bank lacks a role, or its text in a language.
    """

    def scored(system: str, turn: JudgedTurn, reply: str, role: str | None, reference: bool) -> list[Scoring]:
        found = []
        for rubric in in_language(rubrics, turn, options.language):
            told = card(role, rubric.language) if rubric.needs and card and role else ""
            if told or not rubric.needs:
                found.append(Scoring(system, turn, reply, rubric, reference, told))
        return found

    scorings = [
        scoring
        for turn in sampled.turns
        for system, replies in sampled.replies.items()
        for shown in _SHOWN[options.reference]
        for scoring in scored(system, turn, replies[turn.key], role_of(sampled, system, turn), shown)
    ]
    known = known_replies(sampled.turns, failed, seed) if options.known_groups else []
    groups = [scoring for each in known for scoring in scored(each.group, each.turn, each.text, each.turn.role, False)]
    pairs = pairings(sampled.turns, sampled.replies) if options.pairs else []
    without = {
        system: sum(not (card and role_of(sampled, system, turn)) for turn in sampled.turns)
        for system in sampled.replies
        if any(rubric.needs for rubric in rubrics)
    }
    return JudgePlan(
        scorings, groups, pairs, list(rubrics), options.language, without, options.decoding, options.read_prompts()
    )


def role_of(sampled: SampledTurns, system: str, turn: JudgedTurn) -> str | None:
    """The role that a system's reply was made in: its own, else that of the dialogue."""
    return sampled.roles.get(system, {}).get(turn.key, turn.role)


def in_language(rubrics: Sequence[Rubric], turn: JudgedTurn, language: str | None) -> list[Rubric]:
    """Word rubrics in one language: the one that is given, or the dialogue's where all have it, or each one's own."""
    wanted = language or turn.language
    if all(wanted in rubric.languages for rubric in rubrics):
        return [rubric.worded(wanted) for rubric in rubrics]
    return list(rubrics)


def check_language(rubrics: Sequence[Rubric], language: str | None) -> None:
    """Refuse a language that not every rubric has.

    Raises:
        EsckitError: one sentence names the rubric.
    """
    for rubric in rubrics:
        if language is not None and language not in rubric.languages:
            raise EsckitError(
                f"the rubric {rubric.name} is not worded in {language!r}, only in {', '.join(rubric.languages)}: write "
                "its translation, or leave language out."
            )


def figures(
    judged: JudgeAnswers,
    plan: JudgePlan,
    sampled: SampledTurns,
    *,
    judge: str,
    identity: Any,
    miners: Sequence[str] = (),
    draws: Draws = DRAWS,
) -> Judging:
    """Return all figures of a judging (docs/judging.md).

    ``judge`` names the model that judged, ``identity`` is its own; ``miners`` judged the preferences that the systems
    were trained on (`mining_judges`).
    """
    scales = {rubric.name: (rubric.lowest, rubric.highest) for rubric in plan.rubrics}
    problems = {rubric.name: [*rubric.problems] for rubric in plan.rubrics if rubric.problems}
    orders = {rubric.name: rubric.known_groups for rubric in plan.rubrics}
    found = Judging(
        format=FORMAT,
        judge=judge,
        identity=identity,
        left_out=judged.left_out,
        prompts=plan.prompts.label,
        also_mined=also_mined(judge, identity, miners),
        turns=len(sampled.turns),
        dialogues=len({turn.conversation_id for turn in sampled.turns}),
        systems=list(sampled.replies),
        rubrics=[
            JudgedRubric(name=rubric.name, version=rubric.version, lowest=rubric.lowest, highest=rubric.highest)
            for rubric in plan.rubrics
        ],
        resamples=draws.resamples,
        seed=draws.seed,
        scores=scores_by_system(judged.judgements, scales, draws),
        differences=score_tests(judged.judgements, draws),
        pairs=pairwise_tests(judged.contests, draws),
        strengths=strengths(judged.contests, draws),
        known_groups=_known_groups(judged, scales, orders, problems, draws),
        warnings=[],
        problems=problem_shares(judged.judgements, problems, draws),
    )
    return replace(found, warnings=[*_warnings(found, judged, sampled), *_left_out(found, plan)])


def _known_groups(
    judged: JudgeAnswers,
    scales: dict[str, tuple[int, int]],
    orders: dict[str, Any],
    problems: dict[str, list[str]],
    draws: Draws,
) -> KnownGroups | None:
    if not judged.groups:
        return None
    rows = group_orders(judged.groups, orders, draws)
    return KnownGroups(
        scores=scores_by_system(judged.groups, scales, draws),
        orders=rows,
        in_order=bool(rows) and all(row.found == "in order" for row in rows),
        problems=problem_shares(judged.groups, problems, draws),
    )


def _left_out(found: Judging, plan: JudgePlan) -> list[str]:
    """What was not asked, or counts for nothing, in sentences."""
    told = []
    needing = ", ".join(rubric.name for rubric in plan.rubrics if rubric.needs)
    if lost := {system: number for system, number in plan.without_role.items() if number}:
        whose = ", ".join(f"{number} of {system}" for system, number in lost.items())
        told.append(f"{needing} was not asked about replies without a role, or without a role bank ({whose}).")
    rows = [*found.problems, *(found.known_groups.problems if found.known_groups else [])]
    asked = sum(sum(row.states.to_json().values()) for row in rows)
    if unparsed := sum(row.states.unparsed for row in rows):
        told.append(
            f"{unparsed} of {asked} answers about problems are unparsed, mostly a yes that quotes what the reply "
            "does not hold: they count neither as yes nor as no."
        )
    return told


def _warnings(found: Judging, judged: JudgeAnswers, sampled: SampledTurns) -> list[str]:
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
    if judged.left_out:
        warnings.append(
            f"{found.judge} was asked without {', '.join(judged.left_out)}, which its server refused or you left out."
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


def mining_judges(conversations: Iterable[Conversation]) -> list[str]:
    """Everyone who had a say in the preferences of trees: who made a preference, and who judged its two sides."""
    found = set()
    for conversation in conversations:
        for preference in conversation.preferences:
            sides = (conversation.turn(preference.chosen), conversation.turn(preference.rejected))
            found |= {verdict.judge for side in sides for verdict in side.verdicts}
            found |= {preference.judge} if preference.judge else set()
    return sorted(found)


def also_mined(judge: str, identity: Any, miners: Sequence[str]) -> list[str]:
    """Return those of the miners that are this judge.

    A model is the same behind another URL, under another provider's prefix and with another prompt: names compare
    without what stands before their last ``/`` and behind ``@``, and without regard to case. A local model is known by
    its weights' hash, too: ``identity`` is that of the judge's chat model.
    """
    own = {_model_of(judge)}
    if isinstance(identity, dict) and "weights" in identity:
        own.add(str(identity["weights"]).casefold())
    return [miner for miner in miners if _model_of(miner) in own or miner.rsplit("@", 1)[-1].casefold() in own]


def _model_of(judge: str) -> str:
    """The part of a judge's name that tells its model."""
    return judge.split("@")[0].rstrip("/").rsplit("/", 1)[-1].casefold()
