"""Prompted baselines: what any chat model says in the supporter's place, without training.

A method is a row of questions about each turn: a question is its prompt (``prompts/baselines``) and the earlier answers
that it shows. `prompted` asks them one after the other, each for all turns at once, through a ledger.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from esckit.chat_models.ledger import Outcome
from esckit.chat_models.opening import PromptedOptions
from esckit.chat_models.protocol import ChatRequest
from esckit.conversation.thoughts import without_thought
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.prompts.own import Prompts
from esckit.prompts.transcript import quote, transcript
from esckit.strategy import Taxonomy
from esckit.supporters.proposing import Candidate, TurnRequest

__all__ = [
    "METHODS",
    "Asked",
    "BaselineOptions",
    "Method",
    "Question",
    "candidate_of",
    "read_reply",
    "request_for",
    "spoken",
]

_OURS: Final = Prompts("baselines")

Kind = Literal["note", "reply", "strategy", "words"]
"""What a question's answer is: shown to later ones alone; ``[Strategy] text``; a strategy's name; a text under it."""


class Question(NamedTuple):
    """One question about each turn.

    Attributes:
        name: of its answer, and of its prompt, the system text.
        kind: what the answer is.
        slots: of the prompt.
        shows: earlier answers that stand under the conversation.
    """

    name: str
    kind: Kind
    slots: tuple[str, ...]
    shows: tuple[str, ...] = ()


class Method(NamedTuple):
    """A baseline.

    Attributes:
        questions: in order; the last gives the text, and the strategy unless an earlier one of kind ``strategy`` does.
        past: whether the history shows the gold strategies of earlier turns.
        about: what it does, and where it comes from.
    """

    questions: tuple[Question, ...]
    past: Literal["gold", "hidden"]
    about: str

    @property
    def plans(self) -> bool:
        """Whether the strategy has a question of its own, whose place a given one can take."""
        return any(question.kind == "strategy" for question in self.questions)

    @property
    def shows_example(self) -> bool:
        """Whether a question shows a whole dialogue."""
        return any("example" in question.slots for question in self.questions)


_LIST, _DEFINED = ("strategies",), ("guidelines",)
_BASE: Final = Question("base", "reply", _LIST)

METHODS: Final[Mapping[str, Method]] = MappingProxyType(
    {
        "base": Method((_BASE,), "gold", "strategy and reply in one answer (DecoupledESC, table 4: vanilla base)"),
        "base-decoupled": Method(
            (Question("plan", "strategy", _LIST), Question("words", "words", (), ("plan",))),
            "hidden",
            "a strategy first, then the reply under it (DecoupledESC, table 4: decoupled base)",
        ),
        "direct-refine": Method(
            (_BASE, Question("refine", "reply", _LIST, ("base",))), "gold", "base, rewritten once (DecoupledESC, D.2)"
        ),
        "self-refine": Method(
            (
                _BASE,
                Question("feedback", "note", _LIST, ("base",)),
                Question("refine_with_feedback", "reply", _LIST, ("base", "feedback")),
            ),
            "gold",
            "base, the model's own feedback on it, then a rewriting (Madaan et al. 2023; DecoupledESC, D.2)",
        ),
        "emotional-cot": Method(
            (
                Question("emotional_state", "note", ()),
                Question("emotional_reply", "reply", _LIST, ("emotional_state",)),
            ),
            "gold",
            "the seeker's emotional state first, then strategy and reply (DecoupledESC, D.2)",
        ),
        "example": Method(
            (Question("example", "reply", (*_LIST, "example")),),
            "gold",
            "base with one dialogue in the prompt, drawn for each dialogue that is predicted (CSO, appendix E)",
        ),
        "guidelines": Method(
            (Question("guidelines", "reply", _DEFINED),), "gold", "base with definitions (self-evolution, table 3)"
        ),
        "self-reflection": Method(
            (Question("self_reflection", "reply", _DEFINED),),
            "gold",
            "guidelines, and thinking aloud about the seeker before the reply (self-evolution, table 3)",
        ),
    }
)


class BaselineOptions(PromptedOptions):
    """Who is asked, and by which method.

    Attributes:
        method: a name of `METHODS`.
    """

    asks_with: ClassVar[str] = "baselines"

    method: str
    decoding: Decoding = Decoding(max_new_tokens=256)
    concurrency: int | None = Field(16, ge=1)

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if self.method not in METHODS:
            raise ValueError(f"there is no baseline {self.method!r}: use one of {', '.join(METHODS)}")
        return self


_SHOWN: Final = {
    "base": "draft",
    "feedback": "feedback",
    "emotional_state": "how the seeker feels",
    "plan": "strategy",
}
"""What an earlier answer is called under the conversation."""

_NOTHING_SAID: Final = {
    "en": "(Nothing has been said yet: the supporter opens.)",
    "zh": "（还没有人说话：由支持者开口。）",
}
_MARK: Final = re.compile(r"^[ \t>*_#\"'“-]*\[([^\[\]\n]+)\][*_:]*[ \t]*", re.MULTILINE)


@dataclass(frozen=True)
class Asked:
    """A turn that is wanted, and what has been answered about it.

    Attributes:
        request: where, and how it is drawn.
        taxonomy: of its strategies.
        sample: which of several candidates this is, or becomes: another number draws other answers.
        example: a dialogue for the slot of that name, as a transcript; empty where no question has it.
        answers: by question.
    """

    request: TurnRequest
    taxonomy: Taxonomy
    sample: int
    example: str = ""
    answers: dict[str, Outcome] = field(default_factory=dict)

    def wants(self, question: Question) -> bool:
        """Whether a question is to be asked: a given strategy takes the plan's place, and a plan needs no words.

        Nothing is built on an answer that did not come or cannot be read.
        """
        planning = question.kind == "strategy"
        if self.request.strategy is not None if planning else self.request.wording is None:
            return False
        readable = "plan" not in self.answers or self.strategy is not None
        return readable and all(outcome.state == "done" for outcome in self.answers.values())

    @property
    def said(self) -> dict[str, str]:
        """The answers' texts, by question; a given strategy is the plan."""
        plan = {"plan": self.request.strategy} if self.request.strategy else {}
        return plan | {name: answer.text for name, answer in self.answers.items()}

    @property
    def strategy(self) -> str | None:
        """The one that was given or that the plan names; None where it names none of the taxonomy's, or several."""
        if self.request.strategy is not None or "plan" not in self.answers:
            return self.request.strategy
        return self.taxonomy.match(spoken(self.answers["plan"].text).strip("[]*_.\"'` "))


