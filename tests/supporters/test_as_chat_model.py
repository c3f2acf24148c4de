"""A supporter answers chat messages as it answers the dialogue that they are."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from esckit.chat_models.asker import Asker
from esckit.chat_models.ledger import Ledger
from esckit.chat_models.local import request_seed
from esckit.chat_models.protocol import CallFailure, ChatModel, ChatReply, ChatRequest
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.errors import ModelError
from esckit.rendering import supporter_turns, to_messages
from esckit.supporters import Supporter
from esckit.supporters.as_chat_model import SupporterChatModel
from tests.answers import requests_at, texts
from tests.chat_models.questions import Judgement
from tests.tiny import starter_dialogues

GREEDY = Decoding(greedy=True, max_new_tokens=8)
HOT = Decoding(temperature=3.0, top_p=1.0, max_new_tokens=8)


def answers(model: ChatModel, requests: Sequence[ChatRequest]) -> list[ChatReply | CallFailure]:
    async def collect() -> list[ChatReply | CallFailure]:
        return [result async for _, result in model.answer(requests)]

    return asyncio.run(collect())


def test_it_says_what_the_supporter_says_in_the_dialogue(decoupled: Supporter) -> None:
    (conversation,) = starter_dialogues(1, 8)
    turns = supporter_turns(conversation)
    labels = decoupled.taxonomy.labels
    planned = [labels[int(row.argmax())] for row in decoupled.score(conversation, turns, {})]
    wanted = texts(decoupled, requests_at(conversation, turns, planned, wording=GREEDY))
    requests = [ChatRequest(tuple(to_messages(conversation.path(turn.parent), {})), GREEDY) for turn in turns]
    replies = answers(SupporterChatModel(decoupled), requests)
    assert [reply.text for reply in replies if isinstance(reply, ChatReply)] == wanted
    assert len(set(wanted)) > 1


def test_a_draw_follows_the_requests_own_seed(decoupled: Supporter) -> None:
    requests = [ChatRequest((Message("user", "I lost my job."),), HOT, sample=sample) for sample in range(4)]
    model = SupporterChatModel(decoupled)
    first = answers(model, requests)
    assert len({str(reply) for reply in first}) == 4
    np.random.seed(3)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert answers(model, requests[::-1])[::-1] == first
    assert torch.equal(torch.get_rng_state(), before)
    assert len({request_seed(request) for request in requests}) == 4


@pytest.mark.parametrize(
    "request_",
    [
        ChatRequest((Message("system", "Be brief."), Message("user", "Hello?"))),
        ChatRequest((Message("user", "Hello?"),), schema=Judgement),
    ],
)
def test_what_it_would_pass_over_is_refused(request_: ChatRequest, decoupled: Supporter, tmp_path: Path) -> None:
    with (
        Ledger(tmp_path / "ledger") as ledger,
        pytest.raises(ModelError, match="takes neither a system message nor a schema: ask it with user and assistant"),
    ):
        Asker(SupporterChatModel(decoupled), ledger, "chat/1").ask([request_])


def test_its_identity_is_the_supporters(supporters: dict[str, Supporter], decoupled: Supporter, tmp_path: Path) -> None:
    assert SupporterChatModel(decoupled).identity == decoupled.identity
    request = ChatRequest((Message("user", "Hello?"),), GREEDY)
    with Ledger(tmp_path / "ledger") as ledger:
        asker = Asker(SupporterChatModel(decoupled), ledger, "chat/1")
        (outcome,) = asker.ask([request])
        assert outcome.state in ("done", "unparsed")
        asker.ask([request])
        assert asker.usage.calls == 0
        other = Asker(SupporterChatModel(supporters["coupled"]), ledger, "chat/1")
        other.ask([request])
        assert other.usage.calls == 1
