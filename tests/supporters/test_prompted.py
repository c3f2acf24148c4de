"""A prompted chat model behind the one operation: what it proposes, what it refuses, and talking to it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esckit.chat_models.ledger import Ledger
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import ChatReply
from esckit.decoding import Decoding
from esckit.errors import ModelError, TalkError
from esckit.supporters.baselines import BaselineOptions
from esckit.supporters.chat import Chat
from esckit.supporters.prediction import predict_conversation
from esckit.supporters.prompted import PromptedSupporter
from esckit.supporters.proposing import TurnRequest
from tests.supporters.test_baselines import Listening
from tests.tiny import talk

TALK = talk(
    ("seeker", "I lost my job."),
    ("supporter", "When was that?", "Question"),
    ("seeker", "On Monday."),
    ("supporter", "That is recent.", "Restatement or Paraphrasing"),
    conversation_id="t",
)
HERE = TurnRequest(TALK, TALK.trunk[2].id, 5)
DRAWN = Decoding()
Make = Callable[..., PromptedSupporter]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes a supporter of a method on a model, all on one ledger."""
    with Ledger(tmp_path / "ledger") as ledger:
        quick = Pace(attempts=1, first_wait=0.001, longest_wait=0.002)
        yield lambda model, method="base", **more: PromptedSupporter(
            model, ledger, BaselineOptions(method=method, **more), pace=quick
        )


def numbered(strategy: str = "Question") -> Listening:
    """Every answer is another one."""
    model = Listening(lambda question, before: ChatReply("", "stop"))
    model.script = lambda question, before: ChatReply(f"[{strategy}] Reply {len(model.requests)}.", "stop")
    return model


def test_several_candidates_are_samples_of_the_same_question_and_each_is_asked_once(make: Make) -> None:
    model = numbered()
    (found,) = make(model).propose([replace(HERE, n=3)])
    assert len(found) == 3
    assert {request.messages for request in model.requests} == {model.requests[0].messages}
    assert len({request.sample for request in model.requests}) == 3
    assert make(model).propose([replace(HERE, n=3)]) == [found]
    assert make(model).propose([HERE]) == [found[:1]]
    assert len(model.requests) == 3
    assert make(model).propose([replace(HERE, seed=6)]) != [found[:1]]
    assert all(c.strategy == "Question" and c.strategy_probabilities is None and c.finish == "stop" for c in found)
    assert found[0].extra == {"baseline": "base", "state": "done", "raw": f"[Question] {found[0].text}"}


def test_a_given_strategy_takes_the_plans_place(make: Make) -> None:
    model = numbered()
    (found,) = make(model, "base-decoupled").propose([replace(HERE, strategy="Information")])
    (asked,) = model.requests
    assert '{"strategy": "Information"}' in asked.messages[1].content
    assert found[0].strategy == "Information"
    assert make(model, "base-decoupled").propose([replace(HERE, strategy="Others", wording=None)])[0][0].text is None
    assert len(model.requests) == 1


def test_a_plan_alone_is_asked_for_and_is_not_asked_again_with_the_words(make: Make) -> None:
    model = Listening(lambda question, before: ChatReply("Others", "stop"))
    supporter = make(model, "base-decoupled")
    (plan,) = supporter.propose([replace(HERE, wording=None)])[0]
    assert (plan.strategy, plan.text, plan.extra["state"], len(model.requests)) == ("Others", None, "done", 1)
    (whole,) = supporter.propose([HERE])[0]
    assert (whole.strategy, whole.text, len(model.requests)) == ("Others", "Others", 2)


def test_each_question_is_drawn_as_its_request_says_and_may_be_as_long_as_the_options_say(make: Make) -> None:
    model = numbered()
    request = replace(HERE, wording=Decoding(temperature=1.5, max_new_tokens=8), strategy=None)
    make(model, "base-decoupled", decoding={"max_new_tokens": 99}).propose([request])
    assert [r.decoding for r in model.requests] == [Decoding(greedy=True, max_new_tokens=128)]
    model = Listening(lambda question, before: ChatReply("Others", "stop"))
    make(model, "base-decoupled", decoding={"max_new_tokens": 99}).propose([replace(request, seed=9)])
    assert model.requests[1].decoding == Decoding(temperature=1.5, max_new_tokens=99)


def test_history_shows_the_strategies_that_the_request_shows(make: Make) -> None:
    model = numbered()
    make(model).propose([replace(HERE, shown={TALK.trunk[1].id: "Others"})])
    assert '"strategy": "Others", "text": "When was that?"' in model.requests[0].messages[1].content


@pytest.mark.parametrize(
    ("method", "changed", "sentence"),
    [
        ("base", {"strategy": "Question"}, "the baseline base chooses its strategy itself, none can be given"),
        ("base", {"wording": None}, "the baseline base names no strategy without a reply"),
        ("base", {"excluded": frozenset({"Others"})}, "a prompted model cannot be kept from strategies"),
        ("base-decoupled", {"n": 2}, "a prompted model does not rank strategies"),
    ],
)
def test_what_cannot_be_heard_is_refused(make: Make, method: str, changed: dict[str, Any], sentence: str) -> None:
    model = numbered()
    with pytest.raises(ModelError, match=sentence):
        make(model, method).propose([replace(HERE, **changed)])
    assert model.requests == []
    drawn: dict[str, Any] = {"n": 2, "planning": DRAWN}
    assert changed != {"n": 2} or len(make(model, method).propose([replace(HERE, **drawn)])[0]) == 2


