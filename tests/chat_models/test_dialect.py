"""What a server refuses is learnt from its words, once, and for the calls that are under way."""

from random import Random
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from esckit.chat_models.dialect import LEAVABLE, Dialect
from esckit.chat_models.json_replies import schema_text
from esckit.chat_models.protocol import ChatRequest
from esckit.chat_models.server_errors import read_error
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.errors import ChatError


class Score(BaseModel):
    score: Literal[1, 2]


PLAIN = ChatRequest((Message("system", "Be kind."), Message("user", "Hello?")), Decoding(max_new_tokens=50))
JSON = ChatRequest(PLAIN.messages, Decoding(greedy=True), Score)


def learn(dialect: Dialect, error: Any, request: ChatRequest = PLAIN) -> str | None:
    return dialect.learn(dialect.say("m", request), read_error(error))


def gone(error: Any, request: ChatRequest = PLAIN, extra: dict[str, Any] | None = None) -> set[str] | None:
    """The fields of a body that an error makes disappear; None where nothing is learnt."""
    dialect = Dialect(extra or {})
    before = dialect.say("m", request).body
    if learn(dialect, error, request) is None:
        return None
    after = dialect.say("m", request).body
    flat = [{**body, **body.get("extra_body", {})} for body in (before, after)]
    return {name for name in flat[0] if name != "extra_body" and flat[0][name] != flat[1].get(name)}


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
            "max_tokens",
        ),
        ("`max_tokens` is deprecated, use max_completion_tokens", "max_tokens"),
        ("Unrecognized request argument supplied: max_tokens", "max_tokens"),
        ("max_tokens: Extra inputs are not permitted", "max_tokens"),
        ("max_tokens is invalid for this model", "max_tokens"),
        ("Unsupported value: 'temperature' does not support 0.7 with this model.", "temperature"),
        ("invalid temperature: only 1 is allowed for this model", "temperature"),
        ("invalid temperature: only 0.6 is allowed for this model", "temperature"),
        ("temperature must be 1", "temperature"),
        ('"temperature" is fixed for this model', "temperature"),
        ("generation_config.temperature: out of range", "temperature"),
        ("`temperature` must be strictly positive", "temperature"),
        ("参数 temperature 不支持", "temperature"),
        ("Unknown field: topP", "top_p"),
        ("The top-p parameter is not supported.", "top_p"),
        ("Unknown name \"top_p\" at 'generation_config': Cannot find field.", "top_p"),
        ("`temperature` and `top_p` cannot both be specified for this model. Please use only one.", "top_p"),
        ("Specify either top_p or temperature, not both.", "top_p"),
        ("You may set one of temperature, top_p.", "top_p"),
        ("top_p is not supported; the temperature is.", "top_p"),
        ("temperature is not supported, and neither will top_p be", "temperature"),
        ("System role not supported", "messages"),
        ("Unsupported value: 'messages[0].role' does not support 'system' with this model.", "messages"),
        ("Developer instruction is not enabled for this model", "messages"),
        ("Conversation roles must alternate user/assistant/user/assistant/...", "messages"),
    ],
)
@pytest.mark.parametrize("form", ["object", "text", "detail", "list", "vllm", "message of message"])
def test_the_words_of_a_refusal(message: str, field: str, form: str) -> None:
    error: Any = {
        "object": {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}},
        "text": {"error": message},
        "detail": {"detail": message},
        "list": [{"error": {"message": message, "code": 400}}],
        "vllm": {"object": "error", "message": message, "type": "BadRequestError", "code": 400},
        "message of message": {"error": {"message": f'{{"error": {{"message": {_quoted(message)}}}}}'}},
    }[form]
    assert gone(error) == {field}


def _quoted(text: str) -> str:
    import json

    return json.dumps(text)


@pytest.mark.parametrize("param", ["top_p", "body.top_p", "topP", "generation_config.top_p"])
def test_the_field_may_be_named_apart(param: str) -> None:
    assert gone({"error": {"message": "That is wrong.", "param": param}}) == {"top_p"}


