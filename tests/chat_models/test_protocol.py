"""Requests and their keys; a backbone on this machine as a chat model."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from esckit.chat_models.asker import Asker
from esckit.chat_models.json_replies import parse_reply
from esckit.chat_models.ledger import Ledger
from esckit.chat_models.local import LocalChatModel
from esckit.chat_models.protocol import CallFailure, ChatModel, ChatReply, ChatRequest
from esckit.conversation.thoughts import without_thought
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.language_models.backbone import Backbone
from esckit.language_models.generation import generate
from esckit.language_models.guided import UnguidedError
from esckit.rendering import ChatTemplate
from tests.chat_models.questions import Judgement
from tests.tiny import POSITIONS, TEMPLATES, tiny_model, tiny_tokenizer, tokenizer_with

HOT = Decoding(temperature=3.0, top_p=0.9, max_new_tokens=8)
GREEDY = Decoding(greedy=True, max_new_tokens=8)
ASKED = ChatRequest((Message("system", "Be kind."), Message("user", "Hello?")), HOT)


# ---------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    "other",
    [
        replace(ASKED, messages=(*ASKED.messages[:1], Message("user", "Hello!"))),
        replace(ASKED, messages=(Message("user", "Be kind."), ASKED.messages[1])),
        replace(ASKED, messages=(Message("system", "Be kind.Hello?"), Message("user", ""))),
        replace(ASKED, decoding=replace(HOT, temperature=0.5)),
        replace(ASKED, decoding=replace(HOT, max_new_tokens=9)),
        replace(ASKED, schema=Judgement),
        replace(ASKED, sample=1),
    ],
)
def test_a_key_changes_with_all_that_an_answer_depends_on(other: ChatRequest) -> None:
    key = ASKED.key("judge/1", "model")
    assert other.key("judge/1", "model") != key
    assert ASKED.key("judge/2", "model") != key
    assert ASKED.key("judge/1", "other") != key


def test_a_key_is_that_of_equal_requests_and_stays_what_it_was() -> None:
    again = ChatRequest((Message("system", "Be kind."), Message("user", "Hello?", filler=True)), HOT)
    assert again.key("judge/1", {"url": "u"}) == ASKED.key("judge/1", {"url": "u"})
    # Ledgers that were written keep their answers only while this key is the same.
    assert ASKED.key("judge/1", {"url": "u"}).startswith("eeb95e890bcdabf1")


def test_how_a_model_keeps_to_a_schema_is_part_of_the_keys_of_such_requests_alone() -> None:
    plain, guided = {"weights": "w"}, {"weights": "w", "json": "guided/1"}
    asked = replace(ASKED, schema=Judgement)
    assert ASKED.key("judge/1", guided) == ASKED.key("judge/1", plain)
    assert asked.key("judge/1", guided) != asked.key("judge/1", plain)


# --------------------------------------------------------------------------------------------------------------- local


@pytest.fixture(scope="module")
def local() -> LocalChatModel:
    return LocalChatModel(Backbone(tiny_model("llama", seed=2), tiny_tokenizer(), "tiny"))


def answers(model: ChatModel, requests: Sequence[ChatRequest]) -> list[ChatReply | CallFailure]:
    async def collect() -> dict[int, ChatReply | CallFailure]:
        return {place: result async for place, result in model.answer(requests)}

    found = asyncio.run(collect())
    return [found[place] for place in range(len(requests))]


def texts(model: ChatModel, requests: Sequence[ChatRequest]) -> list[str]:
    found = answers(model, requests)
    return [result.text for result in found if isinstance(result, ChatReply)]


def question(text: str, how: Decoding = HOT, sample: int = 0) -> ChatRequest:
    return ChatRequest((Message("system", "Be kind."), Message("user", text)), how, sample=sample)


@pytest.mark.parametrize("family", sorted(TEMPLATES))
def test_a_prompt_is_the_templates_own(family: str) -> None:
    tokenizer = tokenizer_with(family)
    chat = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]
    chat.append({"role": "user", "content": "I'm 23,\n and lost."})
    system = {"role": "system", "content": "Be kind."}
    folded = [{**chat[0], "content": "Be kind.\n\nHello?"}, *chat[1:]]
    whole = folded if family == "alternating" else [system, *chat]  # it has no system role
    text = tokenizer.apply_chat_template(
        whole, tokenize=False, add_generation_prompt=True, date_string="01 January 2025"
    )
    messages = [Message(message["role"], message["content"]) for message in [system, *chat]]
    assert tokenizer.decode(ChatTemplate(tokenizer).prompt_ids(messages)) == text
    assert list(ChatTemplate(tokenizer).prompt_ids(messages)) == tokenizer(text, add_special_tokens=False)["input_ids"]
    without = ChatTemplate(tokenizer).prompt_ids(messages[1:])
    assert "Be kind." not in tokenizer.decode(without)
    assert "and lost." in tokenizer.decode(without)


def test_greedy_replies_are_the_backbones(local: LocalChatModel) -> None:
    requests = [question(text, GREEDY) for text in ("Hello?", "I lost my job, and my friends with it.", "Why?")]
    tokenizer, model = local.backbone.tokenizer, local.backbone.model
    prompts = [ChatTemplate(tokenizer).prompt_ids(request.messages) for request in requests]
    wanted = generate(model, tokenizer, prompts, tokenizer.eos_token_id, GREEDY, range(3))
    found = answers(local, requests)
    assert [(r.text, r.finish) for r in found if isinstance(r, ChatReply)] == wanted
    for result, prompt in zip(found, prompts, strict=True):
        assert isinstance(result, ChatReply)
        assert result.usage is not None
        assert result.usage.prompt == len(prompt)
        assert result.usage.completion == 8 or result.finish == "stop"


OPENS_THOUGHTS = TEMPLATES["chatml"][0].replace("assistant\n' }}", "assistant\n<think>\n' }}")


@pytest.mark.parametrize(
    ("template", "written", "recorded", "said"),
    [
        (OPENS_THOUGHTS, "They are sad.\n</think>\n\nHello.", "<think>They are sad.\n</think>Hello.", "Hello."),
        (OPENS_THOUGHTS, "They are sad, or", "<think>They are sad, or", None),
        ("chatml", "They are sad.</think>Hello.", "They are sad.</think>Hello.", "Hello."),
        ("chatml", "[THINK]They are sad.[/THINK]Hello.", "[THINK]They are sad.[/THINK]Hello.", "Hello."),
        ("chatml", "Hello.", "Hello.", "Hello."),
    ],
)
def test_a_thought_keeps_its_marks_also_where_the_template_wrote_them(
    template: str, written: str, recorded: str, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizer_with(template)
    tokenizer.add_special_tokens({"extra_special_tokens": ["[THINK]", "[/THINK]"]})
    model = tiny_model("llama")
    model.resize_token_embeddings(len(tokenizer) + 8)
    ids = [*tokenizer(written, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    monkeypatch.setattr("esckit.chat_models.local.generate_ids", lambda *given, **how: [ids])
    (reply,) = answers(LocalChatModel(Backbone(model, tokenizer, "tiny")), [question("Hello?")])
    assert isinstance(reply, ChatReply)
    assert reply.text == recorded
    assert without_thought(reply.text) == said


def test_a_draw_depends_on_its_request_alone(local: LocalChatModel) -> None:
    requests = [question(text, sample=sample) for text in ("Hello?", "I lost my job.") for sample in range(3)]
    together = texts(local, requests)
    assert len(set(together)) == 6
    assert texts(local, requests[::-1]) == together[::-1]
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert [texts(local, [request])[0] for request in requests] == together
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_follow_temperature_and_nucleus(local: LocalChatModel) -> None:
    """The first token of many samples against the model's own probabilities."""
    how = Decoding(temperature=0.8, top_p=0.7, max_new_tokens=1)
    drawn = texts(local, [question("Hello?", how, sample) for sample in range(600)])
    prompt = torch.tensor([ChatTemplate(local.backbone.tokenizer).prompt_ids(question("Hello?").messages)])
    with torch.no_grad():
        probabilities = (local.backbone.model(input_ids=prompt).logits[0, -1] / how.temperature).softmax(-1)
    order = probabilities.argsort(descending=True)
    kept = order[probabilities[order].cumsum(0) - probabilities[order] < how.top_p]
    share = probabilities[kept] / probabilities[kept].sum()
    expected: dict[str, float] = {}
    for token, part in zip(kept.tolist(), share.tolist(), strict=True):
        text = local.backbone.tokenizer.decode([token], skip_special_tokens=True).strip()
        expected[text] = expected.get(text, 0.0) + part
    assert set(drawn) <= set(expected)
    likeliest = max(expected, key=lambda text: expected[text])
    error = (expected[likeliest] * (1 - expected[likeliest]) / len(drawn)) ** 0.5
    assert abs(drawn.count(likeliest) / len(drawn) - expected[likeliest]) < 4 * error


