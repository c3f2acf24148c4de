"""Prompted baselines: what any chat model says in the supporter's place, without training.

A method is a row of questions about each turn: a question is its prompt (``prompts/baselines``) and the earlier answers
that it shows. They are asked one after the other, each for all turns at once, through a ledger.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from esckit.chat_models.ledger import Outcome
from esckit.chat_models.opening import PromptedOptions
from esckit.chat_models.protocol import ChatRequest
from esckit.conversation import Conversation, Turn
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.errors import CorpusError
from esckit.measures import Prediction
from esckit.prompts.own import Prompts
from esckit.prompts.transcript import quote, transcript
from esckit.rendering import past_strategies, supporter_turns
from esckit.strategy import ESCONV, TAXONOMIES, Taxonomy

__all__ = [
    "METHODS",
    "BaselineOptions",
    "BaselineTurn",
    "Method",
    "Question",
    "baseline_turns",
    "read_reply",
    "request_for",
    "row_of",
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

_NOTHING_SAID: Final = "(Nothing has been said yet: the supporter opens.)"
_THOUGHT: Final = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_MARK: Final = re.compile(r"^[ \t>*_#\"'“-]*\[([^\[\]\n]+)\][*_:]*[ \t]*", re.MULTILINE)


@dataclass(frozen=True)
class BaselineTurn:
    """A supporter turn to be predicted, and what has been answered about it.

    Attributes:
        conversation: the tree.
        turn: of its trunk, labelled.
        taxonomy: the conversation's.
        example: a dialogue for the slot of that name, as a transcript; empty where no question has it.
        answers: by question.
    """

    conversation: Conversation
    turn: Turn
    taxonomy: Taxonomy
    example: str = ""
    answers: dict[str, Outcome] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether a next question can be asked: nothing is built on an answer that did not come or cannot be read."""
        plan = self.answers.get("plan")
        return all(o.state == "done" for o in self.answers.values()) and (
            plan is None or self.named_strategy is not None
        )

    @property
    def named_strategy(self) -> str | None:
        """The strategy that the plan names; None where it names none of the taxonomy's, or several."""
        return self.taxonomy.match(_spoken(self.answers["plan"].text).strip("[]*_.\"'` "))


def baseline_turns(
    conversations: Sequence[Conversation], method: Method, examples: Callable[[], Sequence[Conversation]], seed: int
) -> list[BaselineTurn]:
    """Every labelled supporter turn of the trunks, ready to be asked about.

    Args:
        conversations: the corpus.
        method: which baseline.
        examples: gives dialogues with strategies, of which one is drawn for each conversation, never itself; called
            only where the method shows an example.
        seed: of these draws; a draw depends on it and on the conversation's id.

    Raises:
        CorpusError: there is nothing to predict, or no example has the conversation's taxonomy.
    """
    needs = any("example" in question.slots for question in method.questions)
    known = examples() if needs else ()
    found = []
    for conversation in conversations:
        taxonomy = TAXONOMIES[conversation.taxonomy] if conversation.taxonomy else ESCONV
        turns = supporter_turns(conversation)
        example = _example(conversation, taxonomy, known, seed) if needs and turns else ""
        found += [BaselineTurn(conversation, turn, taxonomy, example) for turn in turns]
    if not found:
        raise CorpusError("the corpus has no supporter turn with a strategy: nothing can be predicted, give another.")
    return found


def _example(conversation: Conversation, taxonomy: Taxonomy, examples: Sequence[Conversation], seed: int) -> str:
    fit = [
        each
        for each in examples
        if each.id != conversation.id and each.taxonomy == taxonomy.name and supporter_turns(each)
    ]
    if not fit:
        raise CorpusError(
            f"no example dialogue has strategies of the taxonomy {taxonomy.name}: give a file of some with --examples."
        )
    return transcript(random.Random(f"{seed} {conversation.id}").choice(fit).trunk, strategies=True)


