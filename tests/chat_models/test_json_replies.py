"""JSON replies: what is sent, what is accepted, what is not."""

import json
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from esckit.chat_models.json_replies import (
    ReplyError,
    parse_reply,
    repair_turn,
    response_format,
    schema_text,
    strict_schema,
)
from tests.chat_models.questions import Judgement

GOOD = '{"score": 3, "reason": "it listens"}'


class Part(BaseModel):
    """A docstring that no model needs to read."""

    name: Literal["warmth", "tact"]
    quotes: list[str]


class Nested(BaseModel):
    parts: list[Part]
    title: str = Field(description="in five words")


class Lenient(BaseModel):
    score: int = 3


def test_the_schema_sent_is_strict_everywhere() -> None:
    schema = strict_schema(Nested)
    part = schema["$defs"]["Part"]
    assert schema["additionalProperties"] is part["additionalProperties"] is False
    assert sorted(schema["required"]) == ["parts", "title"]
    assert sorted(part["required"]) == ["name", "quotes"]
    assert schema["properties"]["title"] == {"description": "in five words", "type": "string"}
    assert schema["properties"]["parts"]["items"] == {"$ref": "#/$defs/Part"}
    assert "docstring" not in json.dumps(schema)
    sent = response_format(Nested)
    assert (sent["type"], sent["json_schema"]["strict"], sent["json_schema"]["schema"]) == ("json_schema", True, schema)


def test_a_field_with_a_default_is_refused() -> None:
    with pytest.raises(TypeError, match="Lenient has defaults for score"):
        strict_schema(Lenient)


@pytest.mark.parametrize(
    "reply",
    [
        GOOD,
        f"\n {GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}```\nAsk again if you like.",
        f"Here it is: {GOOD} Anything else?",
        f"I use {{braces}} and {{ 1 }}: {GOOD}",
        f"{{{GOOD}}}",
        f"[{GOOD}]",
        f'<think>perhaps {{"score": 1, "reason": "no"}}</think>\n{GOOD}',
        f"{GOOD}\nOnce more: {GOOD}",
        f'{{"note": "not this one"}} {GOOD}',
    ],
)
def test_an_object_is_found_bare_fenced_or_wrapped(reply: str) -> None:
    assert parse_reply(reply, Judgement) == Judgement(score=3, reason="it listens")


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("", "it holds no JSON object"),
        ("I would say 3.", "it holds no JSON object"),
        ('{"score": 3, "reason": "it', "it holds no JSON object"),
        ("{'score': 3, 'reason': 'x'}", "it holds no JSON object"),
        ('{"score": "3", "reason": "x"}', "score: Input should be 1, 2, 3, 4 or 5"),
        ('{"score": 6, "reason": "x"}', "score: Input should be 1, 2, 3, 4 or 5"),
        ('{"score": 3}', "reason: Field required"),
        ('{"score": 3, "score": 5, "reason": "x"}', "it holds no JSON object"),
        ('{"score": NaN, "reason": "x"}', "it holds no JSON object"),
        (f'{{"outer": {GOOD}', "it holds no JSON object"),
        (f'{{"outer": {GOOD}, oops}}', "it holds no JSON object"),
        (f'{GOOD} or {{"score": 4, "reason": "x"}}', "it holds several JSON objects that differ"),
        ("{" * 100_000, "it holds no JSON object"),
        ('{"score": ' + "[" * 100_000, "it holds no JSON object"),
        ('{"score": ' + "9" * 5000 + "}", "it holds no JSON object"),
    ],
)
def test_nothing_is_guessed(reply: str, problem: str) -> None:
    with pytest.raises(ReplyError) as error:
        parse_reply(reply, Judgement)
    assert str(error.value) == problem


def test_a_type_is_never_converted() -> None:
    class Counted(BaseModel):
        count: int

    for value in ('"3"', "3.0", "true"):
        with pytest.raises(ReplyError):
            parse_reply(f'{{"count": {value}}}', Counted)


def test_the_repair_turn_shows_the_reply_and_what_was_wrong() -> None:
    said, asked = repair_turn("three!", ReplyError("it holds no JSON object"), Judgement)
    assert (said.role, said.content, asked.role) == ("assistant", "three!", "user")
    assert asked.content.startswith("Your reply cannot be used: it holds no JSON object. ")
    assert asked.content.endswith(schema_text(Judgement))
