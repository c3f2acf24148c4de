"""Replies and preferences as rows for other trainers (TRL, LLaMA-Factory, ms-swift), for measures as predictions.

A prompt is what a part of a layout reads: its system text and the history by `conversation.turn_rule`. Nothing is cut:
a trainer's own limit decides what it reads of a long history. No torch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from esckit.conversation import Conversation, Turn
from esckit.conversation.turn_rule import reply_text, to_messages
from esckit.errors import CorpusError
from esckit.measures import Prediction, add_context
from esckit.mining.pairs import ASPECTS, Pair
from esckit.rendering import Layout, Part, kept_turns, past_strategies, supporter_turns
from esckit.rendering.layouts import line_of, reads_lines, strategy_text, system_text, text_alone
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


class Exported(NamedTuple):
    """A reply to learn, whatever trainer reads it; contents are plain text.

    Attributes:
        prompt: ``{"role", "content"}`` each: a system message, then user and assistant in turns, a user's last.
        reply: what the assistant says.
        rejected: what it should rather not say, in a pair.
        wanted: whether the reply is wanted, where replies are judged one by one.
    """

    prompt: list[dict[str, str]]
    reply: str
    rejected: str | None = None
    wanted: bool | None = None


def export_replies(
    conversations: Iterable[Conversation], part: Part, past: Past, layout: Layout = "shared-prefix"
) -> Iterator[Exported]:
    """Every labelled supporter turn of the trunks, of a searched tree each turn that was kept, as a part says it (SFT).

    Raises:
        CorpusError: a conversation has no taxonomy, whose labels the system text names.
    """
    for conversation in conversations:
        searched = "search" in conversation.provenance
        for turn in kept_turns(conversation) if searched else supporter_turns(conversation):
            prompt = _prompt(conversation, turn, part, past, layout)
            yield Exported(prompt, _reply(turn, part, layout, label_alone=part == "planner"))


def export_pairs(pairs: Iterable[Pair], part: Part, past: Past, layout: Layout = "shared-prefix") -> Iterator[Exported]:
    """Pairs of one part (DPO). Arguments and errors as in `export_replies`."""
    for pair in pairs:
        chosen, rejected = (_side(pair, turn, part, layout) for turn in (pair.chosen, pair.rejected))
        yield Exported(_prompt(pair.conversation, pair.chosen, part, past, layout), chosen, rejected)


def export_judged(
    pairs: Iterable[Pair], part: Part, past: Past, layout: Layout = "shared-prefix"
) -> Iterator[Exported]:
    """Each reply of the pairs once, wanted or not (KTO); one that is chosen here and rejected there, twice.

    Arguments and errors as in `export_replies`.
    """
    seen = set()
    for pair in pairs:
        for turn, wanted in ((pair.chosen, True), (pair.rejected, False)):
            reply = _side(pair, turn, part, layout)
            # In the paper's layout a generator's reply stands under its strategy in the system text.
            key = (pair.conversation.id, turn.parent, turn.strategy if part == "generator" else None, reply, wanted)
            if key not in seen:
                seen.add(key)
                yield Exported(_prompt(pair.conversation, turn, part, past, layout), reply, wanted=wanted)


def _trl(row: Exported) -> Row:
    reply = [_message("assistant", row.reply)]
    if row.rejected is not None:
        return {"prompt": row.prompt, "chosen": reply, "rejected": [_message("assistant", row.rejected)]}
    judged = {} if row.wanted is None else {"label": row.wanted}
    return {"prompt": row.prompt, "completion": reply, **judged}


def _llamafactory(row: Exported) -> Row:
    names = {"user": "human", "assistant": "gpt"}
    system, *said = row.prompt
    spoken = [{"from": names[each["role"]], "value": each["content"]} for each in said]
    reply = {"from": "gpt", "value": row.reply}
    if row.rejected is not None:
        pair = {"chosen": reply, "rejected": {"from": "gpt", "value": row.rejected}}
        return {"system": system["content"], "conversations": spoken, **pair}
    judged = {} if row.wanted is None else {"kto_tag": row.wanted}
    return {"system": system["content"], "conversations": [*spoken, reply], **judged}


def _ms_swift(row: Exported) -> Row:
    messages = [*row.prompt, _message("assistant", row.reply)]
    pair = {} if row.rejected is None else {"rejected_response": row.rejected}
    return {"messages": messages, **pair, **({} if row.wanted is None else {"label": row.wanted})}


TRAINERS: Final[Mapping[str, Callable[[Exported], Row]]] = {
    "trl": _trl,
    "llamafactory": _llamafactory,
    "ms-swift": _ms_swift,
}
"""How each trainer has its rows; TRL's conversational forms, LLaMA-Factory's ShareGPT forms, ms-swift's messages."""


def dataset_info(file: str, row: Row) -> Row:
    """The entry of LLaMA-Factory's ``dataset_info.json`` for a file of such rows."""
    columns = {"messages": "conversations", **{name: name for name in row if name != "conversations"}}
    ranking = {"ranking": True} if "rejected" in row else {}
    return {"esckit": {"file_name": file, "formatting": "sharegpt", **ranking, "columns": columns}}


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


def _prompt(conversation: Conversation, turn: Turn, part: Part, past: Past, layout: Layout) -> list[dict[str, str]]:
    """What a part of a layout reads before a turn."""
    if conversation.taxonomy is None:
        raise CorpusError(
            f"conversation {conversation.id!r} has no taxonomy, whose strategies the system text names: give it one."
        )
    language = conversation.language
    system = system_text(layout, part, TAXONOMIES[conversation.taxonomy], str(turn.strategy), language)
    history = to_messages(conversation.path(turn.parent), past_strategies(conversation, past), language)
    if reads_lines(layout, part):
        return [_message("system", system), _message("user", "\n".join(line_of(each, language) for each in history))]
    return [_message("system", system), *(_message(message.role, message.content) for message in history)]


def _side(pair: Pair, turn: Turn, part: Part, layout: Layout) -> str:
    return _reply(turn, part, layout, label_alone=pair.preference.aspect == "strategy")


def _reply(turn: Turn, part: Part, layout: Layout, *, label_alone: bool) -> str:
    """What a part of a layout says, the label that the generator is given included where it stands in the reply."""
    if label_alone:
        return strategy_text(layout, part, str(turn.strategy))
    return reply_text(None if text_alone(layout, part) else turn.strategy, turn.text or "")


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
