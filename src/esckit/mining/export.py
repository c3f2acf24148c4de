"""Preferences as JSON Lines: for other trainers in TRL's conversational forms, for measures as predictions. No torch.

TRL's prompt is the system text of `rendering` and the history by `conversation.turn_rule`; a reply is
``[Strategy] text``. Nothing is cut: a trainer's own limit decides what it reads of a long history.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

from esckit.conversation import Conversation
from esckit.conversation.turn_rule import to_messages
from esckit.errors import CorpusError
from esckit.measures import Prediction, add_context
from esckit.mining.pairs import ASPECTS, Pair
from esckit.prompts import load_prompt
from esckit.rendering import Part, past_strategies
from esckit.strategy import TAXONOMIES

Row = dict[str, Any]
Past = Literal["gold", "hidden"]

DEFAULT_PAST: Final[dict[Part, Past]] = {"planner": "hidden", "generator": "hidden", "coupled": "gold"}
"""What each part's history shows in the paper."""


def guess_part(conversations: Iterable[Conversation]) -> Part:
    """The part whose pairs these trees hold; replies under one strategy alone are the generator's.

    Raises:
        CorpusError: there is no preference, or there are those of several parts.
    """
    held = {preference.aspect for conversation in conversations for preference in conversation.preferences}
    if not held:
        raise CorpusError("there is no preference in these trees: mine some first.")
    parts: tuple[Part, ...] = ("planner", "generator", "coupled")
    fitting = [part for part in parts if held <= set(ASPECTS[part])]
    if not fitting:
        raise CorpusError(f"these trees hold preferences of several parts ({', '.join(sorted(held))}): name the part.")
    return fitting[0]


def to_trl(pairs: Iterable[Pair], past: Past) -> Iterator[Row]:
    """Pairs of one part as ``{"prompt", "chosen", "rejected"}``, lists of messages: what TRL's DPOTrainer takes.

    Raises:
        CorpusError: a conversation has no taxonomy, whose labels the system text names.
    """
    for pair in pairs:
        chosen, rejected = ([_message("assistant", text)] for text in pair.texts)
        yield {"prompt": _prompt(pair, past), "chosen": chosen, "rejected": rejected}


def to_kto(pairs: Sequence[Pair], past: Past) -> Iterator[Row]:
    """Each reply of the pairs once, as ``{"prompt", "completion", "label"}``: what TRL's KTOTrainer takes.

    A reply that is chosen over several others stands there once; one that is chosen here and rejected there, twice.
    Arguments and errors as in `to_trl`.
    """
    seen = set()
    for pair in pairs:
        parent = pair.conversation.turn(pair.preference.chosen).parent
        for text, label in zip(pair.texts, (True, False), strict=True):
            key = (pair.conversation.id, parent, text, label)
            if key not in seen:
                seen.add(key)
                yield {"prompt": _prompt(pair, past), "completion": [_message("assistant", text)], "label": label}


def to_predictions(pairs: Iterable[Pair]) -> tuple[list[Prediction], list[Prediction]]:
    """The replies of both sides, chosen and rejected, as two systems' predictions of the same turns.

    So that all that measures predictions measures pairs, a judge for one (DecoupledESC, table 3). Of several pairs in
    one context the first stands for it. Gold is the turn that was recorded there, often the chosen one.

    Raises:
        CorpusError: a side has a strategy and no words, as in the pairs of a planner that nobody worded.
    """
    sides: tuple[list[Prediction], list[Prediction]] = ([], [])
    trees, seen = {}, set()
    for pair in pairs:
        conversation, parent = pair.conversation, pair.chosen.parent
        if (conversation.id, parent) in seen:
            continue
        seen.add((conversation.id, parent))
        trees[conversation.id] = conversation
        gold = conversation.children(parent)[0]
        for side, turn in zip(sides, (pair.chosen, pair.rejected), strict=True):
            if turn.text is None:
                raise CorpusError(
                    f"conversation {conversation.id!r}, turn {turn.id!r} has a strategy and no reply: take pairs of "
                    "the generator or the coupled model, or judged pairs."
                )
            side.append(
                Prediction(
                    conversation_id=conversation.id,
                    turn_id=gold.id,
                    gold_strategy=gold.strategy,
                    predicted_strategy=turn.strategy,
                    gold_text=gold.text or "",
                    predicted_text=turn.text,
                )
            )
    talks = list(trees.values())
    return add_context(sides[0], talks), add_context(sides[1], talks)


def _prompt(pair: Pair, past: Past) -> list[dict[str, str]]:
    conversation = pair.conversation
    if conversation.taxonomy is None:
        raise CorpusError(
            f"conversation {conversation.id!r} has no taxonomy, whose strategies the system text names: give it one."
        )
    system = load_prompt("support", "system", strategies=", ".join(TAXONOMIES[conversation.taxonomy].labels))
    path = conversation.path(conversation.turn(pair.preference.chosen).parent)
    history = to_messages(path, past_strategies(conversation, past))
    return [_message("system", system), *(_message(message.role, message.content) for message in history)]


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
