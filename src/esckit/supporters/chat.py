"""A chat with a supporter, as a conversation tree that grows; there is no terminal in it, so any front can show it."""

import unicodedata
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple

from esckit import __version__
from esckit.conversation import Conversation, GrowingTree, Turn
from esckit.decoding import Decoding, seed_of
from esckit.errors import ModelError, TalkError
from esckit.rendering import past_strategies
from esckit.safety import SOURCE, Stop, stop_after
from esckit.strategy import Taxonomy
from esckit.supporters.parts import OnText
from esckit.supporters.proposing import Answers, Candidate, TurnRequest

STATEMENT: Final = (
    "You are talking with a program, not with a person, and this is not therapy. It is a research tool: it can "
    "misunderstand, and say what is wrong or hurts; nobody reads along. If you or someone else may be in danger, call "
    "your local emergency number now, or turn to a person whom you trust."
)
"""What anyone must be told before the first word; a supporter's own `Supporter.about` follows it."""

MAX_CHARACTERS: Final = 20_000
"""Of one message: longer ones are a file pasted by mistake."""

ChatPast = Literal["predicted", "hidden"]
"""Whether the history shows the strategies of this chat's own replies; a chat has no gold ones."""


class Answer(NamedTuple):
    """A reply and how it came about.

    Attributes:
        turn: the new supporter turn; where the chat is stopped, it holds the fixed text and has no strategy.
        probabilities: the planner's, by strategy, the most likely first; they sum to 1. Empty where the chat is
            stopped, or a prompted model answers.
        skipped: strategies that were preferred to the reply's and under which there is no other reply.
        forced: the strategy was asked for.
        cut: the text ends at its greatest length, not where the model would end it.
    """

    turn: Turn
    probabilities: dict[str, float]
    skipped: tuple[str, ...]
    forced: bool
    cut: bool


class Branch(NamedTuple):
    """A turn as a drawing of the tree needs it: how many forks stand before it, and whether the chat stands on it."""

    turn: Turn
    forks: int
    current: bool


