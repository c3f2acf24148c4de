"""The records of the conversation tree, how it is walked and grown, and its rules."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple

from esckit.errors import CorpusError
from esckit.strategy import TAXONOMIES

__all__ = [
    "FORMAT",
    "PSYCHOLOGICAL_ERRORS",
    "Aspect",
    "Conversation",
    "Preference",
    "Problem",
    "Speaker",
    "Turn",
    "Verdict",
    "check_conversation",
    "conversation_problems",
    "mined_id",
]

FORMAT: Final = 1
PSYCHOLOGICAL_ERRORS: Final = (
    "strategy_mismatch",
    "lack_of_empathy",
    "early_emotion_shift",
    "template_response",
    "emotion_misread",
    "other",
)
"""The error types of DecoupledESC, section 3.1; no error is None."""

Speaker = Literal["seeker", "supporter"]
Aspect = Literal["strategy", "response", "turn"]
VerdictState = Literal["done", "unparsed", "refused"]

_STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of one turn. A verdict that could not be parsed is a state, never a default score."""

    __pydantic_config__ = _STRICT

    judge: str
    rubric: str
    error: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    explanation: str | None = None
    state: VerdictState = "done"


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance, verbatim; a supporter turn with a strategy and no text is *planned* and has no children."""

    __pydantic_config__ = _STRICT

    id: str
    parent: str | None
    speaker: Speaker
    text: str | None
    strategy: str | None = None
    source: str = "human"
    scores: dict[str, float] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def planned(self) -> bool:
        """True where only a strategy has been chosen."""
        return self.text is None


@dataclass(frozen=True, slots=True)
class Preference:
    """Of two siblings, this one over that one; the context is the path to their parent."""

    __pydantic_config__ = _STRICT

    chosen: str
    rejected: str
    aspect: Aspect
    reason: str | None = None
    judge: str | None = None
    explanation: str | None = None


@dataclass(frozen=True)
class Conversation:
    """A tree of turns, parents before children, and the preferences between siblings."""

    __pydantic_config__ = _STRICT

    id: str
    turns: list[Turn]
    language: str = "en"
    taxonomy: str | None = "esconv"
    situation: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    preferences: list[Preference] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @cached_property
    def _by_id(self) -> dict[str, Turn]:
        return {turn.id: turn for turn in self.turns}

    @cached_property
    def _children(self) -> dict[str | None, list[Turn]]:
        children: dict[str | None, list[Turn]] = {}
        for turn in self.turns:
            children.setdefault(turn.parent, []).append(turn)
        return children

    def turn(self, turn_id: str) -> Turn:
        """Return the turn of this id. Raises KeyError where there is none."""
        return self._by_id[turn_id]

    def children(self, turn_id: str | None) -> Sequence[Turn]:
        """Return the turns whose parent is ``turn_id`` in order; those of None are the alternative first turns."""
        return self._children.get(turn_id, [])

    @cached_property
    def trunk(self) -> list[Turn]:
        """The path of first children: the dialogue as it was recorded."""
        path: list[Turn] = []
        siblings = self.children(None)
        while siblings:
            path.append(siblings[0])
            siblings = self.children(siblings[0].id)
        return path

    def path(self, turn_id: str | None) -> list[Turn]:
        """Return the turns from the first one to ``turn_id``, inclusive; nothing for None."""
        path: list[Turn] = []
        while turn_id is not None:
            path.append(self._by_id[turn_id])
            turn_id = path[-1].parent
        return path[::-1]

    def grow(self, turns: Iterable[Turn] = (), preferences: Iterable[Preference] = ()) -> "Conversation":
        """Return this tree with more turns and preferences; what it already holds (by id, by value) is not added twice.

        Raises:
            CorpusError: the grown tree breaks a rule.
        """
        new_turns = {turn.id: turn for turn in turns if turn.id not in self._by_id}
        new_preferences = [
            preference for preference in dict.fromkeys(preferences) if preference not in self.preferences
        ]
        grown = replace(
            self, turns=[*self.turns, *new_turns.values()], preferences=[*self.preferences, *new_preferences]
        )
        check_conversation(grown)
        return grown


def mined_id(parent: str | None, source: str, strategy: str | None, text: str | None) -> str:
    """Return the id of a mined turn, a hash of what makes it that turn: mining twice adds nothing twice."""
    key = json.dumps([parent, source, strategy, text], ensure_ascii=False)
    return hashlib.sha256(key.encode()).hexdigest()[:16]


class Problem(NamedTuple):
    """What is wrong with a dialogue: its kind in a word, one sentence, and the turn's id where it is about one turn."""

    kind: str
    text: str
    turn: str | None = None


def check_conversation(conversation: Conversation) -> None:
    """Check every rule of the tree that types alone do not say.

    Raises:
        CorpusError: one sentence that names the conversation, the turn and the rule.
    """
    for problem in conversation_problems(conversation):
        raise CorpusError(problem.text)


