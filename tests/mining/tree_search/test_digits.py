"""Scores by the probabilities of digits: against a plain forward pass, whatever stands beside a request."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from esckit.chat_models.asker import Asker
from esckit.chat_models.ledger import Ledger
from esckit.chat_models.local import LocalChatModel
from esckit.chat_models.protocol import CallFailure, ChatReply, ChatRequest
from esckit.conversation.turn_rule import Message
from esckit.language_models.backbone import Backbone
from esckit.mining.tree_search.asked_roles import QUALITIES, AskedReward
from esckit.mining.tree_search.digits import DigitsModel
from esckit.mining.tree_search.options import RewardOptions
from esckit.mining.tree_search.roles import Judged, Talk
from esckit.prompts.own import Prompts
from tests.tiny import randomise_adapter, talk, tiny_model, tiny_tokenizer, tokenizer_with, with_lora

TALK = talk(("seeker", "I lost my job."), ("supporter", "When was that?", "Question"), ("seeker", "On Monday."))
PROMPTS = Prompts("tree_search")


def local(template: str = "") -> LocalChatModel:
    tokenizer = tokenizer_with(template) if template else tiny_tokenizer()
    return LocalChatModel(Backbone(tiny_model(), tokenizer, "tiny"))


def request(text: str) -> ChatRequest:
    return ChatRequest((Message("system", "Judge."), Message("user", text)))


def answers(model: DigitsModel, *requests: ChatRequest) -> list[ChatReply | CallFailure]:
    async def asked() -> dict[int, ChatReply | CallFailure]:
        return {place: result async for place, result in model.answer(requests)}

    found = asyncio.run(asked())
    return [found[place] for place in range(len(requests))]


def scores(reply: ChatReply | CallFailure) -> dict[str, float]:
    assert isinstance(reply, ChatReply)
    found: dict[str, float] = json.loads(reply.text)
    return found


def plainly(model: LocalChatModel, text: str, quality: str) -> float:
    """The expected digit by one forward pass over the chat template's own text."""
    asked = PROMPTS.fill("reward_digit", quality=quality)
    chat = [{"role": "system", "content": "Judge."}, {"role": "user", "content": f"{text}\n\n{asked}"}]
    tokenizer = model.backbone.tokenizer
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    digits = [tokenizer(digit, add_special_tokens=False)["input_ids"][0] for digit in "01234"]
    with torch.no_grad():
        logits = model.backbone.model(ids).logits[0, -1, digits].double()
    return float(logits.softmax(-1) @ torch.arange(5.0, dtype=torch.float64))


@pytest.mark.parametrize("template", ["", "chatml"])
def test_a_score_is_the_expected_digit(template: str) -> None:
    model = local(template)
    (reply,) = answers(DigitsModel(model, PROMPTS), request("How sad."))
    assert list(scores(reply)) == list(QUALITIES)
    for quality, score in scores(reply).items():
        assert score == pytest.approx(plainly(model, "How sad.", quality), abs=1e-3)
    assert len(set(scores(reply).values())) == 4


def test_a_score_depends_on_nothing_beside_it() -> None:
    model = DigitsModel(local(), PROMPTS)
    texts = ["How sad.", "How sad it is.", "What now?", "How sad."]
    together = answers(model, *map(request, texts))
    assert together == [answers(model, request(text))[0] for text in texts]
    assert together[0] == together[3]
    assert together[0] != together[1]


def test_a_request_that_is_too_long_fails_alone() -> None:
    model = DigitsModel(local(), PROMPTS)
    short, long = answers(model, request("How sad."), request("sad " * 3000))
    assert isinstance(short, ChatReply)
    assert isinstance(long, CallFailure)
    assert (long.kind, long.then) == ("too_long", "give_up")
    assert "tokens longer than the model's context" in long.detail
    assert isinstance(answers(model, request("sad " * 3000))[0], CallFailure)


def test_the_identity_tells_digits_from_words_and_prompts_apart() -> None:
    model, own = local(), replace(PROMPTS, texts={"reward_digit": "{{quality}}?"})
    told = [model.identity, *(DigitsModel(model, prompts).identity for prompts in (PROMPTS, own))]
    assert len({json.dumps(each, sort_keys=True) for each in told}) == 3


def test_an_adapter_scores_by_itself_whichever_is_active() -> None:
    model = with_lora(tiny_model(), "generator", seed=3)
    model.add_adapter("planner", model.peft_config["generator"])
    randomise_adapter(model, "planner")
    backbone = Backbone(model, tiny_tokenizer(), "tiny")
    found = []
    for part in ("generator", "planner"):
        found += answers(DigitsModel(LocalChatModel(backbone, adapter=part), PROMPTS), request("How sad."))
    assert scores(found[0]) != scores(found[1])
    assert model.active_adapter == "generator"


def test_a_talk_is_judged_by_digits_once() -> None:
    async def judged() -> tuple[list[Judged | None], int]:
        with Ledger(Path(":memory:")) as ledger:
            asker = Asker(DigitsModel(local(), PROMPTS), ledger, "reward/1")
            async with asker.open() as live:
                role = AskedReward(live, "tiny", RewardOptions(model="smollm2", by="digits"))
                at = [Talk(TALK, TALK.trunk[:2], sample) for sample in (0, 1)]
                return list(await asyncio.gather(*map(role.judge, at))), asker.usage.calls

    (one, other), calls = asyncio.run(judged())
    assert calls == 1
    assert one is not None
    assert one == other
    assert list(one.scores) == list(QUALITIES)
    assert all(0 < score < 4 for score in one.scores.values())
    empathy, information, humanlikeness, strategy = one.scores.values()
    assert one.reward == pytest.approx((empathy + information + humanlikeness + 7 * strategy) / 10 - 3)
