"""Of the nearest stored replies, a language model chooses the one that its context makes likeliest."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
import torch

from esckit.conversation import Conversation, Turn
from esckit.corpora import load_corpus
from esckit.decoding import Decoding
from esckit.errors import ModelError
from esckit.language_models.backbone import Backbone, load_backbone
from esckit.planning.encoder import load_encoder
from esckit.rendering import Renderer
from esckit.strategy import ESCONV
from esckit.supporters.embedded import make_supporter
from esckit.supporters.parts import Wording
from esckit.supporters.reranked import NO_FITTING_REPLY, RerankedReplies, ranked_by
from esckit.supporters.retrieval import ReplyStore, StoredReply, build_store
from esckit.supporters.supporter import Supporter
from esckit.supporters.supporter_folder import SupporterCard, read_card, save_supporter
from tests.tiny import POSITIONS, TINY_PLANNER, save_base, starter_dialogues, talk, tiny_encoder

ALWAYS: Final = float("-inf")
TALK: Final = talk(("seeker", "I failed my exam."), ("supporter", "That is hard.", "Others"), ("seeker", "Yes."))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(str(save_base(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def store() -> ReplyStore:
    return build_store(load_corpus("starter").train[:12], load_encoder(), "starter", "CC0-1.0", Counter())


def ranked(store: ReplyStore, backbone: Backbone, threshold: float = ALWAYS, candidates: int = 5) -> RerankedReplies:
    renderer = Renderer(backbone.tokenizer, ESCONV, max_context=POSITIONS)
    return RerankedReplies(store, backbone, renderer, threshold=threshold, candidates=candidates)


def wording(conversation: Conversation = TALK, *unlike: str) -> Wording:
    return Wording(conversation, conversation.trunk[-1].id, "Question", {}, Decoding(), 0, frozenset(unlike))


def alone(backbone: Backbone, conversation: Conversation, parent: str | None, text: str) -> tuple[float, int]:
    """Log-probability of a reply's text and its end after a context, read alone; and how many tokens that is."""
    renderer = Renderer(backbone.tokenizer, ESCONV, max_context=POSITIONS)
    example = renderer.example(conversation, Turn("x", parent, "supporter", text, "Question"), "generator", {})
    ids = torch.tensor([[*example.context, *example.given, *example.scored]])
    with torch.no_grad():
        scores = backbone.model(input_ids=ids).logits[0, -len(example.scored) - 1 : -1].double().log_softmax(-1)
    return float(scores[range(len(example.scored)), list(example.scored)].sum()), len(example.scored)


def test_a_gain_is_what_the_context_adds_by_the_root_of_its_tokens(store: ReplyStore, backbone: Backbone) -> None:
    texts = ["What happened?", "How long have you felt so, and what did you try?", "What happened?"]
    found = ranked(store, backbone).gains(wording(), texts)
    for text, gain in zip(texts, found.tolist(), strict=True):
        after, tokens = alone(backbone, TALK, "2", text)
        before, _ = alone(backbone, Conversation("none", []), None, text)
        assert gain == pytest.approx((after - before) / tokens**0.5, abs=1e-3)


def test_the_reply_that_gains_most_among_the_nearest_is_said(store: ReplyStore, backbone: Backbone) -> None:
    chooses = ranked(store, backbone)
    near: list[str] = []

    def first_of_all(_: Wording, replies: list[StoredReply]) -> str:
        near.extend(reply.text for reply in replies)
        return near[0]

    store.choose([wording()], 5, first_of_all)
    gains = chooses.gains(wording(), near)
    (reply,) = chooses.write([wording()])
    assert reply is not None
    assert reply.text == near[int(gains.argmax())].strip()
    assert len(near) == 5
    (other,) = chooses.write([wording(TALK, reply.text)])
    assert other is not None
    assert other.text != reply.text
    (nearest,) = ranked(store, backbone, candidates=1).write([wording()])
    assert nearest == store.write([wording()])[0]


def test_below_the_threshold_it_says_that_it_has_none(store: ReplyStore, backbone: Backbone) -> None:
    (reply,) = ranked(store, backbone, threshold=1e9).write([wording()])
    assert reply is not None
    assert reply.text == NO_FITTING_REPLY
    told: list[str] = []
    ranked(store, backbone, threshold=1e9).write([wording()], told.append)
    assert told == [NO_FITTING_REPLY]


def test_a_store_that_is_used_up_has_none(store: ReplyStore, backbone: Backbone) -> None:
    everything = [reply.text for reply in store.replies]
    assert ranked(store, backbone).write([wording(TALK, *everything)]) == [None]


def test_a_supporter_keeps_its_ranker(backbone: Backbone, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    tiny_encoder(tmp_path / "encoder")
    make_supporter(
        starter_dialogues(4, 8), "few", plain, encoder=str(tmp_path / "encoder"), options=TINY_PLANNER, replies=True
    )
    model = ranked_by(Supporter.load(plain), backbone.source)
    parts = {part: plain / part for part in ("planner", "generator")}
    save_supporter(tmp_path / "ranked", model.card, parts)
    loaded = Supporter.load(tmp_path / "ranked")
    assert isinstance(loaded.generator, RerankedReplies)
    assert loaded.identity == model.identity
    assert loaded.identity != Supporter.load(plain).identity
    card = replace(read_card(tmp_path / "ranked"), ranker_hash="another")
    save_supporter(tmp_path / "changed", card, parts)
    with pytest.raises(ModelError, match=r"are not those that .* was made with"):
        Supporter.load(tmp_path / "changed")


def test_who_has_no_store_cannot_be_ranked(backbone: Backbone) -> None:
    supporter = Supporter(SupporterCard("decoupled", "hidden"), None, None)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no store of replies that a language model could choose among"):
        ranked_by(supporter, "anything")
