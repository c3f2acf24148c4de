"""Roles that a chat model plays: what it is asked, to the message, and what each kind of answer comes to."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from esckit.chat_models.asker import Asker
from esckit.chat_models.ledger import Ledger
from esckit.chat_models.live import LiveAsker
from esckit.chat_models.protocol import CallFailure, ChatReply, ChatRequest
from esckit.conversation import Conversation
from esckit.mining.tree_search.asked_roles import (
    QUALITIES,
    AskedReward,
    AskedSeeker,
    AskedStrategies,
    AskedSupporter,
    DigitScores,
)
from esckit.mining.tree_search.options import RewardOptions, RoleOptions, StrategyOptions
from esckit.mining.tree_search.roles import END, Judged, Talk
from esckit.strategy import ESCONV
from tests.tiny import talk

Found = TypeVar("Found")
Result = ChatReply | CallFailure | str

TALK: Final = talk(
    ("seeker", "I lost my job."),
    ("supporter", "When was that?", "Question"),
    ("seeker", "On Monday."),
    ("supporter", "That was sudden.", "Reflection of feelings"),
)
GOOD: Final = {"explanation": "It names the shock.", "empathy": 4, "information": 1, "humanlikeness": 3, "strategy": 2}


class Listener:
    """A chat model that keeps what it is asked and says one thing."""

    concurrency, batch_size, identity = 4, 1, "listener"

    def __init__(self, *says: Result) -> None:
        self.says = says
        self.heard: list[ChatRequest] = []

    async def answer(self, requests: Sequence[ChatRequest]) -> AsyncIterator[tuple[int, ChatReply | CallFailure]]:
        for place, request in enumerate(requests):
            said = self.says[min(len(self.heard), len(self.says) - 1)]
            self.heard.append(request)
            yield place, ChatReply(said, "stop") if isinstance(said, str) else said

    async def close(self) -> None:
        """Nothing is open."""


def play(model: Listener, part: Callable[[LiveAsker], Awaitable[Found]], step: str = "role/1") -> Found:
    async def played() -> Found:
        with Ledger(Path(":memory:")) as ledger:
            async with Asker(model, ledger, step).open() as live:
                return await part(live)

    return asyncio.run(played())


def say(model: Listener, role: type[AskedSeeker | AskedSupporter], at: Talk, *strategy: str) -> str | None:
    return play(model, lambda live: role(live, "m", RoleOptions(), ESCONV).say(at, *strategy))


def rate(model: Listener, at: Talk, temperature: float = 5.0) -> Any:
    options = StrategyOptions(model="remote:m")
    return play(model, lambda live: AskedStrategies(live, "m", options, ESCONV, temperature).rate(at))


def judge(model: Listener, **options: Any) -> Judged | None:
    told = RewardOptions(model="remote:m", **options)
    return play(model, lambda live: AskedReward(live, "m", told).judge(Talk(TALK, TALK.trunk)))


def test_the_supporter_hears_the_talk_and_its_strategy_last() -> None:
    one, other = Listener("Yes."), Listener("Yes.")
    for model, strategy in ((one, "Question"), (other, "Information")):
        assert say(model, AskedSupporter, Talk(TALK, TALK.trunk[:3]), strategy) == "Yes."
    messages, siblings = one.heard[0].messages, other.heard[0].messages
    assert [message.role for message in messages] == ["system", "user", "assistant", "user"]
    assert [message.content for message in messages[1:3]] == ["I lost my job.", "[Question] When was that?"]
    assert messages[-1].content.startswith("On Monday.\n\n")
    assert messages[:-1] == siblings[:-1]
    seam = messages[-1].content.index("Question")
    assert messages[-1].content[:seam] == siblings[-1].content[:seam]
    assert ESCONV.strategies[0].definition in messages[-1].content[seam:]


def test_a_supporter_that_speaks_twice_goes_on_behind_a_blank_turn() -> None:
    model = Listener("Yes.")
    say(model, AskedSupporter, Talk(TALK, TALK.trunk[:2]), "Question")
    assert [message.role for message in model.heard[0].messages] == ["system", "user", "assistant", "user"]
    assert model.heard[0].messages[-1].content.startswith("(Write")


def test_the_seeker_hears_the_talk_from_its_side() -> None:
    model = Listener("I know.")
    assert say(model, AskedSeeker, Talk(TALK, TALK.trunk)) == "I know."
    messages = model.heard[0].messages
    assert [message.role for message in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [message.content for message in messages[1:5]] == ["Hi", "I lost my job.", "When was that?", "On Monday."]
    assert messages[-1].content.startswith("That was sudden.\n\n")


def test_the_seeker_is_told_what_is_known_as_data() -> None:
    known = Conversation(
        "c", TALK.turns, situation='I lost "it".\nIgnore <that>.', labels={"emotion_type": "fear", "outcome": "better"}
    )
    model = Listener("I know.")
    say(model, AskedSeeker, Talk(known, TALK.trunk))
    system = model.heard[0].messages[0].content
    assert 'situation: "I lost \\"it\\".\\nIgnore \\u003cthat\\u003e."\nemotion: "fear"\n' in system
    assert "better" not in system
    assert "problem" not in system
    say(unknown := Listener("I know."), AskedSeeker, Talk(TALK, TALK.trunk))
    assert "nothing but what you have said in the talk" in unknown.heard[0].messages[0].content


@pytest.mark.parametrize("answer", ["[END]", "Thanks, that helped. </end/>", "<think>Enough.</think>[end]"])
def test_the_seeker_ends_the_talk(answer: str) -> None:
    assert say(Listener(answer), AskedSeeker, Talk(TALK, TALK.trunk)) == END


@pytest.mark.parametrize("answer", ["When was that?", "  i lost MY job. "])
def test_a_seeker_who_repeats_what_was_said_gives_no_answer(answer: str) -> None:
    assert say(Listener(answer), AskedSeeker, Talk(TALK, TALK.trunk)) is None
    assert say(Listener(f"{answer} I mean it."), AskedSeeker, Talk(TALK, TALK.trunk)) is not None


def test_a_supporter_ends_nothing() -> None:
    assert say(Listener("In the [END] it heals."), AskedSupporter, Talk(TALK, TALK.trunk[:3]), "Question")


UNHEARD: Final = [
    ChatReply("No.", "refused"),
    CallFailure("http_400", "no", "give_up"),
    ChatReply("<think>hm", "length"),
    ChatReply(" ", "stop"),
    ChatReply("[Question]", "stop"),
]


@pytest.mark.parametrize("result", UNHEARD)
@pytest.mark.parametrize("role", [AskedSeeker, AskedSupporter])
def test_an_answer_without_words_is_none(role: type[AskedSeeker | AskedSupporter], result: Result) -> None:
    assert say(Listener(result), role, Talk(TALK, TALK.trunk[:3]), "Question") is None


def test_a_cut_reply_ends_with_its_last_whole_sentence() -> None:
    cut = ChatReply("[Question] It is hard. And you", "length")
    assert say(Listener(cut), AskedSupporter, Talk(TALK, TALK.trunk[:3]), "Question") == "It is hard."


def test_a_reply_that_only_repeats_the_question_is_none() -> None:
    asked = "(Write your next reply to this, the words alone, about 25 of them. Support strategy: Question."
    assert say(Listener(asked), AskedSupporter, Talk(TALK, TALK.trunk[:3]), "Question") is None
    asked = "I do not know.\n\n(Write the next words of the person who is going through this, in the first person.)"
    assert say(Listener(asked), AskedSeeker, Talk(TALK, TALK.trunk)) == "I do not know."


ROLES: Final[dict[str, tuple[str, Callable[[LiveAsker], Callable[[Talk], Awaitable[object]]]]]] = {
    "seeker": ("{}", lambda live: AskedSeeker(live, "m", RoleOptions(), ESCONV).say),
    "supporter": (
        "{}",
        lambda live: partial(AskedSupporter(live, "m", RoleOptions(), ESCONV).say, strategy="Question"),
    ),
    "strategy": (
        '{{"scores": [{{"strategy": "Question", "score": {}}}]}}',
        lambda live: AskedStrategies(live, "m", StrategyOptions(model="remote:m"), ESCONV, 5.0).rate,
    ),
    "reward": (
        '{{"explanation": "{}", "empathy": 1, "information": 1, "humanlikeness": 1, "strategy": 1}}',
        lambda live: AskedReward(live, "m", RewardOptions(model="remote:m")).judge,
    ),
}


@pytest.mark.parametrize("role", ROLES)
def test_another_sample_is_another_question_and_the_same_is_asked_once(role: str) -> None:
    answer, part = ROLES[role]
    model = Listener(answer.format(1), answer.format(2))

    async def thrice(live: LiveAsker) -> list[object]:
        return [await part(live)(Talk(TALK, TALK.trunk, sample)) for sample in (0, 1, 0)]

    first, second, again = play(model, thrice)
    assert first is not None
    assert second is not None
    assert first == again
    assert [request.sample for request in model.heard] == [0, 1]


def scores(*each: tuple[str, Any]) -> str:
    return json.dumps({"scores": [{"strategy": name, "score": score} for name, score in each]})


def test_scores_become_priors_in_the_order_of_the_taxonomy() -> None:
    found = rate(Listener(scores(("information", 5), ("[Question]", 10), ("Dancing", 9), ("Question", 1))), seeker())
    assert list(found) == ["Question", "Information"]
    assert found["Question"].score == 10
    assert found["Question"].prior == pytest.approx(math.e / (math.e + 1), abs=1e-12)
    assert found["Information"].prior == pytest.approx(1 / (math.e + 1), abs=1e-12)
    sharp = rate(Listener(scores(("Information", 5), ("Question", 10))), seeker(), temperature=1.0)
    assert sharp["Information"].prior == pytest.approx(1 / (1 + math.e**5), abs=1e-12)


def seeker() -> Talk:
    return Talk(TALK, TALK.trunk[:3])


def test_a_strategy_role_sees_definitions_and_the_talk_as_data() -> None:
    model = Listener(scores(("Question", 1)))
    rate(model, seeker())
    system, asked = model.heard[0].messages
    assert all(f"- {each.label}: {each.definition}\n" in system.content for each in ESCONV.strategies)
    assert '{"turn": 2, "speaker": "supporter", "strategy": "Question", "text": "When was that?"}\n' in asked.content
    rate(opening := Listener(scores(("Question", 1))), Talk(TALK, []))
    assert "(nothing was said before)" in opening.heard[0].messages[1].content


@pytest.mark.parametrize(
    "answer",
    [
        scores(("Question", 11)),
        scores(("Question", -1)),
        scores(("Question", 7.5)),
        scores(("Question", True)),
        scores(("Dancing", 3)),
        scores(),
        "Question: 7",
        ChatReply("", "refused"),
    ],
)
def test_scores_that_are_none_of_the_scale_are_no_answer(answer: Result) -> None:
    assert rate(Listener(answer), seeker()) is None


def test_a_reward_is_equation_2() -> None:
    judged = judge(model := Listener(json.dumps(GOOD)))
    assert judged is not None
    assert judged.scores == {"empathy": 4.0, "information": 1.0, "humanlikeness": 3.0, "strategy": 2.0}
    assert judged.reward == pytest.approx((4 + 1 + 3 + 7 * 2) / 10 - 3, abs=1e-12)
    system, asked = (message.content for message in model.heard[0].messages)
    assert all(f"\n{quality}: " in system for quality in QUALITIES)
    reply = '{"turn": 1, "speaker": "supporter", "strategy": "Reflection of feelings", "text": "That was sudden."}'
    assert asked.index('"On Monday."') < asked.index(reply) < asked.index("Explain")
    assert asked.count("That was sudden.") == 1
    other = judge(Listener(json.dumps(GOOD)), alpha=1, bias=0)
    assert other is not None
    assert other.reward == pytest.approx((4 + 1 + 3 + 2) / 10, abs=1e-12)


def test_the_range_of_a_reward_follows_from_its_weights() -> None:
    async def ranges(live: LiveAsker) -> list[float]:
        told = [RewardOptions(model="remote:m"), RewardOptions(model="remote:m", alpha=1, bias=0)]
        roles = [AskedReward(live, "m", each) for each in told]
        return [value for role in roles for value in (role.lowest, role.theta, role.highest)]

    assert play(Listener(""), ranges) == pytest.approx([-3, 0.5, 1, 0, 0.5, 1.6])


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps(GOOD | {"strategy": 5}),
        json.dumps(GOOD | {"empathy": -1}),
        json.dumps(GOOD | {"empathy": True}),
        json.dumps(GOOD | {"empathy": 2.5}),
        json.dumps({key: value for key, value in GOOD.items() if key != "strategy"}),
        "4 1 3 2",
        ChatReply("I cannot judge that.", "refused"),
    ],
)
def test_a_reward_that_is_none_of_the_scale_is_no_answer(answer: Result) -> None:
    assert judge(Listener(answer)) is None


def test_digits_are_asked_once_whatever_the_sample() -> None:
    values = dict.fromkeys(QUALITIES, 2.5)
    model = Listener(json.dumps(values))

    async def twice(live: LiveAsker) -> list[Judged | None]:
        role = AskedReward(live, "m", RewardOptions(model="smollm2", by="digits"))
        return [await role.judge(Talk(TALK, TALK.trunk, sample)) for sample in (0, 1)]

    one, again = play(model, twice)
    assert one == again == Judged(-0.5, values)
    assert len(model.heard) == 1
    assert model.heard[0].schema is DigitScores


@pytest.mark.parametrize("value", [-0.1, 4.1, "2"])
def test_digits_outside_the_scale_are_no_answer(value: Any) -> None:
    answer = json.dumps(dict.fromkeys(QUALITIES, 2.0) | {"strategy": value})
    options = RewardOptions(by="digits", model="smollm2")
    judged = play(Listener(answer), lambda live: AskedReward(live, "m", options).judge(Talk(TALK, TALK.trunk)))
    assert judged is None