def test_a_list_of_details_names_it_by_its_place() -> None:
    detail = [
        {"type": "extra_forbidden", "loc": ["body", "top_p"], "msg": "Extra inputs are not permitted", "input": 1}
    ]
    assert gone({"detail": detail}) == {"top_p"}
    assert gone({"object": "error", "message": {"detail": detail}, "type": "invalid_request_error"}) == {"top_p"}


@pytest.mark.parametrize(
    "message",
    [
        "This response_format type is unavailable now",
        "This model does not support response format `json_schema`.",
        "'response_format.type' must be 'json_object' or 'text'",
        "Invalid value at 'generation_config.response_schema.properties[1].value.enum[0]' (TYPE_STRING), 0",
        "The provided JSON schema contains features not supported by the grammar.",
        "Structured outputs are not enabled",
        "properties.score.enum: only strings are allowed",
        "Unknown parameter: 'response_format.json_schema.strict'",
        "The schema has features that are not supported.",
        "json mode is not supported for this model",
        "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
    ],
)
def test_json_is_asked_for_in_a_weaker_way_each_time(message: str) -> None:
    dialect = Dialect({})
    kinds = []
    for _ in range(3):
        kinds.append(dialect.say("m", JSON).body.get("response_format", {}).get("type"))
        said = learn(dialect, {"error": {"message": message}}, JSON)
    assert kinds == ["json_schema", "json_object", None]
    assert said is None
    assert dialect.say("m", JSON).left_out == ("response_format",)
    assert gone({"error": {"message": message}}) is None or "response_format" not in PLAIN.messages[0]


def test_a_schema_that_is_not_sent_stands_in_the_prompt_once() -> None:
    dialect = Dialect({}, ["json_schema"])
    body = dialect.say("m", JSON).body
    assert body["response_format"] == {"type": "json_object"}
    assert body["messages"][-1]["content"] == f"Hello?\n\n{schema_text(Score)}"
    told = ChatRequest((Message("user", f"{schema_text(Score)} Go."),), JSON.decoding, Score)
    assert dialect.say("m", told).body["messages"] == [{"role": "user", "content": told.messages[0].content}]


def test_a_system_text_that_may_not_stand_apart_begins_the_first_message() -> None:
    body = Dialect({}, ["system"]).say("m", PLAIN).body
    assert body["messages"] == [{"role": "user", "content": "Be kind.\n\nHello?"}]


@pytest.mark.parametrize("name", ["seed", "stop", "presence_penalty", "logprobs", "top_k", "chat_template_kwargs"])
def test_fields_of_the_users_own_are_left_out_too(name: str) -> None:
    extra = {name: 1, "other": 2}
    assert gone({"error": {"message": f"Unknown parameter: '{name}'", "param": name}}, extra=extra) == {name}
    assert gone({"error": {"message": f"{name} is not supported"}}, extra=extra) == {name}


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "The body is malformed."}},
        {"error": {"message": "messages[1].content is too hot, at any temperature", "param": "messages"}},
        {
            "error": {
                "message": "max_tokens is too large: 50. At most 40.",
                "param": "max_tokens",
                "code": "invalid_value",
            }
        },
        {"error": {"message": "Invalid max_tokens value, the valid range of max_tokens is [1, 8]"}},
        {"error": {"message": "presence_penalty is not supported"}},
        {"error": {"message": "no", "param": "n"}},
        {"error": {"message": "This model supports temperatures, seeds and stops"}},
        {"detail": [{"loc": ["body", "max_tokens"], "msg": "Input should be less than or equal to 8"}]},
        {},
    ],
)
def test_an_error_that_names_nothing_to_leave_out_teaches_nothing(error: Any) -> None:
    assert gone(error) is None


def test_a_late_refusal_is_no_news() -> None:
    dialect = Dialect({})
    under_way = [dialect.say("m", PLAIN) for _ in range(3)]
    error = read_error({"error": {"message": "x", "param": "temperature"}})
    assert dialect.learn(under_way[0], error) == "temperature is left out"
    assert [dialect.learn(said, error) for said in under_way[1:]] == ["", ""]
    assert dialect.learn(dialect.say("m", PLAIN), error) is None, "it is not there any more"