class Chat:
    """A conversation with one supporter. Nothing that was said is ever taken out of the tree.

    Args:
        name: of the supporter; the source of its turns.
        past: whether the history shows the strategies of earlier replies; by default `Answers.past_in_chat`.
        seed: of sampled replies; the same words in the same order then get the same replies.
        wording: how the texts are drawn.
        role: who is to speak, of a supporter with roles; None lets it choose, and `take_role` changes it.
        opened: a chat that was saved; it goes on from its last turn. Its turns keep the source that they have.

    Attributes:
        tree: what was said, as it grows; a turn's id is its number.
        at: id of the turn that the chat stands on; None before the first one.
        forced: the strategy of the next reply, where one is asked for.
        role: who speaks from now on, where that was chosen; empty: no role.

    Raises:
        ModelError: the supporter only plans.
        TalkError: what is opened is no chat, or one with other strategies.
    """

    def __init__(
        self,
        supporter: Answers,
        name: str,
        *,
        past: ChatPast | None = None,
        seed: int = 0,
        wording: Decoding = Decoding(),  # noqa: B008 - it is frozen
        opened: Conversation | None = None,
        role: str | None = None,
    ) -> None:
        if supporter.about is None:
            raise ModelError(
                f"the supporter {name} only plans and cannot talk: make one that answers, "
                "such as by esckit train planner CORPUS FOLDER --replies."
            )
        self.supporter = supporter
        self.name = name
        self.past: ChatPast = past or supporter.past_in_chat
        self.seed = seed
        self.wording = wording
        about: dict[str, Any] = {"corpus": "chat", "supporter": name, "replies": supporter.about}
        if opened is not None:
            _check_chat(opened, supporter.taxonomy.name)
        about |= {"past_strategies": self.past, "seed": seed, "esckit": __version__}
        chat_id = f"chat-{uuid.uuid4().hex[:12]}"
        fresh = Conversation(chat_id, [], taxonomy=supporter.taxonomy.name, provenance=about)
        self.tree = GrowingTree(opened or fresh)
        self.at: str | None = opened.turns[-1].id if opened else None
        self.forced: str | None = None
        self.role: str | None = None
        if role is not None:
            self.take_role(role)

    @property
    def conversation(self) -> Conversation:
        """The tree as it stands."""
        return self.tree.conversation

    @property
    def stopped(self) -> Stop | None:
        """What has stopped the chat where it stands, by what was said on the path there; then no model speaks."""
        path = self.conversation.path(self.at)
        said = [turn for turn in path if turn.speaker == "seeker"]
        place = {turn.id: number for number, turn in enumerate(said)}
        recorded = {place[str(turn.parent)]: turn.extra["danger"] for turn in path if _is_fixed(turn)}
        return stop_after([turn.text or "" for turn in said], recorded)

    def say(self, text: str) -> Turn:
        """Add what the seeker says; control characters, which no one writes, are left out.

        Raises:
            TalkError: there are no words, or far too many.
        """
        words = printable(text).strip()
        if not words:
            raise TalkError("there are no words in that: write something, or /help.")
        if len(words) > MAX_CHARACTERS:
            raise TalkError(f"that has {len(words):,} characters, more than {MAX_CHARACTERS:,}: say it in fewer.")
        return self._add(Turn(self._next_id(), self.at, "seeker", words))

    def reply(self, on_text: OnText = lambda _: None) -> Answer:
        """Answer what the seeker said last; where that has replies, with another one, a sibling of theirs.

        The strategy is the one asked for, else the most likely one that no sibling has, else the most likely one; where
        there is no other reply under it, the next in this order. A prompted model ranks none and chooses one. The chat
        then stands on the new turn; where this is interrupted or fails, it stands where it stood. Where the chat is
        stopped no model is asked, whatever strategy is asked for: the answer is the fixed text, and a second one to the
        same words is the first one again. ``on_text`` is told the reply's text piece by piece while it is written.

        Raises:
            TalkError: nothing has been said, or there is no other reply.
            CorpusError: what was said does not fit the model.
        """
        parent = self._answered()
        if stop := self.stopped:
            return self._answer_stopped(parent, stop, on_text)
        siblings = [turn for turn in self.conversation.children(parent) if turn.speaker == "supporter"]
        probabilities = self._plan(parent)
        used = {turn.strategy for turn in siblings}
        ranked = sorted(probabilities, key=lambda label: (label != self.forced, label in used))
        order: list[str | None] = [*ranked] or [self.forced]
        said = frozenset(turn.text or "" for turn in siblings)
        skipped: list[str] = []
        for strategy in order:
            if found := self._write(parent, strategy, said, on_text):
                break
            skipped += [strategy] if strategy else []
        else:
            raise TalkError("the supporter has no other reply here: go on from another turn (/tree, /go N).")
        forced, self.forced = self.forced is not None, None
        extra = {**found[0].extra, "forced": forced}
        reply = replace(found[0], strategy_probabilities=probabilities or None, extra=extra)
        turn = self._add(reply.turn(self._next_id(), parent, self.name))
        return Answer(turn, probabilities, tuple(skipped), forced, reply.finish == "length")

    def force(self, name: str) -> str:
        """Ask for the next reply's strategy by label, abbreviation or unambiguous beginning; return its label.

        Raises:
            TalkError: no strategy is named, or several are, or the supporter has no replies under it.
        """
        strategy = find_strategy(self.supporter.taxonomy, name)
        if not self._takes_strategies:
            raise TalkError("this supporter chooses each strategy itself: none can be asked for.")
        if not self._can(strategy):
            raise TalkError(f"this supporter has no replies under {strategy}: choose another strategy.")
        self.forced = strategy
        return strategy

    def take_role(self, name: str) -> str:
        """Choose who speaks from now on, by a role's name; ``none`` for no role. Return its title.

        Raises:
            TalkError: the supporter has no roles, or not this one.
        """
        roles = self.supporter.roles
        if not roles:
            raise TalkError("this supporter has no roles: only one of kind empath has.")
        if name != "none" and name not in roles:
            raise TalkError(f"there is no role {name[:40]!r}: choose one of {', '.join(roles)}, or none.")
        self.role = "" if name == "none" else name
        return roles.get(name, "no role")

    def go(self, turn_id: str) -> None:
        """Go on from another turn of the tree; 0 is before the first one.

        Raises:
            TalkError: there is no such turn.
        """
        if turn_id != "0" and all(turn.id != turn_id for turn in self.conversation.turns):
            raise TalkError(f"there is no turn {turn_id[:40]!r}: /tree shows the numbers.")
        self.at = None if turn_id == "0" else turn_id

    def branches(self) -> Iterator[Branch]:
        """Every turn, parents before children and each branch whole before the next."""
        current = {turn.id for turn in self.conversation.path(self.at)}
        waiting = [(turn, 0) for turn in reversed(self.conversation.children(None))]
        first_fork = len(waiting) > 1
        while waiting:  # no recursion: a chat may be longer than Python's stack
            turn, forks = waiting.pop()
            yield Branch(turn, forks + first_fork, turn.id in current)
            children = self.conversation.children(turn.id)
            waiting += [(child, forks + (len(children) > 1)) for child in reversed(children)]

    def _answer_stopped(self, parent: str, stop: Stop, on_text: OnText) -> Answer:
        self.forced = None  # not carried over to whatever is said after a danger
        on_text(stop.text)
        there = (turn for turn in self.conversation.children(parent) if _is_fixed(turn))
        turn = next(there, None) or self._add(
            Turn(self._next_id(), parent, "supporter", stop.text, source=SOURCE, extra={"danger": stop.danger})
        )
        self.at = turn.id
        return Answer(turn, {}, (), forced=False, cut=False)

    def _seen(self) -> Conversation:
        """The conversation as models are shown it: with a short line in place of each fixed text."""
        if not any(map(_is_fixed, self.conversation.turns)):
            return self.conversation
        turns = [
            replace(turn, text=Stop(turn.extra["danger"], turn.text or "").seen) if _is_fixed(turn) else turn
            for turn in self.conversation.turns
        ]
        return replace(self.conversation, turns=turns)

    def _next_id(self) -> str:
        return str(len(self.conversation.turns) + 1)

    def _add(self, turn: Turn) -> Turn:
        self.at = self.tree.add(turn).id
        return turn

    def _answered(self) -> str:
        """The seeker's turn that a reply answers: the one that the chat stands on, or the one before it."""
        if self.at is None:
            raise TalkError("nothing has been said yet that could be answered: say something first.")
        turn = self.conversation.turn(self.at)
        return turn.id if turn.speaker == "seeker" else str(turn.parent)

    def _request(self, parent: str) -> TurnRequest:
        seed = seed_of(self.seed, "chat", len(self.conversation.turns))
        shown = past_strategies(self.conversation, "hidden" if self.past == "hidden" else "gold")
        return TurnRequest(self._seen(), parent, seed, shown, wording=self.wording, role=self.role)

    def _plan(self, parent: str) -> dict[str, float]:
        """The planner's probabilities by strategy, the most likely first; nothing of a prompted model."""
        if not self._takes_strategies:
            return {}
        (planned,) = self.supporter.propose([replace(self._request(parent), wording=None)])[0]
        found = planned.strategy_probabilities or {}
        return dict(sorted(found.items(), key=lambda pair: -pair[1]))

    @property
    def _takes_strategies(self) -> bool:
        """Whether a strategy can be chosen before it is worded."""
        return self.supporter.strategies is None or bool(self.supporter.strategies)

    def _can(self, strategy: str | None) -> bool:
        return self.supporter.strategies is None or strategy is None or strategy in self.supporter.strategies

    def _write(self, parent: str, strategy: str | None, said: frozenset[str], on_text: OnText) -> list[Candidate]:
        if not self._can(strategy):
            return []
        return self.supporter.propose([replace(self._request(parent), strategy=strategy, unlike=said)], on_text)[0]


