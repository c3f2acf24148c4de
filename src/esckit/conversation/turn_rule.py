"""The turn rules: which utterances are one turn, and how a path of turns becomes chat messages.

``decoupled-esc``: seeker turns in a row are one user message, every supporter turn is one assistant message, a blank
user message (one space) stands between two supporter turns, and a user "Hi" before a supporter who opens ("你好" in
Chinese). These fillers exist in messages only, never in the tree.

``merged`` changes the tree before that: utterances of one speaker in a row become one turn (`merge_turns`). Fewer
replies remain, longer ones, and some lose their strategy: figures under the two rules do not compare.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple

from esckit.conversation.records import Turn
from esckit.conversation.tree import Conversation
from esckit.errors import CorpusError

TurnRule = Literal["decoupled-esc", "merged"]
MergedLabel = Literal["first", "last", "longest"]

OPENING_FILLERS: Final[Mapping[str, str]] = {"en": "Hi", "zh": "你好"}
"""By language; English in any other."""

BLANK_FILLER = " "


class Message(NamedTuple):
    """One chat message; ``role`` is user or assistant; a filler is a user message that nobody wrote."""

    role: str
    content: str
    filler: bool = False


def reply_text(strategy: str | None, text: str) -> str:
    """``[Strategy] text``, or the text alone where no strategy is shown."""
    return f"[{strategy}] {text.strip()}" if strategy else text.strip()


def to_messages(path: Iterable[Turn], shown: Mapping[str, str], language: str = "en") -> list[Message]:
    """Render a path by the turn rule ``decoupled-esc``; it ends with a user message, so that a reply can follow.

    ``shown`` are the strategies by turn id of the past supporter turns that show theirs; the language is that of the
    filler before a supporter who opens.
    """
    messages: list[Message] = []
    pending: list[str] = []
    for turn in path:
        text = (turn.text or "").strip()
        if turn.speaker == "seeker":
            pending.append(text)
        else:
            messages.append(_user_message(pending, language if not messages else None))
            messages.append(Message("assistant", reply_text(shown.get(turn.id), text)))
            pending = []
    return [*messages, _user_message(pending, language if not messages else None)]


def dialogue_messages(conversation: Conversation) -> list[Message]:
    """Render the trunk with all its strategies, up to the supporter's last turn: the form in which DecoupledESC trains.

    Empty where no supporter speaks.
    """
    trunk = [turn for turn in conversation.trunk if not turn.planned]
    return to_messages(trunk, {turn.id: turn.strategy for turn in trunk if turn.strategy}, conversation.language)[:-1]


def _user_message(pending: list[str], opens: str | None) -> Message:
    """What the seeker said, or a filler; ``opens`` is the language where it is the first message."""
    if pending:
        return Message("user", "\n".join(pending))
    opening = OPENING_FILLERS.get(opens, OPENING_FILLERS["en"]) if opens else BLANK_FILLER
    return Message("user", opening, filler=True)


_KEPT: Final[Mapping[MergedLabel, Callable[[Sequence[Turn]], Turn]]] = {
    "first": lambda turns: turns[0],
    "last": lambda turns: turns[-1],
    "longest": lambda turns: max(turns, key=lambda turn: len(turn.text or "")),
}


def merge_turns(conversation: Conversation, label: MergedLabel = "first") -> Conversation:
    """Join the utterances of one speaker in a row, by a line end, into one turn: turn rule ``merged``.

    Args:
        conversation: a plain dialogue; it is left as it is.
        label: whose strategy counts among those that have one: the first's, the last's or the longest's in characters
            (of equally long ones the first's).

    Returns:
        The dialogue with ``provenance["turn_rule"]``. A joined turn has the first one's id, and all of them, with text,
        strategy and ``extra``, under ``extra["merged"]``.

    Raises:
        CorpusError: it has branches, preferences, planned turns, scores or verdicts, which belong to single utterances.
    """
    plain = len(conversation.trunk) == len(conversation.turns) and not conversation.preferences
    if not plain or any(turn.planned or turn.scores or turn.verdicts for turn in conversation.turns):
        raise CorpusError(
            f"conversation {conversation.id!r} has branches, preferences, scores or verdicts, and its turns cannot be "
            "merged: merge the dialogues before anything is added to them."
        )
    turns: list[Turn] = []
    for _, run in groupby(conversation.trunk, key=lambda turn: turn.speaker):
        turns.append(replace(_merged(list(run), label), parent=turns[-1].id if turns else None))
    provenance = {**conversation.provenance, "turn_rule": f"merged, {label} label"}
    return replace(conversation, turns=turns, provenance=provenance)


def _merged(run: Sequence[Turn], label: MergedLabel) -> Turn:
    if len(run) == 1:
        return run[0]
    labelled = [turn for turn in run if turn.strategy]
    text = "\n".join((turn.text or "").strip() for turn in run)
    strategy = _KEPT[label](labelled).strategy if labelled else None
    return replace(run[0], text=text, strategy=strategy, extra={"merged": [_of_run(turn) for turn in run]})


def _of_run(turn: Turn) -> dict[str, Any]:
    fields = {"id": turn.id, "text": turn.text, "strategy": turn.strategy, "extra": turn.extra}
    return {name: value for name, value in fields.items() if value not in (None, {})}
