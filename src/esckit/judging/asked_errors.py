"""A chat model as annotator of psychological errors, with author-written examples in its prompt."""

import json
import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from hashlib import sha256
from typing import Final, Literal

from pydantic import BaseModel

from esckit.chat_models.asker import Asker
from esckit.chat_models.ledger import Outcome
from esckit.chat_models.protocol import ChatRequest
from esckit.conversation import PSYCHOLOGICAL_ERRORS, Turn, Verdict
from esckit.conversation.turn_rule import Message
from esckit.corpora.error_labels import ErrorExample, example_reply
from esckit.decoding import Decoding
from esckit.judging.annotation import RUBRIC
from esckit.judging.evidence import Case
from esckit.judging.open_annotator import AnnotatorOptions
from esckit.prompts.own import Prompts
from esckit.prompts.transcript import quote, talk_before

STEP: Final = f"annotate/2/{RUBRIC}"
_OURS: Final = Prompts("psychological_errors")
_EACH: Final = 3  # examples of each outcome
_DECODING: Final = AnnotatorOptions().decoding


class ErrorReply(BaseModel):
    """What the model has to answer; the explanation comes first, so that it is not made up for the label."""

    explanation: str
    error: Literal[
        "strategy_mismatch",
        "lack_of_empathy",
        "early_emotion_shift",
        "template_response",
        "emotion_misread",
        "other",
        "none",
    ]


def choose_examples(examples: Sequence[ErrorExample]) -> list[ErrorExample]:
    """The first three examples of each error and of clean replies, in turn, so that no type comes last in a block."""
    by_error = {error: [e for e in examples if e.error == error][:_EACH] for error in (None, *PSYCHOLOGICAL_ERRORS)}
    return [chosen[place] for place in range(_EACH) for chosen in by_error.values() if place < len(chosen)]


def criteria(examples: Sequence[ErrorExample], prompts: Prompts = _OURS) -> str:
    """The system text: what to look for, and examples with their answers."""
    return prompts.fill("criteria", examples="\n\n".join(_example(example, prompts) for example in examples))


def _example(example: ErrorExample, prompts: Prompts) -> str:
    labelled = example_reply(example)
    answer = {"explanation": example.reason, "error": example.error or "none"}
    return f"{_case(labelled.context, example.strategy, example.response, prompts)}\nAnswer: {json.dumps(answer)}"


def _case(context: Sequence[Turn], strategy: str | None, response: str, prompts: Prompts) -> str:
    reply = f'{{"strategy": {quote(strategy or "not said")}, "reply": {quote(response)}}}'
    return prompts.fill("case", transcript=talk_before(context), reply=reply)


def annotation_request(
    case: Case, system: str, prompts: Prompts = _OURS, decoding: Decoding = _DECODING
) -> ChatRequest:
    """What the model is asked about one reply; the texts of the dialogue stand in it as quoted data."""
    said = _case(case.context, case.strategy, case.response, prompts)
    return ChatRequest((Message("system", system), Message("user", said)), decoding, ErrorReply)


def verdict_of(outcome: Outcome, judge: str) -> Verdict | None:
    """The verdict that an outcome says; None where no reply could be had: the turn stays open for another run."""
    if outcome.state == "failed":
        return None
    if outcome.state == "done":
        reply = outcome.value(ErrorReply)
        return Verdict(judge, RUBRIC, None if reply.error == "none" else reply.error, explanation=reply.explanation)
    return Verdict(judge, RUBRIC, explanation=outcome.text or outcome.detail, state=outcome.state)


class AskedAnnotator:
    """A chat model that is asked about each reply; every answer is in the asker's ledger, so none is asked twice.

    ``judge`` is the model's name, a hash of all that verdicts depend on, and whether the prompts were a user's own.
    """

    def __init__(
        self,
        name: str,
        asker: Asker,
        examples: Sequence[ErrorExample],
        prompts: Prompts = _OURS,
        decoding: Decoding = _DECODING,
    ) -> None:
        self.asker, self.prompts, self.decoding = asker, prompts, decoding
        self.system = criteria(choose_examples(examples), prompts)
        asked = json.dumps([asker.model.identity, self.system, STEP, decoding.record()], sort_keys=True)
        told = f"+prompts-{prompts.digest[:8]}" if prompts.digest else ""
        self.judge = f"{name}@{sha256(asked.encode()).hexdigest()[:8]}{told}"

    def verdicts(self, groups: Sequence[Sequence[Case]]) -> Generator[list[Verdict | None], None, None]:
        """Ask about all replies, as many at once as the model takes; yield each group once all of it is answered.

        Raises:
            BudgetSpent, ChatError, LedgerError: see `Asker.answers`; the answers so far are in the ledger.
        """
        requests = [
            annotation_request(case, self.system, self.prompts, self.decoding) for own in groups for case in own
        ]
        found: dict[int, Verdict | None] = {}
        told = f"; prompts: {self.prompts.label}" if self.prompts.label else ""
        print(f"{self.judge}: {self.asker.estimate(requests)}{told}", file=sys.stderr)
        with closing(self.asker.stream(requests)) as outcomes:
            first = 0
            for cases in groups:
                places = range(first, first + len(cases))
                while any(place not in found for place in places):
                    place, outcome = next(outcomes)
                    found[place] = verdict_of(outcome, self.judge)
                yield [found.pop(place) for place in places]
                first = places.stop
