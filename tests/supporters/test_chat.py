"""The chat as a tree: whose turn answers what, which strategy is taken, what happens where replies run out."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from esckit.conversation import Conversation, GrowingTree, Turn, check_conversation
from esckit.errors import ModelError, TalkError
from esckit.language_models.generation import Reply
from esckit.strategy import CSO, ESCONV
from esckit.supporters import Supporter
from esckit.supporters.chat import MAX_CHARACTERS, Chat, find_strategy, printable
from esckit.supporters.parts import OnText, Wording
from esckit.supporters.supporter_folder import SupporterCard
from tests.tiny import one_thread, write_supporter

RANKED: Final = ("Question", "Self-disclosure", "Reflection of feelings", "Others")


@pytest.fixture(scope="module", autouse=True)
def models_on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


class Scripted:
    """Planner and generator of known answers: strategies in the order of RANKED, replies from a table."""

    identity = "scripted"
    about = "Scripted."

    def __init__(self, **replies: list[str]) -> None:
        self.replies = {find_strategy(ESCONV, name): texts for name, texts in replies.items()}
        self.shown: list[dict[str, str]] = []
        self.strategies: frozenset[str] | None = frozenset(self.replies)

    def score(self, conversation: Conversation, turns: Sequence[Turn], shown: Any) -> NDArray[np.float64]:
        self.shown.append(dict(shown))
        order = [*RANKED, *(label for label in ESCONV.labels if label not in RANKED)]
        weights = np.array([2.0 ** -order.index(label) for label in ESCONV.labels])
        scores: NDArray[np.float64] = np.log(weights / weights.sum())[None]
        return scores

    def write(self, wanted: Sequence[Wording], on_text: OnText | None = None) -> list[Reply | None]:
        (asked,) = wanted
        assert on_text is not None, "a chat streams"
        assert asked.unlike is not None
        said = {each.text for each in asked.conversation.path(asked.parent)}
        for text in self.replies[asked.strategy]:
            if text not in {*asked.unlike, *said}:
                on_text(text)
                return [Reply(text, "stop")]
        return [None]


def chat_with(parts: Scripted, past: Any = None, trained: Any = "gold", planner: Any = "encoder") -> Chat:
    card = SupporterCard("decoupled", trained, planner=planner, generator="retrieval")
    return Chat(Supporter(card, parts, parts), "tester", past=past)


def exchange(chat: Chat, text: str) -> tuple[str | None, str | None]:
    chat.say(text)
    turn = chat.reply().turn
    return turn.strategy, turn.text


def test_the_most_likely_strategy_that_has_replies_is_taken_and_what_is_passed_over_is_told() -> None:
    chat = chat_with(Scripted(que=["Why?"], ref=["That hurts."], oth=["Hm."]))
    assert exchange(chat, "I lost my job") == ("Question", "Why?")
    chat.say("because")
    answer = chat.reply()
    assert answer.turn.strategy == "Reflection of feelings"
    assert answer.skipped == ("Question", "Self-disclosure")
    assert not answer.forced
    assert list(answer.probabilities)[:4] == list(RANKED)
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert [turn.id for turn in chat.conversation.path(chat.at)] == ["1", "2", "3", "4"]
    check_conversation(chat.conversation)


def test_another_reply_is_a_sibling_of_another_strategy_and_never_the_same_text() -> None:
    chat = chat_with(Scripted(que=["Why?", "Since when?"], ref=["Why?", "That hurts."]))
    chat.say("I lost my job")
    replies = [chat.reply().turn for _ in range(3)]
    assert [turn.parent for turn in replies] == ["1"] * 3
    assert [(turn.strategy, turn.text) for turn in replies] == [
        ("Question", "Why?"),
        ("Reflection of feelings", "That hurts."),
        ("Question", "Since when?"),
    ]
    with pytest.raises(TalkError, match="no other reply here"):
        chat.reply()
    assert chat.at == replies[-1].id


def test_one_goes_on_from_any_turn() -> None:
    chat = chat_with(Scripted(que=["Why?"], ref=["That hurts."], oth=["Hm."]))
    exchange(chat, "I lost my job")
    chat.reply()
    chat.go("2")
    chat.say("I was late")
    assert chat.conversation.turn("4").parent == "2"
    chat.go("0")
    chat.say("Hello")
    assert chat.conversation.turn("5").parent is None
    drawn = [(branch.turn.id, branch.forks, branch.current) for branch in chat.branches()]
    assert drawn == [("1", 1, False), ("2", 2, False), ("4", 2, False), ("3", 2, False), ("5", 1, True)]
    with pytest.raises(TalkError, match="no turn '9'"):
        chat.go("9")
    assert chat.at == "5"


def test_a_strategy_is_forced_once() -> None:
    chat = chat_with(Scripted(que=["Why?", "How?"], oth=["Hm.", "Yes."]))
    assert chat.force("oth") == "Others"
    chat.say("Hello")
    assert (first := chat.reply()).turn.strategy == "Others"
    assert first.forced
    assert first.turn.extra["forced"] is True
    chat.force("others")
    assert chat.reply().turn.text == "Yes.", "also another reply"
    assert exchange(chat, "Well")[0] == "Question"
    with pytest.raises(TalkError, match="no replies under Self-disclosure"):
        chat.force("self")


def test_where_a_forced_strategy_has_no_reply_left_the_next_best_is_taken() -> None:
    chat = chat_with(Scripted(que=["Why?"], oth=["Hm."]))
    chat.force("Others")
    exchange(chat, "Hello")
    chat.force("Others")
    chat.say("Well")
    answer = chat.reply()
    assert (answer.turn.strategy, answer.skipped) == ("Question", ("Others",))


@pytest.mark.parametrize(
    ("planner", "trained", "past", "used"),
    [
        ("encoder", "gold", None, "hidden"),
        ("encoder", "gold", "predicted", "predicted"),
        ("language", "gold", None, "predicted"),
        ("language", "hidden", None, "hidden"),
        ("language", "gold", "hidden", "hidden"),
    ],
)
def test_past_strategies_are_hidden_from_an_encoder_planner_unless_asked_for(
    planner: str, trained: str, past: str | None, used: str
) -> None:
    parts = Scripted(que=["Why?"], oth=["Hm."])
    chat = chat_with(parts, past, trained, planner)
    exchange(chat, "Hello")
    exchange(chat, "Well")
    assert chat.past == used
    assert parts.shown == [{}, {"2": "Question"} if used == "predicted" else {}]


def test_an_interrupted_reply_changes_nothing_and_can_be_asked_for_again() -> None:
    chat = chat_with(Scripted(que=["Why?"]))
    chat.say("Hello")

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chat.reply(interrupt)
    assert (len(chat.conversation.turns), chat.at) == (1, "1")
    assert chat.reply().turn.parent == "1"


def test_a_supporter_that_only_plans_is_refused_and_nothing_cannot_be_answered() -> None:
    parts = Scripted()
    with pytest.raises(ModelError, match="only plans"):
        Chat(Supporter(SupporterCard("decoupled", "gold", planner="encoder", generator="none"), parts, None), "x")
    with pytest.raises(TalkError, match="nothing has been said"):
        chat_with(parts).reply()


def test_what_is_no_word_is_left_out_and_what_is_too_long_is_refused() -> None:
    chat = chat_with(Scripted(que=["Why?"]))
    assert chat.say("a\x00b\x1b[31m \ud800c\tü 😀\n").text == "ab[31m \ufffdc\tü 😀"
    for text, words in ((" \x00\n", "no words"), ("x" * (MAX_CHARACTERS + 1), "20,001 characters")):
        with pytest.raises(TalkError, match=words):
            chat.say(text)
    assert len(chat.conversation.turns) == 1
    assert printable("\ud83d\ude00") == "😀", "a pair that was read as two halves"


@pytest.mark.parametrize(
    ("taxonomy", "name", "label"),
    [
        (ESCONV, " reflection OF feelings ", "Reflection of feelings"),
        (ESCONV, "r&p", "Restatement or Paraphrasing"),
        (ESCONV, "q", "Question"),
        (ESCONV, "ref", "Reflection of feelings"),
        (CSO, "es", "Empathetic Statements"),
        (CSO, "affirmation", "Affirmation"),
    ],
)
def test_a_strategy_is_found_by_label_abbreviation_or_beginning(taxonomy: Any, name: str, label: str) -> None:
    assert find_strategy(taxonomy, name) == label


@pytest.mark.parametrize(
    ("name", "words"),
    [("re", "Restatement or Paraphrasing or Reflection"), ("hug", "no strategy 'hug'"), ("", "no strategy ''")],
)
def test_a_name_of_none_or_several_strategies_is_refused(name: str, words: str) -> None:
    with pytest.raises(TalkError, match=words):
        find_strategy(ESCONV, name)


def test_a_chat_longer_than_the_stack_is_drawn() -> None:
    chat = chat_with(Scripted(que=["Why?"]))
    turns = [Turn(str(n), str(n - 1) if n else None, "seeker", "x") for n in range(3000)]
    chat.tree = GrowingTree(Conversation("long", turns))
    assert sum(1 for _ in chat.branches()) == 3000


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Supporter:
    return Supporter.load(write_supporter(tmp_path_factory.mktemp("chat") / "decoupled"))


def test_a_language_models_reply_comes_in_pieces_that_add_up_and_siblings_differ(language: Supporter) -> None:
    def talk() -> list[tuple[str, list[str]]]:
        chat, found = Chat(language, "tiny"), list[tuple[str, list[str]]]()
        chat.say("I lost my job")
        for _ in range(3):
            pieces: list[str] = []
            found.append((chat.reply(pieces.append).turn.text or "", pieces))
        assert len({turn.strategy for turn in chat.conversation.children("1")}) == 3
        return found

    replies = talk()
    for text, pieces in replies:
        assert "".join(pieces) == text
        assert len(pieces) > 1
    assert len({text for text, _ in replies}) == 3
    torch.manual_seed(9)
    before = torch.get_rng_state()
    assert talk() == replies, "the same words with the same seed"
    assert torch.equal(torch.get_rng_state(), before)