def request_for(asked: Asked, question: Question, said: Mapping[str, str], prompts: Prompts = _OURS) -> ChatRequest:
    """What the model is asked about a turn; whatever was said or answered stands in it as quoted data.

    Args:
        asked: the turn.
        question: of the method.
        said: earlier answers, by question.
        prompts: in whose words.
    """
    wanted, language = asked.request, asked.request.conversation.language
    values = {
        "strategies": asked.taxonomy.listed_in(language),
        "guidelines": asked.taxonomy.guidelines_in(language),
        "example": asked.example,
    }
    before = [replace(turn, strategy=wanted.shown.get(turn.id)) for turn in wanted.conversation.path(wanted.parent)]
    notes = "\n".join(f"{{{quote(_SHOWN[name])}: {quote(spoken(said[name]))}}}" for name in question.shows)
    said_before = transcript(before, strategies=True) or _NOTHING_SAID.get(language, _NOTHING_SAID["en"])
    conversation = prompts.fill("conversation", language, transcript=said_before, notes=notes)
    system = prompts.fill(question.name, language, **{slot: values[slot] for slot in question.slots})
    messages = Message("system", system), Message("user", conversation.strip())
    decoding = wanted.planning if question.kind == "strategy" or wanted.wording is None else wanted.wording
    return ChatRequest(messages, decoding, sample=asked.sample)


def spoken(text: str) -> str:
    """An answer without the thought that a reasoning model puts before it."""
    return (without_thought(text) or "").strip()


def read_reply(text: str, taxonomy: Taxonomy) -> tuple[str | None, str]:
    """Read ``[Strategy] text``: the strategy, None where it cannot be told, and the text.

    The mark stands at the beginning of a line; what stands before it (a thought, "Here is my turn:") is left out. With
    no mark that names a label, or marks of several labels, the strategy is unparsed and the text is all that was said.
    """
    text = spoken(text)
    marks = [(taxonomy.match(mark[1]), mark) for mark in _MARK.finditer(text)]
    labels = {label for label, _ in marks if label}
    if len(labels) != 1:
        return None, text
    (label,) = labels
    first = next(mark for named, mark in marks if named)
    return label, _MARK.sub(lambda mark: "" if taxonomy.match(mark[1]) else mark[0], text[first.start() :]).strip()


def candidate_of(asked: Asked, method: Method, name: str, prompts: Prompts) -> Candidate:
    """What the last answer says, or that it did not come, and in which state."""
    if not asked.answers:  # a given strategy alone was wanted
        return Candidate(asked.request.strategy)
    last = next(reversed(asked.answers))
    outcome, kind = asked.answers[last], {question.name: question.kind for question in method.questions}[last]
    state, strategy, text = outcome.state, asked.strategy, None
    if outcome.state == "done" and kind in ("reply", "words"):
        found, text = read_reply(outcome.text, asked.taxonomy)
        strategy = strategy if kind == "words" else found
    elif outcome.state == "done" and strategy is None:  # a plan that names none: no words were asked for
        state = "unparsed"
    extra: dict[str, Any] = {"baseline": name, "state": state}
    if prompts.label:
        extra["prompts"] = prompts.label
    if notes := {question: answer.text for question, answer in asked.answers.items() if question != last}:
        extra["answers_before"] = notes
    if left_out := sorted(
        {name for answer in asked.answers.values() for name in filter(None, answer.left_out.split(","))}
    ):
        extra["left_out"] = left_out
    if outcome.state != "done":
        extra["why"] = f"{last}: {outcome.failure or outcome.state}"
    finish = outcome.finish if outcome.finish in ("stop", "length") else None
    return Candidate(strategy, text, finish=finish, extra={**extra, "raw": outcome.text})