def test_decodings_may_differ_within_a_batch(local: LocalChatModel) -> None:
    requests = [question("Hello?", GREEDY), question("Hello?"), question("Why?", GREEDY)]
    assert texts(local, requests) == [texts(local, [request])[0] for request in requests]


def test_what_is_too_long_fails_alone(local: LocalChatModel) -> None:
    long = question("so tired " * POSITIONS)
    first, failure, last = answers(local, [question("Hello?"), long, question("Why?")])
    assert isinstance(first, ChatReply)
    assert isinstance(last, ChatReply)
    assert isinstance(failure, CallFailure)
    assert (failure.kind, failure.then) == ("too_long", "give_up")


def test_the_identity_names_weights_and_template() -> None:
    def identity(seed: int, template: str) -> Any:
        return LocalChatModel(Backbone(tiny_model(seed=seed), tokenizer_with(template), "x")).identity

    assert identity(0, "chatml") == identity(0, "chatml")
    assert identity(0, "chatml") != identity(1, "chatml")
    assert identity(0, "chatml") != identity(0, "headers")


def scored(text: str, how: Decoding) -> ChatRequest:
    return replace(question(text, how), schema=Judgement)


def test_a_reply_to_a_request_with_a_schema_is_its_object(local: LocalChatModel) -> None:
    """Of a model with random weights, whose plain replies beside it are what they are alone."""
    how = replace(HOT, max_new_tokens=70)
    requests = [scored("Hello?", how), question("Hello?", how), scored("Why?", how), scored("Hello?", how)]
    found = answers(local, requests)
    assert found[0] == found[3]
    assert answers(local, requests[1:2]) == found[1:2]
    for result in (found[0], found[2]):
        assert isinstance(result, ChatReply)
        assert result.finish == "stop"
        assert parse_reply(result.text, Judgement).score in range(1, 6)


