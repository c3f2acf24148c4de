"""Errors as servers word and nest them: read, and told apart."""

from typing import Any

import pytest

from esckit.chat_models.server_errors import is_web_page, read_error, seen

INVALID = "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "no", "type": INVALID, "param": None, "code": None}}, "no"),
        ([{"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}], "no"),
        ({"object": "error", "message": "no", "type": "BadRequestError", "code": 400}, "no"),
        ({"error": "no"}, "no"),
        ({"detail": "no"}, "no"),
        ({"message": "no"}, "no"),
        ({"msg": "no", "code": 500, "success": False}, "no"),
        ({"error": {"error": {"message": "no"}}}, "no"),
        ({"error": "no", "error_type": "validation"}, "no"),
        ({"error": {"message": '{"error": {"message": "no", "code": "x"}}'}}, "no"),
        ({"error": {"message": "Provider failed", "metadata": {"raw": '{"message": "no"}'}}}, "Provider failed; no"),
        ({"detail": [{"type": "missing", "loc": ["body", "top_p"], "msg": "no", "input": "harm"}]}, "body.top_p: no"),
        ({"object": "error", "message": {"detail": [{"loc": ["body", "n"], "msg": "no"}]}}, "body.n: no"),
        ({"type": "error", "error": {"type": INVALID, "message": "no"}}, "no"),
        ({"base_resp": {"status_code": 1026, "status_msg": "no"}}, "no"),
        ({"errors": [{"message": "no"}, {"message": "never"}]}, "no; never"),
        ("no", "no"),
        ('{"error": "no"}', "no"),
        ("{no", "{no"),
        ("<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>", "502 Bad Gateway"),
        ({}, ""),
        ([], ""),
        (None, ""),
        ({"error": None}, ""),
        ({"error": {"message": None}}, ""),
    ],
)
def test_the_sentence_is_found(body: Any, message: str) -> None:
    assert read_error(body).message == message


def test_an_error_without_end_is_read_to_some_depth() -> None:
    error: Any = "deep"
    for _ in range(200):
        error = {"error": error}
    assert read_error(error).message == ""


@pytest.mark.parametrize(
    ("body", "blamed"),
    [
        ({"error": {"message": "no", "param": "top_p"}}, ("top_p",)),
        ({"error": {"message": "no", "param": "messages[0].role"}}, ("messages", "role")),
        ({"detail": [{"loc": ["body", "response_format", 0], "msg": "no"}]}, ("body", "response_format")),
        (
            {"error": {"details": [{"fieldViolations": [{"field": "generation_config.top_p"}]}]}},
            ("generation_config", "top_p"),
        ),
        ({"error": {"message": "no", "param": None}}, ()),
    ],
)
def test_the_field_that_is_blamed(body: Any, blamed: tuple[str, ...]) -> None:
    assert read_error(body).blamed == blamed


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (429, 429),
        ("429", 429),
        ("rate_limit_exceeded", 429),
        ("RESOURCE_EXHAUSTED", 429),
        ("Throttling.RateQuota", 429),
        ("insufficient_quota", 402),
        ("invalid_api_key", 401),
        ("authentication_error", 401),
        ("permission_denied", 403),
        ("model_not_found", 404),
        ("overloaded_error", 503),
        ("gateway_timeout", 504),
        (INVALID, 400),
        ("server_error", 500),
        ("something_else", 500),
        (1214, 500),
        (None, 500),
        (True, 500),
    ],
)
def test_the_status_that_a_code_stands_for(code: Any, status: int) -> None:
    assert read_error({"error": {"message": "no", "code": code}}).status == status


def test_a_number_tells_more_than_a_word() -> None:
    assert read_error({"error": {"type": "rate_limit_error", "code": 502}}).status == 502


# -------------------------------------------------------------------------------------------------------------- filters

