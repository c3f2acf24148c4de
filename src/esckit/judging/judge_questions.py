"""What a judge is asked, and what its answers come to: a reply's score for one quality, and which of two is better."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel

from esckit.chat_models.json_replies import schema_text
from esckit.chat_models.ledger import Outcome
from esckit.chat_models.protocol import ChatRequest
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.judging.rubric import CAPPED, QUOTE, Rubric
from esckit.judging.sampling import JudgedTurn
from esckit.measures.judgements import TIE, Answer, Contest, Judgement
from esckit.prompts.own import Prompts
from esckit.prompts.transcript import quote, talk_before

_OURS: Final = Prompts("judge")
_LETTERS: Final = ("A", "B")
_NOTHING: Final = {"en": "(nothing was said before)", "zh": "（此前没有说过话）"}


class Scoring(NamedTuple):
    """One score to be asked for.

    Attributes:
        system: who replied.
        turn: where.
        reply: what.
        rubric: the quality, in the language that the judge is asked in.
        reference: the judge sees the human reply.
        card: of the role that the reply was made in; empty where the quality needs none.
    """

    system: str
    turn: JudgedTurn
    reply: str
    rubric: Rubric
    reference: bool
    card: str = ""


def score_request(scoring: Scoring, decoding: Decoding, prompts: Prompts = _OURS) -> ChatRequest:
    """What the judge is asked; talk and replies stand in it as quoted data, and first, as every quality shares them."""
    rubric, turn, reference, more = scoring.rubric, scoring.turn, "", ""
    language = rubric.language
    if scoring.reference:
        reference = prompts.fill("reference", language, reference=quote(turn.reference)) + "\n\n"
    if scoring.card:
        more += "\n" + prompts.fill("role", language, card=quote(scoring.card))
    if rubric.caps:
        more += "\n" + prompts.fill("caps", language, caps="\n".join(f"- {cap}" for cap in rubric.caps))
    asked = prompts.fill(
        "problems" if rubric.problems else "score",
        language,
        transcript=_talk(turn, language),
        reference=reference,
        reply=quote(scoring.reply),
        quality=rubric.name.removesuffix(CAPPED),
        question=rubric.question,
        criteria=rubric.criteria + more,
        schema=schema_text(rubric.reply),
        **({"problems": rubric.problems_text} if rubric.problems else {"scale": rubric.scale_text}),
    )
    return ChatRequest((_system(prompts, language), Message("user", asked)), decoding, rubric.reply)


def judgement_of(scoring: Scoring, outcome: Outcome) -> Judgement:
    """The judgement that an outcome says; a score outside the scale has made it unparsed already.

    Of a rubric with problems the score is 0 where one is shown, 1 where every answer is no, else there is none.
    """
    state, score, said, answers = outcome.state, None, outcome.text or outcome.detail, {}
    if outcome.state == "done":
        answer = outcome.value(scoring.rubric.reply).model_dump()
        if scoring.rubric.problems:
            answers = _answers(scoring, answer)
            given = {each.answer for each in answers.values()}
            score = 0 if "yes" in given else None if "unparsed" in given else 1
            state = "unparsed" if score is None else "done"
            said = "; ".join(f"{name}: {each.quote}" for name, each in answers.items() if each.answer != "no")
        else:
            score, said = int(answer["score"]), str(answer["explanation"])
    return Judgement(
        system=scoring.system,
        conversation_id=scoring.turn.conversation_id,
        turn_id=scoring.turn.turn_id,
        rubric=scoring.rubric.name,
        reference=scoring.reference,
        state=state,
        score=score,
        length=len(scoring.reply.strip()),
        explanation=said,
        answers=answers,
    )


def _answers(scoring: Scoring, given: Mapping[str, Any]) -> dict[str, Answer]:
    """A yes counts only with words that the reply holds, letter by letter; how lines are broken is no matter."""
    reply = " ".join(scoring.reply.split())
    found = {}
    for name in scoring.rubric.problems:
        words = " ".join(str(given[name + QUOTE]).split())
        stands = bool(words) and words in reply
        found[name] = Answer("no") if given[name] == "no" else Answer("yes" if stands else "unparsed", words)
    return found


class _Duel(BaseModel):
    """What a judge has to answer; the explanation comes first, so that it is not made up for the winner."""

    explanation: str
    better: Literal["A", "B", "tie"]


class Pairing(NamedTuple):
    """Two systems' replies to one turn."""

    first: str
    second: str
    turn: JudgedTurn
    replies: tuple[str, str]

    @property
    def equal(self) -> bool:
        """Nobody need be asked which of them is better."""
        return self.replies[0].strip() == self.replies[1].strip()


def pairings(turns: Sequence[JudgedTurn], replies: Mapping[str, Mapping[tuple[str, str], str]]) -> list[Pairing]:
    """Every pair of systems at every turn."""
    return [
        Pairing(first, second, turn, (replies[first][turn.key], replies[second][turn.key]))
        for first, second in combinations(replies, 2)
        for turn in turns
    ]


def duel_requests(
    pairing: Pairing, rubrics: Sequence[Rubric], decoding: Decoding, prompts: Prompts = _OURS
) -> list[ChatRequest]:
    """What the judge is asked: once with the first system's reply as A, once as B; nothing for equal replies.

    It is asked in the language that the rubrics are worded in.
    """
    if pairing.equal:
        return []
    language = rubrics[0].language
    qualities = "\n".join(f"- {rubric.name}: {rubric.question}" for rubric in rubrics)
    requests = []
    for reply_a, reply_b in (pairing.replies, pairing.replies[::-1]):
        asked = prompts.fill(
            "duel",
            language,
            transcript=_talk(pairing.turn, language),
            reply_a=quote(reply_a),
            reply_b=quote(reply_b),
            qualities=qualities,
            schema=schema_text(_Duel),
        )
        requests.append(ChatRequest((_system(prompts, language), Message("user", asked)), decoding, _Duel))
    return requests


def contest_of(pairing: Pairing, outcomes: Sequence[Outcome]) -> Contest:
    """The contest that both orders' outcomes say; none for equal replies."""
    first, second, turn, replies = pairing
    lengths = len(replies[0].strip()), len(replies[1].strip())
    if pairing.equal:
        return Contest(first, second, *turn.key, ("done", "done"), (TIE, TIE), lengths, asked=False)
    one, two = outcomes
    winners = _winner(one, (first, second)), _winner(two, (second, first))
    return Contest(first, second, *turn.key, (one.state, two.state), winners, lengths, True, (_said(one), _said(two)))


def _winner(outcome: Outcome, shown: tuple[str, str]) -> str | None:
    if outcome.state != "done":
        return None
    better = outcome.value(_Duel).better
    return TIE if better == TIE else shown[_LETTERS.index(better)]


def _said(outcome: Outcome) -> str:
    return outcome.value(_Duel).explanation if outcome.state == "done" else outcome.text or outcome.detail


def _system(prompts: Prompts, language: str) -> Message:
    return Message("system", prompts.fill("system", language))


def _talk(turn: JudgedTurn, language: str) -> str:
    """What was said before."""
    return talk_before(turn.context, language)
