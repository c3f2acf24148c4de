"""A reply's score for one quality: what the judge is asked, and what its answer comes to."""

from typing import Final, NamedTuple

from esckit.chat_models.json_replies import schema_text
from esckit.chat_models.ledger import Outcome
from esckit.chat_models.protocol import ChatRequest
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.judging.rubric import Rubric
from esckit.judging.sampling import JudgedTurn
from esckit.measures.judgements import Judgement
from esckit.prompts.own import Prompts
from esckit.prompts.transcript import quote, transcript

__all__ = ["SHIPPED", "Scoring", "judgement_of", "score_request", "shown_talk", "system_message"]

SHIPPED: Final = Prompts("judge")
"""The prompts of a judge where a user gives none."""


class Scoring(NamedTuple):
    """One score to be asked for; ``reference`` says whether the judge sees the human reply."""

    system: str
    turn: JudgedTurn
    reply: str
    rubric: Rubric
    reference: bool


def system_message(prompts: Prompts = SHIPPED) -> Message:
    """What a judge is told of its task."""
    return Message("system", prompts.fill("system"))


def shown_talk(turn: JudgedTurn) -> str:
    """What was said before, for a prompt."""
    return transcript(turn.context) or "(nothing was said before)"


def score_request(scoring: Scoring, max_new_tokens: int, prompts: Prompts = SHIPPED) -> ChatRequest:
    """What the judge is asked; talk and replies stand in it as quoted data, and first, as every quality shares them."""
    rubric, turn = scoring.rubric, scoring.turn
    reference = prompts.fill("reference", reference=quote(turn.reference)) + "\n\n" if scoring.reference else ""
    asked = prompts.fill(
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
    return ChatRequest((system_message(prompts), Message("user", asked)), decoding, rubric.reply)


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
