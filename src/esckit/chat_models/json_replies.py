"""JSON replies: the schema that is sent, the object that is found in what comes back, the repair turn."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from esckit.conversation.thoughts import without_thought
from esckit.conversation.turn_rule import Message
from esckit.files import after_space

Schema = TypeVar("Schema", bound=BaseModel)
UNENDED: Final = "its thought never ended"
"""What is wrong with a reply that is thought alone."""

_DROPPED: Final = ("title", "description")  # of an object: its class's name and docstring


class ReplyError(ValueError):
    """A reply is not the JSON object that was asked for; the message says why, for the model to read."""


@cache
def strict_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """A pydantic model's JSON schema in the form of strict structured outputs: every field required, no others.

    Raises:
        TypeError: a field has a default, which would stand in the place of an answer.
    """
    tightened: dict[str, Any] = _tighten(schema.model_json_schema())
    return tightened


def _tighten(node: Any) -> Any:
    if isinstance(node, list):
        return [_tighten(part) for part in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:  # nothing may stand beside a reference
        return {"$ref": node["$ref"]}
    if isinstance(node.get("properties"), dict):
        fields = {name: _tighten(field) for name, field in node["properties"].items()}
        if optional := sorted(fields.keys() - node.get("required", [])):
            raise TypeError(
                f"{node.get('title')} has defaults for {', '.join(optional)}: a reply has to give every field."
            )
        others = {key: _tighten(value) for key, value in node.items() if key not in ("properties", *_DROPPED)}
        return {**others, "properties": fields, "additionalProperties": False}
    return {key: _tighten(value) for key, value in node.items() if key != "title"}


def response_format(schema: type[BaseModel]) -> dict[str, Any]:
    """The ``response_format`` of the chat-completions protocol that asks for a schema strictly."""
    inner = {"name": re.sub(r"\W", "_", schema.__name__), "strict": True, "schema": strict_schema(schema)}
    return {"type": "json_schema", "json_schema": inner}


def schema_text(schema: type[BaseModel]) -> str:
    """The schema in words for a prompt: servers that ignore ``response_format`` are many."""
    return (
        "Answer with one JSON object that fits this JSON schema, and with nothing else:\n"
        f"{json.dumps(strict_schema(schema), ensure_ascii=False)}"
    )


def parse_reply(text: str, schema: type[Schema]) -> Schema:
    """Read the JSON object of a reply: bare, in a fence, or between sentences; a reasoning model's thought is skipped.

    Nothing is guessed: types are not converted, a name may not stand twice in an object, and of several different
    objects that would fit none is chosen.

    Raises:
        ReplyError: the reply holds no such object.
    """
    said = without_thought(text)
    if said is None:
        raise ReplyError(UNENDED)
    fitting: dict[str, Schema] = {}
    problem = "it holds no JSON object"
    for value in _objects(said):
        try:
            canonical = json.dumps(value, sort_keys=True)
            fitting[canonical] = schema.model_validate_json(canonical, strict=True)
        except ValidationError as error:
            told = error.errors(include_url=False)[:5]
            problem = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the object'}: {e['msg']}" for e in told)
    if len(fitting) > 1:
        raise ReplyError("it holds several JSON objects that differ")
    if not fitting:
        raise ReplyError(problem)
    return next(iter(fitting.values()))


def _objects(text: str) -> Iterator[Any]:
    """Every outermost JSON object in a text. One that breaks off ends the search: its parts are not the answer."""
    at = text.find("{")
    while at >= 0:
        try:
            value, end = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError:
            end = after_space(text, at + 1)
            if text.startswith('"', end):
                return
        except (ValueError, RecursionError):  # a name twice, NaN, thousands of digits, nested too deeply
            return
        else:
            yield value
        at = text.find("{", end)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def repair_turn(text: str, problem: ReplyError, schema: type[BaseModel]) -> tuple[Message, Message]:
    """The model's broken reply and a user message that shows it what was wrong; they follow what was asked."""
    request = f"Your reply cannot be used: {problem}. {schema_text(schema)}"
    return Message("assistant", text), Message("user", request)
