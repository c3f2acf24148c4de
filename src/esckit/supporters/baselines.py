"""Prompted baselines: what any chat model says in the supporter's place, without training.

A method is a row of stages, and a stage is one question a turn: its prompt (``prompts/baselines``) and the earlier
answers that it shows. Stages are asked one after the other for all turns at once, through a ledger.
"""

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from esckit.chat_models.ledger import Outcome
from esckit.chat_models.protocol import ChatRequest
from esckit.conversation import Conversation, Turn
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.errors import CorpusError
from esckit.measures import Prediction, add_context
from esckit.prompts.own import Prompts
from esckit.prompts.transcript import quote, transcript
from esckit.rendering import past_strategies, supporter_turns
from esckit.strategy import ESCONV, TAXONOMIES, Taxonomy

__all__ = ["METHODS", "SHIPPED", "Method", "Place", "Stage", "places_of", "read_reply", "request_for", "rows_of"]

SHIPPED: Final = Prompts("baselines")
"""The prompts of baselines where a user gives none."""

Kind = Literal["note", "reply", "strategy", "words"]
"""What a stage's answer is: read by later stages alone; ``[Strategy] text``; a strategy's name; a text under it."""


class Stage(NamedTuple):
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
        stages: in order; the last gives the text, and the strategy unless an earlier one of kind ``strategy`` does.
        past: whether the history shows the gold strategies of earlier turns.
        about: what it does, and where it comes from.
    """

    stages: tuple[Stage, ...]
    past: Literal["gold", "hidden"]
    about: str


_LIST, _DEFINED = ("strategies",), ("guidelines",)
_BASE: Final = Stage("base", "reply", _LIST)

METHODS: Final[Mapping[str, Method]] = MappingProxyType(
    {
        "base": Method((_BASE,), "gold", "strategy and reply in one answer (DecoupledESC, table 4: vanilla base)"),
        "base-decoupled": Method(
            (Stage("plan", "strategy", _LIST), Stage("words", "words", (), ("plan",))),
            "hidden",
            "a strategy first, then the reply under it (DecoupledESC, table 4: decoupled base)",
        ),
        "direct-refine": Method(
            (_BASE, Stage("refine", "reply", _LIST, ("base",))), "gold", "base, rewritten once (DecoupledESC, D.2)"
        ),
        "self-refine": Method(
            (
                _BASE,
                Stage("feedback", "note", _LIST, ("base",)),
                Stage("refine_with_feedback", "reply", _LIST, ("base", "feedback")),
            ),
            "gold",
            "base, the model's own feedback on it, then a rewriting (Madaan et al. 2023; DecoupledESC, D.2)",
        ),
        "emotional-cot": Method(
            (
                Stage("emotional_state", "note", ()),
                Stage("emotional_reply", "reply", _LIST, ("emotional_state",)),
            ),
            "gold",
            "the seeker's emotional state first, then strategy and reply (DecoupledESC, D.2)",
        ),
        "example": Method(
            (Stage("example", "reply", (*_LIST, "example")),),
            "gold",
            "base with one dialogue in the prompt, drawn for each dialogue that is predicted (CSO, appendix E)",
        ),
        "guidelines": Method(
            (Stage("guidelines", "reply", _DEFINED),), "gold", "base with definitions (self-evolution, table 3)"
        ),
        "self-reflection": Method(
            (Stage("self_reflection", "reply", _DEFINED),),
            "gold",
            "guidelines, and thinking aloud about the seeker before the reply (self-evolution, table 3)",
        ),
    }
)

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
class Place:
    """A supporter turn to be predicted, and what has been answered about it.

    Attributes:
        conversation: the tree.
        turn: of its trunk, labelled.
        taxonomy: the conversation's.
        example: a dialogue for the slot of that name, as a transcript; empty where no stage has it.
        answers: by stage.
    """

    conversation: Conversation
    turn: Turn
    taxonomy: Taxonomy
    example: str = ""
    answers: dict[str, Outcome] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether a next stage can be asked: nothing is built on an answer that did not come or cannot be read."""
        plan = self.answers.get("plan")
        return all(o.state == "done" for o in self.answers.values()) and (
            plan is None or self.named_strategy is not None
        )

    @property
    def named_strategy(self) -> str | None:
        """The strategy that the plan names; None where it names none of the taxonomy's, or several."""
        return self.taxonomy.match(_spoken(self.answers["plan"].text).strip("[]*_.\"'` "))


