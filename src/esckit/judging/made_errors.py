"""Faulty replies made by rule from what esckit's authors wrote: the starter corpus's dialogues with faults put in."""

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from itertools import cycle

from esckit.conversation import PSYCHOLOGICAL_ERRORS, Conversation, Turn
from esckit.corpora.error_labels import LabelledReply
from esckit.corpora.starter import read_starter
from esckit.judging.cues import families, find, normal, stock_sentences
from esckit.strategy import ESCONV

__all__ = ["made_examples"]

_ADVICE = ("Providing Suggestions", "Information")


@cache
def made_examples() -> list[LabelledReply]:
    """The starter corpus's replies, which count as clean, and beside each of them one faulty reply.

    At every supporter turn one fault takes its turn: the reply under another strategy's label or advice of the same
    dialogue brought forward (strategy_mismatch), two stock sentences (template_response), a written reply of
    ``made_errors.yaml`` (the other types). A written early_emotion_shift or emotion_misread stands only where the
    seeker has spoken of trouble.
    """
    starter = read_starter()
    written = _written()
    lists = {error: cycle(replies) for error, replies in written.items()}
    stock, labels = cycle(stock_sentences()), cycle(ESCONV.labels)
    faults = cycle(error for error in PSYCHOLOGICAL_ERRORS if error != "other")
    made: list[LabelledReply] = []
    for number, (conversation, turn) in enumerate(_supporter_turns((*starter.train, *starter.valid, *starter.test))):
        context = tuple(conversation.path(turn.parent))
        made.append(LabelledReply(context, turn.strategy, turn.text or "", None, conversation.id))
        error = "other" if number % 20 == 0 else next(faults)
        if error in ("early_emotion_shift", "emotion_misread") and not _in_trouble(context):
            error = "lack_of_empathy"
        strategy = turn.strategy
        if error == "template_response":
            response = f"{next(stock)} {next(stock)}"
        elif error == "strategy_mismatch":
            strategy, response = _mismatch(conversation, turn, next(labels))
        else:
            response = next(lists[error])
        made.append(LabelledReply(context, strategy, response, error, conversation.id))
    return made


def _written() -> dict[str, list[str]]:
    import yaml

    written: dict[str, list[str]] = yaml.safe_load(
        (files("esckit.judging") / "made_errors.yaml").read_text(encoding="utf-8")
    )
    return written


def _supporter_turns(conversations: Sequence[Conversation]) -> Iterator[tuple[Conversation, Turn]]:
    for conversation in conversations:
        for turn in conversation.trunk:
            if turn.speaker == "supporter" and turn.text:
                yield conversation, turn


def _in_trouble(context: Sequence[Turn]) -> bool:
    said = normal(" ".join(turn.text or "" for turn in context if turn.speaker == "seeker"))
    return any(find(family, said) for family in families() if family != "joy")


def _mismatch(conversation: Conversation, turn: Turn, other: str) -> tuple[str | None, str]:
    """Advice that comes later in the dialogue, or where none does, the same words under another label."""
    after = conversation.trunk[conversation.trunk.index(turn) + 1 :]
    later = [reply for reply in after if reply.strategy in _ADVICE and reply.text]
    if later and turn.strategy not in _ADVICE:
        return later[0].strategy, later[0].text or ""
    label = other if other != turn.strategy else ESCONV.labels[(ESCONV.labels.index(other) + 1) % len(ESCONV.labels)]
    return label, turn.text or ""
