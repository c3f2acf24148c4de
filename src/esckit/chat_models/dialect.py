"""How a server wants to be asked: the fields that it takes, learnt from what it refuses.

Each setting of ours can be said in a few forms, the usual one first and leaving it out last. A refusal that names a
setting moves it on to its next form, for this and every later call. A call that was under way meanwhile, and is refused
for what has been moved on since, is sent again as things stand now. A setting only ever moves on, so this ends.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from esckit.chat_models.json_replies import response_format, schema_text
from esckit.chat_models.protocol import ChatRequest
from esckit.chat_models.server_errors import ServerError
from esckit.errors import ChatError

__all__ = ["LEAVABLE", "Dialect", "Said"]

_INSISTED: Final = ("top_k", "repetition_penalty")
"""Sent where the user has set them, and left out by hand alone: who sets them wants them."""

_FORMS: Final[Mapping[str, tuple[str, ...]]] = {
    "limit": ("max_tokens", "max_completion_tokens", ""),
    "temperature": ("temperature", ""),
    "top_p": ("top_p", ""),
    **{name: (name, "") for name in _INSISTED},
    "json": ("json_schema", "json_object", ""),
    "system": ("system", ""),
}
"""By setting: what it is called on the wire. A system text that is left out stands before the first user message."""

_LEFT_OUT: Final[Mapping[str, tuple[str, ...]]] = {
    "limit": ("", "", "max_tokens"),
    "temperature": ("", "temperature"),
    "top_p": ("", "top_p"),
    **{name: ("", name) for name in _INSISTED},
    "json": ("", "json_schema", "response_format"),
    "system": ("", "system"),
}
"""What a request lacks under each form; a limit by another name is none."""

LEAVABLE: Final = {name: (field, at) for field, names in _LEFT_OUT.items() for at, name in enumerate(names) if name}
"""What can be left out by hand: by name, its setting and form."""

_REFUSES: Final = re.compile(
    r"support|unknown|unrecogni[sz]ed|unexpected|invalid|illegal|forbidden|deprecated|unavailable|disabled|fixed|extra"
    r"|incompatible|cannot|can't|(not|n't) |\bno\b|only|must|should|either|range|between|greater|less|beta|instead"
    r"|不支持|无效|不能|仅|只|必须|非法|错误|范围",
    re.IGNORECASE,
)
_RENAMED: Final = re.compile(
    r"unsupported|(not|n't|no longer) support|unknown|unrecogni[sz]ed|unexpected|deprecated|instead|extra|不支持"
    r"|not (permitted|allowed|recogni[sz]ed|available|accepted|valid with)|max_completion_tokens",
    re.IGNORECASE,
)
_SIZE: Final = re.compile(
    r"large|small|long|short|exceed|at (most|least)|maxim|minim|range|between|less|greater|more than|below|above|[<>]"
    r"|positive|context|过大|超过|范围|大于|小于",
    re.IGNORECASE,
)
_TOGETHER: Final = re.compile(
    r"\bboth\b|one of|\beither\b|together|simultaneous|same time|mutually|exclusive|combin|\bnor\b|同时", re.IGNORECASE
)
_JSON: Final = re.compile(
    r"(response|json)[\s_-]?(format|schema|mode|object)|structured[\s_-]?outputs?|guided[\s_-]?(json|decoding)"
    r"|\bgrammar\b|\bschemas?\b|\benums?\b",
    re.IGNORECASE,
)
_SYSTEM: Final = re.compile(
    r"(system|developer)['\"`]?[\s_-](role|message|prompt|instruction)s?[^.]{0,40}(not|n't|unsupported|no )"
    r"|roles?\b[^.]{0,60}(not|n't) support[^.]{0,30}system|only user and assistant roles|roles must alternate",
    re.IGNORECASE,
)
_NOT_OURS: Final = {"messages", "model", "prompt", "input", "content"}


class Said(NamedTuple):
    """A request as it goes out, and the forms that it was said in.

    Attributes:
        body: its fields; those that the protocol does not know stand under ``extra_body``.
        forms: by setting, which form.
        left_out: the settings that the server is not told, in order of their names.
    """

    body: dict[str, Any]
    forms: Mapping[str, int]
    left_out: tuple[str, ...]


class Dialect:
    """The form of each setting that a server takes, as far as it is known.

    Args:
        extra: fields of every request besides ours; each can be left out.
        leave_out: names of `LEAVABLE` that are left out from the beginning.

    Raises:
        ChatError: a name to leave out is none.
    """

    def __init__(self, extra: Mapping[str, Any], leave_out: Iterable[str] = ()) -> None:
        self.extra = dict(extra)
        self._forms = dict.fromkeys((*_FORMS, *self.extra), 0)
        for name in leave_out:
            if name not in LEAVABLE:
                raise ChatError(f"{name!r} cannot be left out: choose among {', '.join(sorted(LEAVABLE))}.")
            field, form = LEAVABLE[name]
            self._forms[field] = max(self._forms[field], form)

    def say(self, model: str, request: ChatRequest) -> Said:
        """Write down a request in the forms of now."""
        forms, how = dict(self._forms), request.decoding
        values: dict[str, Any] = {"limit": how.max_new_tokens, "temperature": 0.0 if how.greedy else how.temperature}
        values |= {} if how.greedy else {"top_p": how.top_p}
        values |= {} if how.greedy or how.top_k is None else {"top_k": how.top_k}
        values |= {} if how.repetition_penalty == 1 else {"repetition_penalty": how.repetition_penalty}
        values |= {"json": request.schema} if request.schema else {}
        values |= {"system": ""} if request.messages[0].role == "system" else {}
        messages = _messages(request, apart=not forms["system"], tell_schema=bool(forms["json"]))
        body: dict[str, Any] = {"model": model, "messages": messages}
        for field in ("limit", "temperature", "top_p"):
            if field in values and (name := _FORMS[field][forms[field]]):
                body[name] = values[field]
        if request.schema and (kind := _FORMS["json"][forms["json"]]):
            asked = {"type": kind} if kind == "json_object" else response_format(request.schema)
            body["response_format"] = asked
        extra = self.extra | {name: values[name] for name in _INSISTED if name in values}
        if extra := {name: value for name, value in extra.items() if not forms[name]}:
            body["extra_body"] = extra
        lacking = {_LEFT_OUT[field][forms[field]] for field in values} | {name for name in self.extra if forms[name]}
        return Said(body, forms, tuple(sorted(filter(None, lacking))))

    def insisted(self, said: Said, error: ServerError) -> str | None:
        """The setting that an error refuses, where it is one that no reply may be drawn without."""
        field = self._refused(said, error)
        return field if field in _INSISTED and field not in self.extra else None

    def learn(self, said: Said, error: ServerError) -> str | None:
        """Move on the setting that an error refuses.

        Returns:
            What is said from now on, in a phrase; an empty text where that is known already and the call only has to
            be sent again; None where the error names no setting that was sent.
        """
        field = self._refused(said, error)
        if field is None:
            return None
        if self._forms[field] > said.forms[field]:
            return ""
        if self._forms[field] + 1 == len(_FORMS.get(field, ("", ""))):
            return None
        self._forms[field] += 1
        if field == "system":
            return "the system text begins the first user message"
        before, now = (_name(field, form) for form in (said.forms[field], self._forms[field]))
        return f"{now} stands in the place of {before}" if now else f"{before} is left out"

    def _refused(self, said: Said, error: ServerError) -> str | None:
        """The setting that an error names, by its field or in its message, among those that were sent."""
        sent = {field: name for field, name in self._sent(said).items() if not self._is_value(field, error)}
        named = {field: match for field, name in sent.items() if (match := _name_in(name).search(error.message))}
        if {"temperature", "top_p"} <= named.keys() and _TOGETHER.search(error.message):
            return "top_p"
        for field, name in sent.items():
            if any(_name_in(name).fullmatch(word) for word in error.blamed):
                return field
        if "response_format" in said.body and _JSON.search(f"{error.message} {' '.join(error.blamed)}"):
            return "json"
        if said.body["messages"][0]["role"] == "system" and _SYSTEM.search(error.message):
            return "system"
        if not named or _NOT_OURS & set(error.blamed) or not _REFUSES.search(error.message):
            return None
        return min(named, key=lambda field: named[field].start())

    def _sent(self, said: Said) -> dict[str, str]:
        """By setting, the name under which it stands in a body."""
        fields = {field: _FORMS[field][said.forms[field]] for field in ("limit", "temperature", "top_p")}
        extra = {name: name for name in said.body.get("extra_body", {})}
        return {field: name for field, name in fields.items() if name in said.body} | extra

    def _is_value(self, field: str, error: ServerError) -> bool:
        """Whether an error is about how large the limit is; another name for it would not help."""
        told = f"{error.message} {' '.join(error.codes)}"
        return field == "limit" and bool(_SIZE.search(told)) and not _RENAMED.search(told)


def _messages(request: ChatRequest, *, apart: bool, tell_schema: bool) -> list[dict[str, str]]:
    """The messages; where the system's may not stand apart, it is the beginning of the first user message.

    A schema that the server is not told stands in the last one, unless the prompt has it.
    """
    rows = [{"role": message.role, "content": message.content} for message in request.messages]
    if request.schema and tell_schema:
        told = schema_text(request.schema)
        if not any(told in row["content"] for row in rows):
            rows[-1]["content"] += f"\n\n{told}"
    if apart or rows[0]["role"] != "system" or len(rows) < 2 or rows[1]["role"] != "user":
        return rows
    return [{"role": "user", "content": f"{rows[0]['content']}\n\n{rows[1]['content']}"}, *rows[2:]]


def _name(field: str, form: int) -> str:
    return _FORMS.get(field, (field, ""))[form]


def _name_in(name: str) -> re.Pattern[str]:
    """Finds a field's name however it is written: ``top_p``, ``topP``, ``top-p``, quoted or not."""
    parts = r"[\s_-]?".join(map(re.escape, name.split("_")))
    return re.compile(rf"(?<![A-Za-z0-9_]){parts}(?![A-Za-z0-9_])", re.IGNORECASE)
