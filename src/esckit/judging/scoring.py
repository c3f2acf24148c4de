"""A reply's score for one quality: what the judge is asked, and what its answer comes to."""

from typing import NamedTuple

from esckit.judging.rubric import Rubric
from esckit.judging.sampling import JudgedTurn
from esckit.measures.judgements import Judgement
from esckit.models.chat import ChatRequest, Decoding
from esckit.models.ledger import Outcome
from esckit.models.structured import schema_text
from esckit.prompts import load_prompt
from esckit.prompts.transcript import quote, transcript
from esckit.turns import Message

__all__ = ["METHOD", "Scoring", "judgement_of", "score_request", "shown_talk", "system_message"]

METHOD = "judge"


class Scoring(NamedTuple):
    """One score to be asked for; ``reference`` says whether the judge sees the human reply."""

    system: str
    turn: JudgedTurn
    reply: str
    rubric: Rubric
    reference: bool


def system_message() -> Message:
    """What a judge is told of its task."""
    return Message("system", load_prompt(METHOD, "system"))


def shown_talk(turn: JudgedTurn) -> str:
    """What was said before, for a prompt."""
    return transcript(turn.context) or "(nothing was said before)"


def score_request(scoring: Scoring, max_new_tokens: int) -> ChatRequest:
    """What the judge is asked; talk and replies stand in it as quoted data, and first, as every quality shares them."""
    rubric, turn = scoring.rubric, scoring.turn
    reference = load_prompt(METHOD, "reference", reference=quote(turn.reference)) + "\n\n" if scoring.reference else ""
    asked = load_prompt(
        METHOD,
        "score",
        transcript=shown_talk(turn),
        reference=reference,
        reply=quote(scoring.reply),
        quality=rubric.name,
        question=rubric.question,
        criteria=rubric.criteria,
        scale=rubric.scale_text,
        schema=schema_text(rubric.reply),
    )
    decoding = Decoding(greedy=True, max_new_tokens=max_new_tokens)
    return ChatRequest((system_message(), Message("user", asked)), decoding, rubric.reply)


def judgement_of(scoring: Scoring, outcome: Outcome) -> Judgement:
    """The judgement that an outcome says; a score outside the scale has made it unparsed already."""
    score, said = None, outcome.text or outcome.detail
    if outcome.state == "done":
        answer = outcome.value(scoring.rubric.reply).model_dump()
        score, said = int(answer["score"]), str(answer["explanation"])
    return Judgement(
        system=scoring.system,
        conversation_id=scoring.turn.conversation_id,
        turn_id=scoring.turn.turn_id,
        rubric=scoring.rubric.name,
        reference=scoring.reference,
        state=outcome.state,
        score=score,
        length=len(scoring.reply.strip()),
        explanation=said,
    )