def _is_fixed(turn: Turn) -> bool:
    """True for a turn that holds the fixed text; a supporter may be named as its source is."""
    return turn.speaker == "supporter" and turn.source == SOURCE and "danger" in turn.extra


def _check_chat(conversation: Conversation, taxonomy: str) -> None:
    """Refuse what this module did not write: a turn's id is its number there."""
    numbers = [str(place) for place in range(1, len(conversation.turns) + 1)]
    if not numbers or [turn.id for turn in conversation.turns] != numbers:
        raise TalkError(f"{conversation.id!r} is no saved chat: open a file that a chat has written.")
    if conversation.taxonomy != taxonomy:
        raise TalkError(
            f"the chat was held with strategies of {conversation.taxonomy} and this supporter knows {taxonomy}: "
            "open it with a supporter of the same strategies."
        )


def find_strategy(taxonomy: Taxonomy, name: str) -> str:
    """The label that a name means: the label itself, its abbreviation, or the beginning of one label alone.

    Raises:
        TalkError: it means none, or several.
    """
    wanted = name.strip().casefold()
    short = {abbreviation.casefold(): label for label, abbreviation in taxonomy.abbreviations.items()}
    if exact := taxonomy.match(wanted) or short.get(wanted):
        return exact
    found = [label for label in taxonomy.labels if wanted and label.casefold().startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise TalkError(f"{wanted!r} may mean {' or '.join(found)}: write more of it.")
    raise TalkError(f"there is no strategy {wanted[:40]!r}: choose one of {', '.join(taxonomy.labels)}.")


def printable(text: str) -> str:
    """A text without control characters but line ends and tabs, and with U+FFFD for half of a surrogate pair."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return "".join(c for c in whole if c in "\n\t" or unicodedata.category(c) != "Cc")