def test_the_limit_has_two_names_and_then_none() -> None:
    dialect, error = Dialect({}), {"error": {"message": "max_tokens, max_completion_tokens: not supported"}}
    assert learn(dialect, error) == "max_completion_tokens stands in the place of max_tokens"
    assert dialect.say("m", PLAIN).left_out == ()
    assert learn(dialect, error) == "max_completion_tokens is left out"
    assert dialect.say("m", PLAIN).left_out == ("max_tokens",)
    assert learn(dialect, error) is None


def test_whatever_is_refused_there_is_an_end() -> None:
    dialect = Dialect({"seed": 1, "stop": "x"})
    words = (
        "temperature, top_p, max_tokens, max_completion_tokens, seed, stop, system role, response_format not supported"
    )
    rounds = 0
    while learn(dialect, {"error": {"message": words}}, JSON) is not None:
        rounds += 1
        assert rounds < 20
    assert dialect.say("m", JSON).left_out == (
        *("max_tokens", "response_format", "seed", "stop", "system", "temperature"),
    )


SET = ChatRequest(PLAIN.messages, Decoding(top_k=50, repetition_penalty=1.2))


def test_top_k_and_a_penalty_are_sent_where_they_are_set() -> None:
    assert "extra_body" not in Dialect({}).say("m", PLAIN).body
    assert Dialect({"seed": 3}).say("m", SET).body["extra_body"] == {"seed": 3, "top_k": 50, "repetition_penalty": 1.2}
    greedy = ChatRequest(PLAIN.messages, Decoding(greedy=True, top_k=50, repetition_penalty=1.2))
    assert Dialect({}).say("m", greedy).body["extra_body"] == {"repetition_penalty": 1.2}
    said = Dialect({}, ["top_k"]).say("m", SET)
    assert said.body["extra_body"] == {"repetition_penalty": 1.2}
    assert said.left_out == ("top_k",)
    assert Dialect({}, ["top_k"]).say("m", PLAIN).left_out == ()


@pytest.mark.parametrize("name", ["top_k", "repetition_penalty"])
def test_who_sets_them_insists(name: str) -> None:
    error = read_error({"error": {"message": f"Unrecognized request argument supplied: {name}"}})
    dialect = Dialect({})
    assert dialect.insisted(dialect.say("m", SET), error) == name
    assert dialect.insisted(dialect.say("m", PLAIN), error) is None, "it was not sent"
    extra = Dialect({name: 3})
    assert extra.insisted(extra.say("m", PLAIN), error) is None
    assert extra.learn(extra.say("m", PLAIN), error) == f"{name} is left out"


def test_by_hand() -> None:
    said = Dialect({}, ["temperature", "top_p", "max_tokens"]).say("m", PLAIN)
    assert said.body.keys() == {"model", "messages"}
    assert said.left_out == ("max_tokens", "temperature", "top_p")
    names = {"temperature", "top_p", "top_k", "repetition_penalty", "max_tokens", "json_schema", "response_format"}
    assert names | {"system"} == set(LEAVABLE)
    with pytest.raises(ChatError, match="'seed' cannot be left out: choose among json_schema, max_tokens"):
        Dialect({}, ["seed"])


@pytest.mark.parametrize("seed", range(40))
def test_whatever_a_server_takes_is_found_with_one_refusal_a_form(seed: int) -> None:
    """Servers that refuse settings by chance, in an order of their own, by name or in words."""
    random = Random(seed)
    refused = random.sample(["max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop"], 3)
    by_name = random.random() < 0.5
    dialect = Dialect({"seed": 1, "stop": "x"})
    rounds = 0
    while rounds < 20:
        said = dialect.say("m", PLAIN)
        sent = {**said.body, **said.body.get("extra_body", {})}
        wrong = [name for name in refused if name in sent]
        if not wrong:
            break
        words = (
            {"message": "That does not go.", "param": wrong[0]} if by_name else {"message": f"{wrong[0]}: not allowed"}
        )
        assert dialect.learn(said, read_error({"error": words}))
        rounds += 1
    assert rounds <= 4
    assert not set(refused) & sent.keys()
    others = {"temperature", "top_p", "seed", "stop"} - set(refused)
    assert others <= sent.keys(), "nothing else is lost"