def test_a_reply_that_the_limit_cuts_is_no_object(local: LocalChatModel) -> None:
    (cut,) = answers(local, [scored("Hello?", GREEDY)])
    assert isinstance(cut, ChatReply)
    assert cut.finish == "length"
    assert cut.text == '{"score":'


def test_where_the_prompt_has_opened_a_thought_the_object_follows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    guides: list[Any] = []

    def write(*given: Any, **how: Any) -> list[list[int]]:
        guides.extend(how["guides"])
        return [[0]]

    monkeypatch.setattr("esckit.chat_models.local.generate_ids", write)
    for template in (OPENS_THOUGHTS, "chatml"):
        answers(LocalChatModel(Backbone(tiny_model(), tokenizer_with(template), "tiny")), [scored("Hello?", GREEDY)])
    thinking, direct = guides
    assert thinking.allowed() is None
    assert direct.allowed().sum() == 1


def test_a_tokenizer_that_cannot_be_read_leaves_json_to_the_prompt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*given: Any) -> None:
        raise UnguidedError("it is made of stone")

    backbone = Backbone(tiny_model("llama", seed=2), tiny_tokenizer(), "tiny")
    guided = LocalChatModel(backbone)
    assert guided.identity == {**guided.unguided, "json": "guided/1"}
    monkeypatch.setattr("esckit.chat_models.local.JsonGuides", refuse)
    model = LocalChatModel(backbone)
    assert model.identity == model.unguided == guided.unguided
    plain = replace(scored("Hello?", GREEDY), schema=None)
    assert texts(model, [scored("Hello?", GREEDY)]) == texts(model, [plain])
    assert "JSON is asked for by the prompt alone: it is made of stone." in capsys.readouterr().err


def test_a_backbone_is_asked_through_a_ledger(local: LocalChatModel, tmp_path: Path) -> None:
    requests = [question(f"Hello {number}?", sample=number % 3) for number in range(12)]
    local.batch_size = 5
    with Ledger(tmp_path / "ledger") as ledger:
        asker = Asker(local, ledger, "chat/1")
        outcomes = asker.ask(requests)
        assert [outcome.text for outcome in outcomes] == texts(local, requests)
        assert asker.ask(requests) == outcomes
        assert asker.usage.calls == 0