def conversation_problems(conversation: Conversation) -> Iterator[Problem]:
    """Yield every rule of the tree that a conversation breaks.

    The kinds are ``label`` (a turn's strategy), where the tree can still be walked, and ``tree`` (all others).
    """
    where = f"conversation {conversation.id!r}"
    if problem := _head_problem(conversation):
        yield Problem("tree", f"{where} has {problem}")
        return
    labels = TAXONOMIES[conversation.taxonomy].labels if conversation.taxonomy else ()
    seen: dict[str, Turn] = {}
    for turn in conversation.turns:
        if problem := _turn_problem(turn, seen):
            yield Problem("tree", f"{where}, turn {turn.id!r}: {problem}", turn.id)
        if problem := _label_problem(turn, labels):
            yield Problem("label", f"{where}, turn {turn.id!r}: {problem}", turn.id)
        seen[turn.id] = turn
    for preference in conversation.preferences:
        if problem := _preference_problem(preference, seen):
            sides = f"{preference.chosen!r} over {preference.rejected!r}"
            yield Problem("tree", f"{where}, preference {sides}: {problem}")


def _head_problem(conversation: Conversation) -> str | None:
    """What is wrong with the conversation as a whole; None where nothing is."""
    if conversation.format != FORMAT:
        return (
            f"format {conversation.format}, this esckit reads format {FORMAT}: "
            "install the esckit that wrote it, or convert it again from its source."
        )
    if not conversation.id:
        return "an empty id: give every conversation a unique id."
    if conversation.taxonomy is not None and conversation.taxonomy not in TAXONOMIES:
        return f"the unknown taxonomy {conversation.taxonomy!r}: use one of {', '.join(TAXONOMIES)}, or null."
    return None


def _turn_problem(turn: Turn, seen: dict[str, Turn]) -> str | None:
    """What is wrong with a turn, given the turns before it; None where nothing is."""
    if not turn.id:
        return "the id is empty; give every turn an id that is unique in its conversation."
    if turn.id in seen:
        return "the id occurs twice; turn ids are unique in a conversation."
    if turn.parent is not None and turn.parent not in seen:
        return f"its parent {turn.parent!r} does not stand before it; write parents before their children."
    if turn.parent is not None and seen[turn.parent].planned:
        return f"its parent {turn.parent!r} is planned (a strategy without text) and can have no children."
    if turn.planned and turn.strategy is None:
        return "it has neither text nor strategy; give a text, or a supporter turn a strategy."
    return next(filter(None, map(_verdict_problem, turn.verdicts)), None)


def _label_problem(turn: Turn, labels: tuple[str, ...]) -> str | None:
    """What is wrong with a turn's strategy; None where nothing is."""
    if turn.speaker == "seeker" and turn.strategy is not None:
        return f"a seeker turn carries the strategy {turn.strategy!r}; only supporter turns have one."
    if turn.strategy is not None and turn.strategy not in labels:
        return (
            f"unknown strategy {turn.strategy!r}; allowed are {', '.join(labels) or 'none, as the taxonomy is null'}."
        )
    return None


def _verdict_problem(verdict: Verdict) -> str | None:
    if verdict.error is not None and verdict.error not in PSYCHOLOGICAL_ERRORS:
        return f"unknown error type {verdict.error!r}; allowed are {', '.join(PSYCHOLOGICAL_ERRORS)}, or null."
    if verdict.state != "done" and (verdict.error is not None or verdict.scores):
        return f"the {verdict.state} verdict of {verdict.judge!r} carries a result; only a done verdict has one."
    return None


def _preference_problem(preference: Preference, turns: dict[str, Turn]) -> str | None:
    for turn_id in (preference.chosen, preference.rejected):
        if turn_id not in turns:
            return f"there is no turn {turn_id!r}; a preference names two turns of its conversation."
    chosen, rejected = turns[preference.chosen], turns[preference.rejected]
    if chosen.id == rejected.id or chosen.parent != rejected.parent:
        return "they are not two siblings; a preference joins different turns of one parent."
    if "seeker" in (chosen.speaker, rejected.speaker):
        return "one is a seeker's; preferences are about supporter turns."
    if preference.reason is not None and preference.reason not in PSYCHOLOGICAL_ERRORS:
        return f"unknown reason {preference.reason!r}; allowed are {', '.join(PSYCHOLOGICAL_ERRORS)}, or null."
    if preference.aspect == "strategy":
        ok = None not in (chosen.strategy, rejected.strategy) and chosen.strategy != rejected.strategy
        return None if ok else "aspect strategy needs two different strategies."
    if chosen.planned or rejected.planned:
        return f"aspect {preference.aspect} needs two texts, and one turn is planned."
    if preference.aspect == "response" and chosen.strategy != rejected.strategy:
        return "aspect response needs the same strategy on both sides; use aspect turn."
    return None
