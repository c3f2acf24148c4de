"""How files write a dialogue down: who speaks, and what. One table, whatever the corpus is called.

A form is known by its fields alone, never by names or licences: that is the corpus's (`dialogues.SOURCES`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from esckit.corpora.speakers import other_name, read_mark, role_of
from esckit.files import decode_json


class Said(NamedTuple):
    """One utterance as the file has it: the speaker's name, the text or what stands in its place, all other fields."""

    who: Any
    text: Any
    rest: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Form:
    """One way of writing a dialogue.

    Attributes:
        shows: whether a record has this form.
        said: a record's utterances.
        own: the record's fields that the utterances are made of; all others belong to the dialogue.
        chat: it is made for training chat models: strategies stand in the text, blank user messages are fillers.
    """

    shows: Callable[[Any], bool]
    said: Callable[[Any], Iterator[Said]]
    own: tuple[str, ...] = ()
    chat: bool = False


def _entries(item: Any, keys: tuple[str, ...]) -> Any:
    """The first list that stands under one of the keys; without keys the record itself."""
    if not keys:
        return item
    return (
        next((item[key] for key in keys if isinstance(item.get(key), list)), None) if isinstance(item, dict) else None
    )


def _shows_keyed(keys: tuple[str, ...], who: str, text: str, item: Any) -> bool:
    entries = _entries(item, keys)
    return isinstance(entries, list) and any(isinstance(each, dict) and {who, text} <= each.keys() for each in entries)


def _said_keyed(keys: tuple[str, ...], who: str, text: str, item: Any) -> Iterator[Said]:
    for each in _entries(item, keys) or []:
        if isinstance(each, dict):
            yield Said(each.get(who), each.get(text), {k: v for k, v in each.items() if k not in (who, text)})
        else:
            yield Said(None, each)


def _keyed(*keys: str, who: str, text: str, chat: bool = False) -> Form:
    """A list of objects, under one of the keys or as the record itself, with the speaker and the text each."""
    return Form(partial(_shows_keyed, keys, who, text), partial(_said_keyed, keys, who, text), keys, chat)


def _shows_list(item: Any) -> bool:
    return isinstance(item, list) and any(_is_message(each) for each in item)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "content" in value and role_of(value.get("role")) is not None


def _is_pair(value: Any) -> bool:
    two = isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)
    return two and role_of(value[0]) is not None


def _is_marked(value: Any) -> bool:
    return isinstance(value, str) and read_mark(value) is not None


def is_utterance(value: Any) -> bool:
    """Whether a value can only be one utterance, so that a list of them is one dialogue."""
    return _is_message(value) or _is_pair(value) or _is_marked(value)


def _said_in_pairs(item: Any) -> Iterator[Said]:
    for each in item:
        yield Said(*each) if isinstance(each, list) and len(each) == 2 else Said(None, each)


def _said_marked(item: Any) -> Iterator[Said]:
    other = other_name(item)
    for line in item:
        marked = read_mark(line, other) if isinstance(line, str) else None
        yield Said(marked.role, marked.text, {"mark": marked.mark}) if marked else Said(None, line)


def _shows_emollm(item: Any) -> bool:
    return _shows_keyed(("conversation",), "input", "output", item)


def _said_emollm(item: Any) -> Iterator[Said]:
    for each in item["conversation"]:
        if not isinstance(each, dict):
            yield Said(None, each)
            continue
        if "system" in each:
            yield Said("system", each["system"])
        yield Said("user", each.get("input"))
        yield Said("assistant", each.get("output"), {k: v for k, v in each.items() if k not in _EMOLLM_OWN})


_EMOLLM_OWN: Final = ("system", "input", "output")
_ALPACA_OWN: Final = ("instruction", "input", "output", "history", "system")


def _shows_alpaca(item: Any) -> bool:
    return isinstance(item, dict) and {"instruction", "output"} <= item.keys() and isinstance(item.get("history"), list)


def _said_alpaca(item: Any) -> Iterator[Said]:
    """LLaMA-Factory's rows: earlier exchanges under ``history``, the last one under ``instruction`` and ``output``."""
    if item.get("system"):
        yield Said("system", item["system"])
    for each in item["history"]:
        pair = isinstance(each, list | tuple) and len(each) == 2
        yield from (Said("user", each[0]), Said("assistant", each[1])) if pair else (Said(None, each),)
    asked = [item[key] for key in ("instruction", "input") if item.get(key)]
    yield Said("user", "\n".join(asked) if all(isinstance(each, str) for each in asked) else asked)
    yield Said("assistant", item["output"])