def request_for(
    asked: BaselineTurn,
    method: Method,
    question: Question,
    decoding: Decoding,
    seed: int,
    said: Mapping[str, str],
    prompts: Prompts = _OURS,
) -> ChatRequest:
    """What the model is asked about a turn; whatever was said or answered stands in it as quoted data.

    Args:
        asked: the turn.
        method: the baseline.
        question: of the method.
        decoding: how the answer is drawn.
        seed: numbers the answers to one question: another seed draws others.
        said: earlier answers, by question.
        prompts: in whose words.
    """
    values = {
        "strategies": ", ".join(asked.taxonomy.labels),
        "guidelines": "\n".join(f"- {each.label}: {each.definition}" for each in asked.taxonomy.strategies),
        "example": asked.example,
    }
    shown = past_strategies(asked.conversation, method.past)
    before = [replace(turn, strategy=shown.get(turn.id)) for turn in asked.conversation.path(asked.turn.id)[:-1]]
    notes = "\n".join(f"{{{quote(_SHOWN[name])}: {quote(_spoken(said[name]))}}}" for name in question.shows)
    conversation = prompts.fill(
        "conversation", transcript=transcript(before, strategies=True) or _NOTHING_SAID, notes=notes
    )
    system = prompts.fill(question.name, **{slot: values[slot] for slot in question.slots})
    return ChatRequest((Message("system", system), Message("user", conversation.strip())), decoding, sample=seed)


def _spoken(text: str) -> str:
    """An answer without the thought that a reasoning model puts before it."""
    return _THOUGHT.sub("", text).strip()


def read_reply(text: str, taxonomy: Taxonomy) -> tuple[str | None, str]:
    """Read ``[Strategy] text``: the strategy, None where it cannot be told, and the text.

    The mark stands at the beginning of a line; what stands before it (a thought, "Here is my turn:") is left out. With
    no mark that names a label, or marks of several labels, the strategy is unparsed and the text is all that was said.
    """
    text = _spoken(text)
    marks = [(taxonomy.match(mark[1]), mark) for mark in _MARK.finditer(text)]
    labels = {label for label, _ in marks if label}
    if len(labels) != 1:
        return None, text
    (label,) = labels
    first = next(mark for named, mark in marks if named)
    return label, _MARK.sub(lambda mark: "" if taxonomy.match(mark[1]) else mark[0], text[first.start() :]).strip()


def row_of(asked: BaselineTurn, method: Method, name: str, prompts: Prompts) -> Prediction:
    """A turn's row of the predictions file: what the last answer says, or that it did not come, and in which state."""
    last = next(reversed(asked.answers))
    outcome, kind = asked.answers[last], {question.name: question.kind for question in method.questions}[last]
    strategy, text = asked.named_strategy if "plan" in asked.answers else None, None
    state = outcome.state
    if outcome.state == "done" and kind in ("reply", "words"):
        found, text = read_reply(outcome.text, asked.taxonomy)
        strategy = strategy if kind == "words" else found
    elif outcome.state == "done":  # a plan that names no strategy: no words were asked for
        state = "unparsed"
    extra: dict[str, Any] = {"past_strategies": method.past, "baseline": name, "state": state}
    if prompts.label:
        extra["prompts"] = prompts.label
    if notes := {question: answer.text for question, answer in asked.answers.items() if question != last}:
        extra["answers_before"] = notes
    if outcome.state != "done":
        extra["why"] = f"{last}: {outcome.failure or outcome.state}"
    return Prediction(
        conversation_id=asked.conversation.id,
        turn_id=asked.turn.id,
        gold_strategy=str(asked.turn.strategy),
        predicted_strategy=strategy,
        gold_text=asked.turn.text or "",
        predicted_text=text,
        raw=outcome.text,
        finish="stop" if outcome.finish == "stop" else "length" if outcome.finish == "length" else None,
        extra=extra,
    )
