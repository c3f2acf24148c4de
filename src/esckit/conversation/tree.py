"""The conversation tree: how it is walked, how it grows, and how it is checked."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from typing import Any, Final, NamedTuple

from esckit.conversation.records import REASONS, STRICT, Preference, Turn, Verdict
from esckit.errors import CorpusError
from esckit.strategy import TAXONOMIES

FORMAT: Final = 1


@dataclass(frozen=True)
class Conversation:
    """A tree of turns, parents before children, and the preferences between siblings."""

    __pydantic_config__ = STRICT

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

    # Both indices hold places in ``turns``: a turn that changes is then written in one place (`GrowingTree`).
    @cached_property
    def _places(self) -> dict[str, int]:
        return {turn.id: place for place, turn in enumerate(self.turns)}

    @cached_property
    def _children(self) -> dict[str | None, list[int]]:
        children: dict[str | None, list[int]] = {}
        for place, turn in enumerate(self.turns):
            children.setdefault(turn.parent, []).append(place)
        return children

    def turn(self, turn_id: str) -> Turn:
        """Return the turn of this id. Raises KeyError where there is none."""
        return self.turns[self._places[turn_id]]

    def children(self, turn_id: str | None) -> Sequence[Turn]:
        """Return the turns whose parent is ``turn_id`` in order; those of None are the alternative first turns."""
        return [self.turns[place] for place in self._children.get(turn_id, ())]

    @cached_property
    def trunk(self) -> list[Turn]:
        """The path of first children: the dialogue as it was recorded."""
        path: list[Turn] = []
        places = self._children.get(None)
        while places:
            path.append(self.turns[places[0]])
            places = self._children.get(path[-1].id)
        return path

    def path(self, turn_id: str | None) -> list[Turn]:
        """Return the turns from the first one to ``turn_id``, inclusive; nothing for None."""
        path: list[Turn] = []
        while turn_id is not None:
            path.append(self.turn(turn_id))
            turn_id = path[-1].parent
        return path[::-1]

    def grow(self, turns: Iterable[Turn] = (), preferences: Iterable[Preference] = ()) -> "Conversation":
        """Return this tree with more turns and preferences; what it already holds (by id, by value) is not added twice.

        All of it is copied and checked: what grows by one turn at a time is a `GrowingTree`.

        Raises:
            CorpusError: the grown tree breaks a rule.
        """
        tree = GrowingTree(self)
        for turn in turns:
            if turn.id not in tree.conversation._places:
                tree.add(turn)
        for preference in preferences:
            tree.prefer(preference)
        return tree.finish()


class GrowingTree:
    """A conversation that grows turn by turn, as in a search or a chat: a step costs the same in a tree of any size.

    ``conversation`` is the tree as it stands, for whatever reads one. Every step changes it; the tree that it started
    from, and what `finish` returns, stay as they are.
    """

    def __init__(self, start: Conversation) -> None:
        self.conversation = replace(start, turns=[*start.turns], preferences=[*start.preferences])
        self._preferences = set(start.preferences)
        self._labels = _labels(start)

    def add(self, turn: Turn) -> Turn:
        """Add a turn behind its parent, and return it.

        Raises:
            CorpusError: the turn breaks a rule; the tree is as before.
        """
        tree = self.conversation
        if problem := _turn_problem(turn, tree.turns, tree._places) or _label_problem(turn, self._labels):
            raise CorpusError(_of_turn(tree, turn, problem))
        children = tree._children.setdefault(turn.parent, [])  # before the turn is there, or it would be in it twice
        tree._places[turn.id] = len(tree.turns)
        children.append(len(tree.turns))
        tree.turns.append(turn)
        tree.__dict__.pop("trunk", None)
        return turn

    def update(
        self,
        turn_id: str,
        *,
        scores: Mapping[str, float] | None = None,
        verdicts: Iterable[Verdict] = (),
        text: str | None = None,
    ) -> Turn:
        """Change what is known of a turn, and return it as it then is.

        Scores take the place of those of the same name, and a verdict that of what the same judge said by the same
        rubric; others stay. ``text`` is the words of a planned turn, which then can have children.

        Raises:
            KeyError: there is no such turn.
            CorpusError: what is given breaks a rule, or the turn has words; the tree is as before.
        """
        tree, turn, given = self.conversation, self.conversation.turn(turn_id), list(verdicts)
        problem = _scores_problem(scores or {}) or _verdict_problem(given)
        if text is not None and not turn.planned:
            problem = "it has words already; only a planned turn is given some, so add a sibling."
        if problem:
            raise CorpusError(_of_turn(tree, turn, problem))
        own = {(verdict.judge, verdict.rubric) for verdict in given}
        said: dict[Any, Verdict] = {}
        for place, verdict in enumerate((*turn.verdicts, *given)):
            said[key if (key := (verdict.judge, verdict.rubric)) in own else place] = verdict
        tree.turns[tree._places[turn_id]] = changed = replace(
            turn,
            text=turn.text if text is None else text,
            scores={**turn.scores, **scores} if scores else turn.scores,
            verdicts=list(said.values()),
        )
        tree.__dict__.pop("trunk", None)
        return changed

    def prefer(self, preference: Preference) -> None:
        """Add a preference; one that is there already is not added twice.

        Raises:
            CorpusError: it breaks a rule; the tree is as before.
        """
        tree = self.conversation
        if preference in self._preferences:
            return
        if problem := _preference_problem(preference, tree.turns, tree._places):
            raise CorpusError(_of_preference(tree, preference, problem))
        self._preferences.add(preference)
        tree.preferences.append(preference)

    def finish(self) -> Conversation:
        """Return the tree as it stands now, checked in full; this one can grow on.

        Raises:
            CorpusError: it breaks a rule.
        """
        tree = self.conversation
        finished = replace(tree, turns=[*tree.turns], preferences=[*tree.preferences])
        check_conversation(finished)
        return finished


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
    if problem := _head_problem(conversation):
        yield Problem("tree", f"conversation {conversation.id!r} has {problem}")
        return
    labels = _labels(conversation)
    turns, places = conversation.turns, dict[str, int]()
    for place, turn in enumerate(turns):
        if problem := _turn_problem(turn, turns, places):
            yield Problem("tree", _of_turn(conversation, turn, problem), turn.id)
        if problem := _label_problem(turn, labels):
            yield Problem("label", _of_turn(conversation, turn, problem), turn.id)
        places[turn.id] = place
    for preference in conversation.preferences:
        if problem := _preference_problem(preference, turns, places):
            yield Problem("tree", _of_preference(conversation, preference, problem))


def _labels(conversation: Conversation) -> tuple[str, ...]:
    """The strategies that its turns may carry; none where there is no taxonomy, or an unknown one."""
    taxonomy = TAXONOMIES.get(conversation.taxonomy or "")
    return taxonomy.labels if taxonomy else ()


def _of_turn(conversation: Conversation, turn: Turn, problem: str) -> str:
    return f"conversation {conversation.id!r}, turn {turn.id!r}: {problem}"


def _of_preference(conversation: Conversation, preference: Preference, problem: str) -> str:
    sides = f"{preference.chosen!r} over {preference.rejected!r}"
    return f"conversation {conversation.id!r}, preference {sides}: {problem}"


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


# The rules that types alone do not say, a record at a time: each finds what is wrong, or None.


def _turn_problem(turn: Turn, turns: Sequence[Turn], places: Mapping[str, int]) -> str | None:
    """What is wrong with a turn among those before it, whose places in ``turns`` are known by id."""
    if not turn.id:
        return "the id is empty; give every turn an id that is unique in its conversation."
    if turn.id in places:
        return "the id occurs twice; turn ids are unique in a conversation."
    if turn.parent is not None and turn.parent not in places:
        return f"its parent {turn.parent!r} does not stand before it; write parents before their children."
    if turn.parent is not None and turns[places[turn.parent]].planned:
        return f"its parent {turn.parent!r} is planned (a strategy without text) and can have no children."
    if turn.planned and turn.strategy is None:
        return "it has neither text nor strategy; give a text, or a supporter turn a strategy."
    return _scores_problem(turn.scores) or _verdict_problem(turn.verdicts)


def _label_problem(turn: Turn, labels: tuple[str, ...]) -> str | None:
    if turn.speaker == "seeker" and turn.strategy is not None:
        return f"a seeker turn carries the strategy {turn.strategy!r}; only supporter turns have one."
    if turn.strategy is not None and turn.strategy not in labels:
        return (
            f"unknown strategy {turn.strategy!r}; allowed are {', '.join(labels) or 'none, as the taxonomy is null'}."
        )
    return None


def _scores_problem(scores: Mapping[str, float]) -> str | None:
    """What is wrong with scores; a search that divides by 0 must not find out when it writes."""
    for name, value in scores.items():
        if isinstance(value, bool) or not (isinstance(value, int | float) and isfinite(value)):
            return f"the score {name!r} is {value!r}; scores are finite numbers."
    return None


def _verdict_problem(verdicts: Iterable[Verdict]) -> str | None:
    for verdict in verdicts:
        if problem := _reason_problem("error type", verdict.error, verdict.reasons) or _scores_problem(verdict.scores):
            return problem
        if verdict.state != "done" and (verdict.error is not None or verdict.scores):
            return f"the {verdict.state} verdict of {verdict.judge!r} carries a result; only a done verdict has one."
    return None


def _preference_problem(preference: Preference, turns: Sequence[Turn], places: Mapping[str, int]) -> str | None:
    """What is wrong with a preference between two of ``turns``, whose places are known by id."""
    for turn_id in (preference.chosen, preference.rejected):
        if turn_id not in places:
            return f"there is no turn {turn_id!r}; a preference names two turns of its conversation."
    chosen, rejected = turns[places[preference.chosen]], turns[places[preference.rejected]]
    if chosen.id == rejected.id or chosen.parent != rejected.parent:
        return "they are not two siblings; a preference joins different turns of one parent."
    if "seeker" in (chosen.speaker, rejected.speaker):
        return "one is a seeker's; preferences are about supporter turns."
    if problem := _reason_problem("reason", preference.reason, preference.reasons):
        return problem
    if preference.aspect == "strategy":
        ok = None not in (chosen.strategy, rejected.strategy) and chosen.strategy != rejected.strategy
        return None if ok else "aspect strategy needs two different strategies."
    if chosen.planned or rejected.planned:
        return f"aspect {preference.aspect} needs two texts, and one turn is planned."
    if preference.aspect == "response" and chosen.strategy != rejected.strategy:
        return "aspect response needs the same strategy on both sides; use aspect turn."
    return None


def _reason_problem(what: str, reason: str | None, reasons: str) -> str | None:
    known = REASONS.get(reasons)
    if known is None:
        return f"unknown taxonomy of reasons {reasons!r}; known are {', '.join(REASONS)}."
    if reason is not None and reason not in known:
        return f"unknown {what} {reason!r}; allowed are {', '.join(known)}, or null."
    return None