def test_a_text_that_was_there_before_is_drawn_again_and_given_up_in_the_end(make: Make) -> None:
    model = numbered()
    model.script = lambda question, before: ChatReply(f"[Others] {'Hm' if len(model.requests) < 3 else 'Oh'}.", "stop")
    (found,) = make(model).propose([replace(HERE, unlike=frozenset({"Hm."}))])
    assert ([each.text for each in found], len(model.requests)) == (["Oh."], 3)
    model = Listening(lambda question, before: ChatReply("No.", "refused"))
    assert make(model).propose([replace(HERE, seed=7, unlike=frozenset())]) == [[]]
    assert len(model.requests) == 4
    (refused,) = make(model).propose([replace(HERE, seed=7)])[0]
    assert (refused.text, refused.extra["state"]) == (None, "refused")


def test_one_text_is_told_whole(make: Make) -> None:
    told: list[str] = []
    make(numbered()).propose([HERE], told.append)
    assert told == ["Reply 1."]
    make(numbered()).propose([HERE, replace(HERE, seed=8)], told.append)
    assert told == ["Reply 1."]


def test_its_identity_is_model_method_words_and_examples(make: Make, tmp_path: Path) -> None:
    model = numbered()
    (tmp_path / "mine/baselines").mkdir(parents=True)
    (tmp_path / "mine/baselines/base.txt").write_text("Say: {{strategies}}", encoding="utf-8")
    whole = [make(model), make(model, "guidelines"), make(model, prompts=str(tmp_path / "mine"))]
    assert len({str(each.identity) for each in whole}) == 3
    assert make(model).identity == make(model, concurrency=3).identity


def test_threads_share_it_and_each_gets_what_it_gets_alone(make: Make) -> None:
    model = Listening(lambda question, before: ChatReply("[Others] Hm.", "stop"))
    supporter = make(model)
    requests = [replace(HERE, seed=seed) for seed in range(12)]
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda request: supporter.propose([request]), requests))
    assert found == [[each] for each in supporter.propose(requests)]
    assert len(model.requests) == 12


def test_it_predicts_as_any_supporter_does(make: Make) -> None:
    rows = predict_conversation(make(numbered()), TALK, seed=0)
    assert [(row.predicted_strategy, row.extra["state"]) for row in rows] == [("Question", "done")] * 2
    assert rows[0].raw == f"[Question] {rows[0].predicted_text}"
    assert rows[0].extra["past_strategies"] == "gold"
    with pytest.raises(ModelError, match="chooses its strategy itself"):
        predict_conversation(make(numbered()), TALK, seed=0, given_gold=True)


# ------------------------------------------------------------------------------------------------------------ talking


@pytest.mark.parametrize(("method", "calls"), [("base", 1), ("base-decoupled", 2)])
def test_it_can_be_talked_to(make: Make, method: str, calls: int) -> None:
    model = numbered()
    model.script = lambda question, before: ChatReply(
        "Others" if "You plan for" in model.requests[-1].messages[0].content else f"[Others] {len(model.requests)}",
        "stop",
    )
    chat, told = Chat(make(model, method), "prompted"), list[str]()
    chat.say("I lost my job.")
    answer = chat.reply(told.append)
    assert (answer.turn.strategy, answer.probabilities, len(model.requests)) == ("Others", {}, calls)
    assert told == [answer.turn.text]
    assert answer.turn.extra["baseline"] == method
    other = chat.reply()
    assert (other.turn.parent, other.turn.text != answer.turn.text) == (answer.turn.parent, True)
    chat.say("What now?")
    chat.reply()
    shown = '"strategy": "Others"' in model.requests[-1].messages[1].content.split("What now?")[0]
    assert shown == (method == "base")


def test_a_strategy_is_asked_for_where_the_method_plans_alone(make: Make) -> None:
    model = numbered()
    chat = Chat(make(model), "prompted")
    with pytest.raises(TalkError, match="chooses each strategy itself: none can be asked for"):
        chat.force("Question")
    chat = Chat(make(model, "base-decoupled"), "prompted")
    chat.say("I lost my job.")
    assert chat.force("Inf") == "Information"
    answer = chat.reply()
    assert (answer.turn.strategy, answer.forced) == ("Information", True)


def test_no_prompted_model_answers_words_of_danger(make: Make) -> None:
    model = numbered()
    chat = Chat(make(model), "prompted")
    chat.say("I want to kill myself.")
    assert chat.reply().turn.extra["danger"]
    assert model.requests == []


def test_an_answer_that_does_not_come_is_no_turn(make: Make) -> None:
    chat = Chat(make(Listening(lambda question, before: ChatReply("No.", "refused"))), "prompted")
    chat.say("Hello.")
    with pytest.raises(TalkError, match="no other reply here"):
        chat.reply()
    assert len(chat.conversation.turns) == 1
