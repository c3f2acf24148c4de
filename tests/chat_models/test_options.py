"""One way to say which chat model is asked, and how."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from esckit.chat_models.opening import ChatModelOptions, open_chat_model
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import ChatReply
from esckit.chat_models.remote import RemoteChatModel
from esckit.cli.shared import options_of
from esckit.decoding import Decoding
from esckit.errors import EsckitError
from esckit.judging.open_annotator import AnnotatorOptions, annotator_identity
from esckit.judging.plan import JudgingOptions
from esckit.supporters.baselines import BaselineOptions
from tests.chat_models.test_remote import PLAIN, call
from tests.server import KEY, MODEL, ChatServer

REMOTE: dict[str, Any] = {"model": "remote:m", "base_url": "http://x/v1"}


@pytest.fixture(autouse=True)
def key_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.parametrize(
    ("kind", "more", "usual"),
    [
        (AnnotatorOptions, {}, Decoding(greedy=True, max_new_tokens=300)),
        (JudgingOptions, {}, Decoding(greedy=True, max_new_tokens=512)),
        (BaselineOptions, {"method": "base"}, Decoding(max_new_tokens=256)),
    ],
)
def test_every_asker_takes_the_same_keys(kind: type[ChatModelOptions], more: dict[str, Any], usual: Decoding) -> None:
    asked = {"concurrency": 3, "budget_calls": 7, "budget_tokens": 9, "extra_body": {"top_k": 20}}
    options = kind(**REMOTE, **asked, **more)
    assert options.pace == Pace(budget_calls=7, budget_tokens=9)
    model = open_chat_model(options)
    assert isinstance(model, RemoteChatModel)
    assert (model.concurrency, model.base_url, model.extra_body) == (3, "http://x/v1", {"top_k": 20})
    assert options.decoding == usual


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"max_new_tokens": 4000}, Decoding(greedy=True, max_new_tokens=4000)),
        ({"temperature": 0.3}, Decoding(temperature=0.3, max_new_tokens=512)),
        ({"top_p": 0.5, "greedy": True}, Decoding(greedy=True, top_p=0.5, max_new_tokens=512)),
    ],
)
def test_what_decoding_leaves_out_is_the_askers_own(given: dict[str, Any], wanted: Decoding) -> None:
    assert JudgingOptions(**REMOTE, decoding=given).decoding == wanted


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"model": "remote:"}, "remote: names no model"),
        ({"base_url": "http://x/v1"}, "base_url is for a model behind a URL: set model to remote:MODEL"),
        ({"model": "folder", "extra_body": {"a": 1}}, "extra_body is for a model behind a URL"),
        ({**REMOTE, "extra_body": {"temperature": 1, "a": 1}}, "extra_body sets temperature, which esckit sets itself"),
        ({**REMOTE, "decoding": {"temperature": 0}}, "greater than 0"),
        ({**REMOTE, "decoding": {"temprature": 1}}, "temprature"),
        ({**REMOTE, "budget_calls": 0}, "greater than or equal to 1"),
        ({**REMOTE, "at_once": 3}, "not permitted"),
    ],
)
def test_no_key_goes_unheard(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ChatModelOptions(**given)


def test_more_fields_are_sent_and_are_part_of_what_is_asked() -> None:
    more = {"chat_template_kwargs": {"enable_thinking": False}, "top_k": 20}
    with ChatServer() as server:
        model = RemoteChatModel(MODEL, server.url, extra_body=more)
        assert isinstance(call(model), ChatReply)
    assert {name: server.bodies[0][name] for name in more} == more
    assert server.bodies[0]["temperature"] == 0.7
    plain = RemoteChatModel(MODEL, server.url)
    assert PLAIN.key("s", model.identity) != PLAIN.key("s", plain.identity)
    assert plain.identity == {"url": server.url, "model": MODEL}


def test_who_says_how_draws_are_made_wants_draws() -> None:
    def greedy(name: str) -> bool:
        return JudgingOptions(**REMOTE, decoding={name: 1}).decoding.greedy

    assert not any(map(greedy, ("temperature", "top_p", "top_k")))
    assert greedy("repetition_penalty")


def test_verdicts_depend_on_what_is_asked_and_not_on_how_fast() -> None:
    def identity(**more: Any) -> str:
        return json.dumps(annotator_identity(AnnotatorOptions(**REMOTE, **more)))

    assert identity() == identity(concurrency=2, budget_calls=5, budget_tokens=5)
    assert len({identity(), identity(extra_body={"top_k": 1}), identity(decoding={"max_new_tokens": 9})}) == 3


@pytest.mark.parametrize(
    ("body", "told"),
    [("{", "--extra-body '{' is no JSON object"), ("[1]", "--extra-body [1]: Input should be a valid dictionary.")],
)
def test_fields_that_a_command_cannot_read_are_one_sentence(body: str, told: str) -> None:
    with pytest.raises(EsckitError) as error:
        options_of(ChatModelOptions, {**REMOTE, "extra_body": body, "out": "o"})
    assert str(error.value).startswith(told)


def test_settings_that_are_left_out_by_hand() -> None:
    options = options_of(
        JudgingOptions, {"model": "remote:m", "base_url": "http://x/v1", "leave_out": "top_p, max_tokens"}
    )
    model = open_chat_model(options)
    assert isinstance(model, RemoteChatModel)
    assert model.identity == {"url": "http://x/v1", "model": "m", "leave_out": ["max_tokens", "top_p"]}
    with pytest.raises(EsckitError, match=r"^leave_out has seed: choose among json_schema, max_tokens, .*\.$"):
        options_of(JudgingOptions, {"model": "remote:m", "leave_out": "seed"})
    with pytest.raises(ValidationError, match="extra_body and decoding both set top_k: leave one of the two out"):
        ChatModelOptions(**REMOTE, extra_body={"top_k": 5}, decoding={"top_k": 6})
    with pytest.raises(EsckitError, match="leave_out is for a model behind a URL"):
        options_of(JudgingOptions, {"model": "some/model", "leave_out": "top_p"})
