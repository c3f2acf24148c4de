"""Replies that people gave, given again: the right strategy, a similar place, never twice, never one's own."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esckit.conversation import Conversation, Turn
from esckit.corpora import load_corpus
from esckit.decoding import Decoding
from esckit.errors import CorpusError, ModelError
from esckit.planning.encoder import Encoder, load_encoder
from esckit.rendering import supporter_turns
from esckit.supporters import Supporter
from esckit.supporters.parts import Wording
from esckit.supporters.prediction import predict_conversation
from esckit.supporters.proposing import TurnRequest
from esckit.supporters.retrieval import ReplyStore, build_store, context_texts
from esckit.supporters.supporter_folder import SupporterCard
from tests.tiny import talk


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder()


@pytest.fixture(scope="module")
def train() -> list[Conversation]:
    return load_corpus("starter").train[:12]


@pytest.fixture(scope="module")
def store(encoder: Encoder, train: list[Conversation]) -> ReplyStore:
    return build_store(train, encoder, "starter", "CC0-1.0", Counter())


def replies(store: ReplyStore, conversation: Conversation, strategies: list[str] | None = None) -> list[str]:
    turns = [turn for turn in supporter_turns(conversation) if strategies or turn.strategy in store.strategies]
    wanted = strategies or [str(turn.strategy) for turn in turns]
    asked = [wording(conversation, turn.parent, strategy) for turn, strategy in zip(turns, wanted, strict=True)]
    found = store.write(asked)
    assert None not in found
    return [reply.text for reply in found if reply]


def wording(conversation: Conversation, parent: str | None, strategy: str, *unlike: str) -> Wording:
    return Wording(conversation, parent, strategy, {}, Decoding(), 0, frozenset(unlike))


def test_replies_have_the_wanted_strategy_and_are_not_said_twice(store: ReplyStore) -> None:
    dialogue = load_corpus("starter").test[0]
    turns = [turn for turn in supporter_turns(dialogue) if turn.strategy in store.strategies]
    said = replies(store, dialogue)
    assert len(set(said)) == len(said) == len(turns)
    known = {reply.text.strip(): reply.strategy for reply in store.replies}
    assert [known[text] for text in said] == [turn.strategy for turn in turns]
    asked = replies(store, dialogue, ["Question"] * len(supporter_turns(dialogue)))
    assert {known[text] for text in asked} == {"Question"}
    assert len(set(asked)) == len(asked)


def test_what_the_history_already_says_is_not_said_again(store: ReplyStore) -> None:
    seeker = "I cannot sleep and I do not know why"
    fresh = talk(("seeker", seeker), ("supporter", "…", "Question"))
    (first,) = replies(store, fresh)
    repeated = talk(
        ("seeker", seeker),
        ("supporter", first.upper() + " ", "Question"),
        ("seeker", seeker),
        ("supporter", "…", "Question"),
    )
    assert replies(store, repeated)[1] != first


def test_a_dialogue_is_not_answered_with_its_own_replies(store: ReplyStore, train: list[Conversation]) -> None:
    own = {(turn.text or "").strip() for turn in supporter_turns(train[0])}
    assert not own & set(replies(store, train[0]))


def test_the_most_similar_context_is_taken(encoder: Encoder) -> None:
    pool = [
        talk(
            ("seeker", "My exams are close and I panic"),
            ("supporter", "What do exams mean?", "Question"),
            conversation_id="a",
        ),
        talk(("seeker", "He left, we broke up"), ("supporter", "What hurts most?", "Question"), conversation_id="b"),
    ]
    store = build_store(pool, encoder, "made", "CC0", Counter())
    for text, wanted in (
        ("we broke up after six years", "What hurts most?"),
        ("the test at school", "What do exams mean?"),
    ):
        assert replies(store, talk(("seeker", text), ("supporter", "…", "Question"))) == [wanted]


def test_a_context_is_the_seekers_last_words_and_what_led_there() -> None:
    dialogue = talk(("seeker", "a"), ("supporter", "b"), ("seeker", "c "), ("seeker", "d"), ("supporter", "e"))
    assert context_texts(dialogue.trunk[:4]) == ("c d", "a b")
    assert context_texts(dialogue.trunk) == ("d e", "d e"), "after a supporter's turn: what was said last"
    assert context_texts([]) == ("", "")


def test_a_strategy_without_replies_is_a_sentence(store: ReplyStore) -> None:
    assert "Self-disclosure" not in store.strategies
    dialogue = talk(("seeker", "hello"), ("supporter", "…", "Question"))
    assert store.write([wording(dialogue, "0", "Self-disclosure")]) == [None]
    supporter: Any = Supporter(SupporterCard("decoupled", "gold", generator="retrieval"), None, store)  # type: ignore[arg-type]
    with pytest.raises(ModelError) as error:
        supporter.propose([TurnRequest(dialogue, "0", 0, strategy="Self-disclosure")])
    assert "no replies under the strategy 'Self-disclosure': it has Affirmation" in str(error.value)


def test_a_dialogue_that_used_up_every_reply_is_a_sentence(encoder: Encoder) -> None:
    pool = [talk(("seeker", "I panic"), ("supporter", "Why?", "Question"), conversation_id="a")]
    supporter = Supporter(
        SupporterCard("decoupled", "gold", generator="retrieval"),
        Certain(),
        build_store(pool, encoder, "x", "y", Counter()),
    )
    twice = talk(("seeker", "hello"), ("supporter", "…", "Question"), ("supporter", "…", "Question"))
    with pytest.raises(ModelError, match="no reply left in conversation 'talk': use a larger corpus"):
        predict_conversation(supporter, twice, seed=0)


class Certain:
    """A planner that is sure of itself."""

    identity = "certain"

    def score(self, _: Conversation, turns: Sequence[Turn], __: Any) -> Any:
        return np.log(np.tile(np.eye(8)[0] * 0.92 + 0.01, (len(turns), 1)))


def test_a_streamed_reply_is_the_nearest_one_that_is_not_unwanted_until_none_is_left(store: ReplyStore) -> None:
    dialogue = talk(("seeker", "I cannot sleep"), ("supporter", "…", "Others"))
    unwanted: list[str] = []
    told: list[str] = []

    def more() -> str | None:
        asked = wording(dialogue, "0", "Others", *(text.upper() for text in unwanted))
        (reply,) = store.write([asked], told.append)
        return reply and reply.text

    assert more() == replies(store, dialogue)[0]
    while text := more():
        unwanted.append(text)
    known = {" ".join(reply.text.split()) for reply in store.replies if reply.strategy == "Others"}
    assert {" ".join(text.split()) for text in unwanted} == known
    assert told == [unwanted[0], *unwanted]


def test_a_saved_store_answers_as_before(store: ReplyStore, tmp_path: Path) -> None:
    store.save(tmp_path / "store")
    again = ReplyStore.load(tmp_path / "store")
    dialogue = load_corpus("starter").test[1]
    assert replies(again, dialogue) == replies(store, dialogue)
    assert again.identity == store.identity
    assert "starter" in again.about
    assert "CC0-1.0" in again.about


def test_a_reply_may_hold_what_separates_lines_elsewhere(store: ReplyStore, tmp_path: Path) -> None:
    odd = [replace(reply, text=f"one\u2028two\u2029three\x85four\x0b{n}") for n, reply in enumerate(store.replies)]
    ReplyStore(odd, store.vectors, store.encoder, "starter", "CC0-1.0").save(tmp_path / "store")
    assert ReplyStore.load(tmp_path / "store").replies == odd


def test_a_store_that_is_not_whole_is_refused(store: ReplyStore, tmp_path: Path) -> None:
    store.save(tmp_path / "store")
    card = json.loads((tmp_path / "store/store.json").read_text(encoding="utf-8"))
    (tmp_path / "store/store.json").write_text(json.dumps({**card, "encoder_hash": "0"}), encoding="utf-8")
    with pytest.raises(ModelError, match="is not the one that"):
        ReplyStore.load(tmp_path / "store")
    np.save(tmp_path / "store/contexts.npy", store.vectors[:3])
    with pytest.raises(ModelError, match="no reply store of this version"):
        ReplyStore.load(tmp_path / "store")
    (tmp_path / "store/contexts.npy").unlink()
    with pytest.raises(ModelError, match="no whole reply store"):
        ReplyStore.load(tmp_path / "store")


def test_a_corpus_without_usable_replies_is_refused(encoder: Encoder) -> None:
    with pytest.raises(CorpusError, match="no supporter reply"):
        build_store([talk(("seeker", "a"), ("supporter", "My mother too", "Others"))], encoder, "x", "y", Counter())