def places_of(
    conversations: Sequence[Conversation], method: Method, examples: Callable[[], Sequence[Conversation]], seed: int
) -> list[Place]:
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
    needs = any("example" in stage.slots for stage in method.stages)
    known = examples() if needs else ()
    places = []
    for conversation in conversations:
        taxonomy = TAXONOMIES[conversation.taxonomy] if conversation.taxonomy else ESCONV
        turns = supporter_turns(conversation)
        example = _example(conversation, taxonomy, known, seed) if needs and turns else ""
        places += [Place(conversation, turn, taxonomy, example) for turn in turns]
    if not places:
        raise CorpusError("the corpus has no supporter turn with a strategy: nothing can be predicted, give another.")
    return places


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
    place: Place,
    method: Method,
    stage: Stage,
    decoding: Decoding,
    seed: int,
    said: Mapping[str, str],
    prompts: Prompts = SHIPPED,
) -> ChatRequest:
    """What the model is asked about a turn; whatever was said or answered stands in it as quoted data.

    Args:
        place: the turn.
        method: the baseline.
        stage: of the method.
        decoding: how the answer is drawn.
        seed: numbers the answers to one question: another seed draws others.
        said: earlier answers, by stage.
        prompts: in whose words.
    """
    values = {
        "strategies": ", ".join(place.taxonomy.labels),
        "guidelines": "\n".join(f"- {each.label}: {each.definition}" for each in place.taxonomy.strategies),
        "example": place.example,
    }
    shown = past_strategies(place.conversation, method.past)
    before = [replace(turn, strategy=shown.get(turn.id)) for turn in place.conversation.path(place.turn.id)[:-1]]
    notes = "\n".join(f"{{{quote(_SHOWN[name])}: {quote(_spoken(said[name]))}}}" for name in stage.shows)
    conversation = prompts.fill(
        "conversation", transcript=transcript(before, strategies=True) or _NOTHING_SAID, notes=notes
    )
    system = prompts.fill(stage.name, **{slot: values[slot] for slot in stage.slots})
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


def _row(place: Place, method: Method, name: str, prompts: Prompts) -> Prediction:
    """A turn's row of the predictions file: what the last answer says, or that it did not come, and in which state."""
    last = next(reversed(place.answers))
    outcome, kind = place.answers[last], {stage.name: stage.kind for stage in method.stages}[last]
    strategy, text = place.named_strategy if "plan" in place.answers else None, None
    state = outcome.state
    if outcome.state == "done" and kind in ("reply", "words"):
        found, text = read_reply(outcome.text, place.taxonomy)
        strategy = strategy if kind == "words" else found
    elif outcome.state == "done":  # a plan that names no strategy: no words were asked for
        state = "unparsed"
    extra: dict[str, Any] = {"past_strategies": method.past, "baseline": name, "state": state}
    if prompts.label:
        extra["prompts"] = prompts.label
    if notes := {stage: answer.text for stage, answer in place.answers.items() if stage != last}:
        extra["answers_before"] = notes
    if outcome.state != "done":
        extra["why"] = f"{last}: {outcome.failure or outcome.state}"
    return Prediction(
        conversation_id=place.conversation.id,
        turn_id=place.turn.id,
        gold_strategy=str(place.turn.strategy),
        predicted_strategy=strategy,
        gold_text=place.turn.text or "",
        predicted_text=text,
        raw=outcome.text,
        finish="stop" if outcome.finish == "stop" else "length" if outcome.finish == "length" else None,
        extra=extra,
    )


def rows_of(places: Iterable[Place], method: Method, name: str, prompts: Prompts = SHIPPED) -> list[Prediction]:
    """The predictions file's rows: where each turn stands, what the seeker had said, whose the prompts were."""
    known = list(places)
    rows = [_row(place, method, name, prompts) for place in known]
    return add_context(rows, list({place.conversation.id: place.conversation for place in known}.values()))