def _shows_escot(item: Any) -> bool:
    data = item.get("original_data") if isinstance(item, dict) else None
    return isinstance(data, dict) and "response" in data and _shows_keyed(("dialog",), "speaker", "content", data)


def _said_escot(item: Any) -> Iterator[Said]:
    """The talk so far, and the reply that the chain of thought is about, with its strategy."""
    data = item["original_data"]
    yield from _said_keyed(("dialog",), "speaker", "content", data)
    rest = {key: value for key, value in data.items() if key not in ("dialog", "response")}
    yield Said("supporter", data["response"], rest)


def _shows_psyqa(item: Any) -> bool:
    answers = item.get("answers") if isinstance(item, dict) and "question" in item else None
    return isinstance(answers, list) and any(isinstance(each, dict) and "answer_text" in each for each in answers)


def _said_psyqa(item: Any) -> Iterator[Said]:
    """The question and its description, then each answer; all answers are to the question (`dialogues`)."""
    asked = [item[key] for key in ("question", "description") if item.get(key)]
    yield Said("seeker", "\n".join(asked) if asked and all(isinstance(each, str) for each in asked) else None)
    for each in item["answers"]:
        answer = each if isinstance(each, dict) else {}
        rest = {key: value for key, value in answer.items() if key != "answer_text"}
        yield Said("supporter", answer.get("answer_text"), rest)


_CHATS: Final = ("messages", "conversations", "conversation")

FORMS: Final[Mapping[str, Form]] = {
    "dialog": _keyed("dialog", who="speaker", text="content"),
    "rows": _keyed("dialog", who="speaker", text="text"),
    "messages": _keyed(*_CHATS, who="role", text="content", chat=True),
    "sharegpt": _keyed(*_CHATS, who="from", text="value", chat=True),
    "list": Form(_shows_list, partial(_said_keyed, (), "role", "content"), chat=True),
    "pairs": Form(lambda item: isinstance(item, list) and any(map(_is_pair, item)), _said_in_pairs),
    "marked": Form(lambda item: isinstance(item, list) and any(map(_is_marked, item)), _said_marked),
    "emollm": Form(_shows_emollm, _said_emollm, ("conversation",), chat=True),
    "alpaca": Form(_shows_alpaca, _said_alpaca, _ALPACA_OWN, chat=True),
    "escot": Form(_shows_escot, _said_escot, ("original_data",)),
    "psyqa": Form(_shows_psyqa, _said_psyqa, ("question", "description", "answers")),
}


def form_of(item: Any) -> str | None:
    """The first form of the table that a record has; None where it has none."""
    return next((name for name, form in FORMS.items() if form.shows(item)), None)


def unwrapped(item: Any) -> Any:
    """A record whose dialogue stands as JSON in a text, or in one of its texts (rows of the Hub), taken out of it."""
    if isinstance(item, str):
        return item if (inner := _json_in(item)) is None else inner
    if not isinstance(item, dict):
        return item
    for key in ("text", "dialog", *_CHATS):
        if (inner := _json_in(item.get(key))) is not None:
            rest = {name: each for name, each in item.items() if name != key}
            return {**rest, **inner} if isinstance(inner, dict) else {**rest, key: inner}
    return item


def _json_in(value: Any) -> dict[str, Any] | list[Any] | None:
    """The object or the list that a text holds; None where it holds none."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return None
    try:
        inner: dict[str, Any] | list[Any] = decode_json(value)
    except ValueError:  # words that begin with a bracket
        return None
    return inner


def told_fields(value: Any) -> str:
    """What a record has, for a message: the names of its fields, and of those of the objects in its lists."""
    if isinstance(value, dict):
        return ", ".join(map(_told_field, list(value.items())[:12])) or "no fields"
    if isinstance(value, list):
        return f"lists of {told_fields(value[0])}" if value else "empty lists"
    return "texts without a speaker's mark" if isinstance(value, str) else f"values such as {value!r:.40}"


def _told_field(field: tuple[str, Any]) -> str:
    name, value = field
    inner = value[0] if isinstance(value, list) and value else value
    return f"{name} ({', '.join(list(inner)[:8])})" if isinstance(inner, dict) and inner else name