FILTERED: list[tuple[int, Any]] = [
    (400, {"code": "content_filter", "message": "x"}),
    (400, {"code": "content_policy_violation", "message": "x"}),
    (400, {"code": "data_inspection_failed", "message": "x"}),
    (400, {"code": "DataInspectionFailed", "message": "x"}),
    (400, {"type": "data_inspection_failed", "code": None, "message": "x"}),
    (400, {"code": "1301", "message": "x"}),
    (400, {"code": 1301, "message": "x"}),
    (400, {"code": None, "message": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}),
    (400, {"code": "InputTextSensitiveContentDetected", "message": "x"}),
    (400, {"code": "SensitiveContentDetected.SevereViolation", "message": "x"}),
    (400, {"code": "PROHIBITED_CONTENT", "message": "x"}),
    (400, {"code": "invalid_prompt", "message": "x"}),
    (500, {"code": "content_filter", "message": "x"}),
    (400, {"message": "Content Exists Risk", "type": INVALID, "code": INVALID}),
    (400, {"message": "Input data may contain inappropriate content."}),
    (400, {"message": "Output data may contain inappropriate content."}),
    (400, {"message": "The request was rejected because it was considered high risk"}),
    (400, {"message": "The response was filtered due to the prompt triggering the content management policy."}),
    (400, {"message": "Your prompt was flagged as potentially violating our usage policy."}),
    (403, {"message": 'It requires moderation. Your input was flagged for "violence".'}),
    (451, {"message": "This contains sensitive words."}),
    (403, {"message": "Blocked by the safety guardrail."}),
    (422, {"message": "The text violates our content guidelines."}),
    (400, {"message": "input new_sensitive"}),
    (400, {"message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}),
    (400, {"message": "内容审核不通过"}),
    (400, {"message": "输入内容违规"}),
    (400, {"message": "根据法律法规，无法回答"}),
    (400, {"message": "We have limited access to this for safety reasons."}),
    (400, {"message": "Output blocked by content filtering policy"}),
    (403, {"message": "Content violates usage guidelines."}),
    (451, {"message": "No."}),
    (400, {"type": "censorship_blocked", "message": "No."}),
    (500, {"code": 10013, "message": "input content audit fail"}),
    (400, {"message": "Provider returned error", "metadata": {"raw": '{"code": "content_filter"}'}}),
]


@pytest.mark.parametrize(("status", "error"), FILTERED, ids=lambda value: str(value)[:60])
def test_filters_in_every_dialect(status: int, error: Any) -> None:
    assert read_error({"error": error}).filtered(status)
    assert read_error([{"error": error}]).filtered(status)
    assert read_error({"object": "error", **error}).filtered(status)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "Unsupported parameter: 'safety_settings' is not supported with this model."),
        (400, "The content of messages must be a string."),
        (400, "Invalid content type: policy must be an object."),
        (400, "model names are case-sensitive"),
        (400, "模型名称大小写敏感"),
        (400, "This model's maximum context length is 4096 tokens."),
        (400, "you must provide a model parameter"),
        (400, "messages: text content blocks must be non-empty"),
        (400, "The request is blocked"),
        (403, "Your request was blocked."),
        (403, "Your account was flagged for unusual traffic."),
        (403, "账号违规，已停用"),
        (403, "You have no access to this model."),
        (422, "Input should be a valid string"),
        (429, "You violate the rate policy."),
        (400, "risk_level is unknown"),
        (401, "Content filtered."),
    ],
)
def test_an_ordinary_error_is_no_filter(status: int, message: str) -> None:
    assert not read_error({"error": {"message": message, "type": INVALID, "code": INVALID}}).filtered(status)


@pytest.mark.parametrize(
    ("error", "spent", "unknown", "too_long"),
    [
        ({"code": "insufficient_quota"}, True, False, False),
        ({"type": "exceeded_current_quota_error"}, True, False, False),
        ({"code": "Arrearage"}, True, False, False),
        ({"code": "1113"}, True, False, False),
        ({"code": "rate_limit_exceeded"}, False, False, False),
        ({"code": "model_not_found"}, False, True, False),
        ({"code": "DeploymentNotFound"}, False, True, False),
        ({"code": "model_overloaded"}, False, False, False),
        ({"code": "context_length_exceeded"}, False, False, True),
        ({"type": "exceed_context_size_error"}, False, False, True),
        ({"message": "This model's maximum context length is 4096 tokens"}, False, False, True),
        ({"message": "the request exceeds the available context size, try increasing it"}, False, False, True),
        ({"message": "prompt is too long: 210000 tokens > 200000 maximum"}, False, False, True),
        ({"message": "max_tokens is too large: 9000"}, False, False, False),
    ],
)
def test_what_no_other_call_can_mend(error: Any, spent: bool, unknown: bool, too_long: bool) -> None:
    read = read_error({"error": {"message": "no", **error}})
    assert (read.spent, read.unknown_model, read.too_long) == (spent, unknown, too_long)


# ------------------------------------------------------------------------------------------------------------ web pages


@pytest.mark.parametrize(
    ("text", "page", "shown"),
    [
        ("<!DOCTYPE html><html><title>Log in</title>", True, "Log in"),
        ("\n<html lang='en'><body><h1>It works!</h1></body></html>", True, "It works!"),
        ("<HTML><HEAD></HEAD><script>var a = 1;</script><p>Hello</p>", True, "Hello"),
        ("<!-- a note --><!doctype html><p>Hi", True, "Hi"),
        ('{"a": "<html>"}', False, '{"a": "<html>"}'),
        ("plain words", False, "plain words"),
        ("x" * 500, False, "x" * 120 + "…"),
    ],
)
def test_of_a_web_page_a_person_sees_this(text: str, page: bool, shown: str) -> None:
    assert (is_web_page(text), seen(text)) == (page, shown)
