"""Questions that arise one at a time, from many tasks at once; and whose fault a refusal is."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from esckit.chat_models.asker import Asker
from esckit.chat_models.ledger import Ledger, Outcome
from esckit.chat_models.live import LiveAsker
from esckit.chat_models.local import LocalChatModel
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import CallFailure, ChatReply, ChatRequest, Usage
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.errors import BudgetSpent, ChatError
from esckit.language_models.backbone import Backbone
from tests.chat_models.questions import QUICK, STEP, questions, remote
from tests.chat_models.scripted import Script, ScriptedModel, says
from tests.chat_models.test_asker import BUSY, FAST, GOOD, rows
from tests.server import FAULTY, KEY, ChatServer
from tests.tiny import POSITIONS, tiny_model, tiny_tokenizer

DOUBT = CallFailure("http_400", "no such model", "doubt")
DENIED = CallFailure("http_403", "not you", "deny", stop=ChatError("the key is refused: export another."))
LONG = CallFailure("too_long", "9 tokens longer", "give_up")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def number(question: str) -> int:
    return int(question.removeprefix("Question ").removesuffix("?"))


def live(asker: Asker, work: Callable[[LiveAsker], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asker.open() as opened:
            await work(opened)

    asyncio.run(main())


async def searches(opened: LiveAsker, tasks: int, each: int, *, json: bool = True) -> list[list[Outcome]]:
    """So many tasks, which ask so many questions each, one after the other."""
    asked = questions(tasks * each, json=json)

    async def search(task: int) -> list[Outcome]:
        return [await opened.ask(request) for request in asked[task * each : (task + 1) * each]]

    return list(await asyncio.gather(*(search(task) for task in range(tasks))))


# ------------------------------------------------------------------------------------------------------ as they arise


def test_fifty_searches_of_four_questions_each_with_faults_are_recorded_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    found: list[list[Outcome]] = []

    async def work(opened: LiveAsker) -> None:
        found.extend(await searches(opened, 50, 4))

    with ChatServer(FAULTY) as server, Ledger(tmp_path / "whole") as opened:
        Asker(remote(server.url), opened, STEP, QUICK).ask(questions(200))
        port = server.port
    with ChatServer(FAULTY, port) as server, Ledger(tmp_path / "live") as opened:
        asker = Asker(remote(server.url, concurrency=7), opened, STEP, QUICK)
        live(asker, work)
        assert sum(server.faults.values()) > 0.1 * server.calls
        assert asker.usage.calls == server.calls
        assert (asker.usage.items, asker.usage.states.total()) == (200, 200)
    assert rows(tmp_path / "live") == rows(tmp_path / "whole")
    assert len({outcome.state for own in found for outcome in own}) == 3  # done, unparsed, refused
    assert rows(tmp_path / "live", "items, stopped", "runs") == [(200, None)]


def test_searches_share_one_limit_of_calls_at_once(ledger: Ledger) -> None:
    model = ScriptedModel(says(GOOD), concurrency=5, delay=0.001)

    async def work(opened: LiveAsker) -> None:
        await searches(opened, 20, 4)

    live(Asker(model, ledger, STEP), work)
    assert (model.most_at_once, model.asked.total(), model.closed) == (5, 80, 1)


def test_the_same_question_at_the_same_time_is_asked_once(ledger: Ledger) -> None:
    model = ScriptedModel(says(GOOD), delay=0.001)
    asker = Asker(model, ledger, STEP)

    async def work(opened: LiveAsker) -> None:
        (request,) = questions(1)
        found = await asyncio.gather(*(opened.ask(request) for _ in range(5)))
        assert found == [Outcome("done", GOOD, "stop")] * 5
        assert await opened.ask(request) == found[0]  # from the record

    live(asker, work)
    assert model.asked.total() == asker.usage.calls == 1


def test_a_task_that_is_cancelled_leaves_its_answer_on_record(ledger: Ledger) -> None:
    model = ScriptedModel(says(GOOD), delay=0.001)

    async def work(opened: LiveAsker) -> None:
        first, second = questions(2)
        given_up, other = (asyncio.create_task(opened.ask(first)) for _ in range(2))
        await asyncio.sleep(0)
        given_up.cancel()
        assert (await other).state == "done"
        assert (await opened.ask(first)).state == (await opened.ask(second)).state == "done"

    live(Asker(model, ledger, STEP), work)
    assert model.asked.total() == 2


def test_a_block_that_ends_early_keeps_what_came_and_goes_on_from_there(ledger: Ledger) -> None:
    model = ScriptedModel(says(GOOD), concurrency=1)

    async def stops(opened: LiveAsker) -> None:
        others = [asyncio.create_task(opened.ask(request)) for request in questions(30)]
        await others[4]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        live(Asker(model, ledger, STEP), stops)
    known = len(ledger.outcomes(r.key(STEP, "scripted") for r in questions(30)))
    assert 5 <= known < 30
    asked = model.asked.total()

    async def again(opened: LiveAsker) -> None:
        await searches(opened, 30, 1)

    live(Asker(model, ledger, STEP), again)
    assert set(model.asked.values()) <= {1, 2}
    assert model.asked.total() == asked + 30 - known


def test_a_kill_loses_nothing_that_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL of a real process amid its searches; the next one asks for what is not on record, once."""
    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root / "src"), str(root)])
    with ChatServer(replace(FAULTY, call_faults=0.0, reply_faults=0.0)) as server:
        command = [sys.executable, "-m", "tests.chat_models.test_live", server.url, str(tmp_path / "ledger")]
        child = subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": path})
        while server.calls < 60 and child.poll() is None:
            os.sched_yield()
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, "it ended before it was killed"
        before = server.calls
        kept = len(rows(tmp_path / "ledger"))
        assert 60 - 16 <= kept < 200
        with Ledger(tmp_path / "ledger") as opened:
            live(Asker(remote(server.url), opened, STEP, QUICK), work_of_a_process)
        assert server.calls - before == 200 - kept
    assert len(rows(tmp_path / "ledger")) == 200


async def work_of_a_process(opened: LiveAsker) -> None:
    await searches(opened, 50, 4)


def test_what_waits_is_gathered_into_batches(ledger: Ledger) -> None:
    model = ScriptedModel(says("I hear you."), concurrency=1, batch_size=8)

    async def search(opened: LiveAsker, task: int) -> None:
        for request in questions(40, json=False)[task * 5 : task * 5 + 5]:
            for _ in range(task % 4):  # some take longer to come to their next question
                await asyncio.sleep(0)
            await opened.ask(request)

    async def work(opened: LiveAsker) -> None:
        await asyncio.gather(*(search(opened, task) for task in range(8)))

    live(Asker(model, ledger, STEP), work)
    assert model.batches == [8] * 5


def test_a_backbone_answers_searches_as_it_answers_a_list(tmp_path: Path) -> None:
    model = LocalChatModel(Backbone(tiny_model("llama", seed=2), tiny_tokenizer(), "tiny"), batch_size=4)
    asked = [replace(request, decoding=Decoding(max_new_tokens=4)) for request in questions(8, json=False)]
    found: list[Outcome] = []

    async def work(opened: LiveAsker) -> None:
        found.extend(await asyncio.gather(*map(opened.ask, asked)))

    with Ledger(tmp_path / "live") as one, Ledger(tmp_path / "list") as other:
        live(Asker(model, one, STEP), work)
        assert found == Asker(model, other, STEP).ask(asked)


def test_a_budget_stops_every_search(ledger: Ledger) -> None:
    model = ScriptedModel(lambda q, before: ChatReply(GOOD, "stop", Usage(10, 5)), delay=0.001)

    async def work(opened: LiveAsker) -> None:
        found = await asyncio.gather(*(searches(opened, 1, 50) for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in found] == [BudgetSpent] * 3
        with pytest.raises(BudgetSpent, match=r"^budget_calls 9 is used up with 9 of "):
            await opened.ask(questions(60)[59])

    live(Asker(model, ledger, STEP, Pace(budget_calls=9)), work)
    assert model.asked.total() == 9
    assert ledger.spent(STEP).calls == 9
    assert ledger.spent("another/1").calls == 0  # roles that share a ledger have budgets of their own
    assert len(Asker(model, ledger, "another/1", Pace(budget_calls=9)).ask(questions(9))) == 9


# -------------------------------------------------------------------------------------------------------- whose fault


def test_eight_questions_that_are_too_long_fail_alone(ledger: Ledger) -> None:
    """Nothing is wrong with the model's name, so nothing is in doubt."""
    model = ScriptedModel(lambda q, b: LONG if number(q) < 20 else ChatReply(GOOD, "stop"), concurrency=1)
    for _ in range(2):
        outcomes = Asker(model, ledger, STEP, FAST).ask(questions(30))
        assert [outcome.state for outcome in outcomes] == ["failed"] * 20 + ["done"] * 10
        assert ledger.forget_failed() == 20
    assert model.asked.total() == 30 + 20


def test_a_backbone_whose_first_questions_do_not_fit_answers_the_rest(tmp_path: Path) -> None:
    model = LocalChatModel(Backbone(tiny_model("llama", seed=2), tiny_tokenizer(), "tiny"), batch_size=3)
    how = Decoding(greedy=True, max_new_tokens=4)
    texts = [f"{place} " + "so tired " * POSITIONS for place in range(9)] + ["Hello?"]
    with Ledger(tmp_path / "ledger") as opened:
        outcomes = Asker(model, opened, STEP).ask([ChatRequest((Message("user", text),), how) for text in texts])
    assert [outcome.failure for outcome in outcomes[:9]] == ["too_long"] * 9
    assert outcomes[9].failure is None


def denying(*refused: int) -> Script:
    return lambda q, before: DENIED if number(q) in refused else ChatReply(GOOD, "stop")


@pytest.mark.parametrize("concurrency", [1, 6])
def test_a_prompt_that_is_forbidden_among_others_is_refused_alone(concurrency: int, ledger: Ledger) -> None:
    """After a reply, beside one, and where no reply follows."""
    model = ScriptedModel(denying(3, 4, 19), concurrency=concurrency, delay=0.001)
    outcomes = Asker(model, ledger, STEP, FAST).ask(questions(20))
    states = ["refused" if place in (3, 4, 19) else "done" for place in range(20)]
    assert [outcome.state for outcome in outcomes] == states
    assert outcomes[3] == Outcome("refused", "not you", failure="http_403")


@pytest.mark.parametrize("earlier", [0, 5])
def test_a_key_that_is_forbidden_first_stops_the_run(earlier: int, ledger: Ledger) -> None:
    """Also where an earlier run had replies: the key may be another one now."""
    model = ScriptedModel(says(GOOD), concurrency=3)
    Asker(model, ledger, STEP).ask(questions(earlier))
    model.script = denying(*range(100))
    with pytest.raises(ChatError, match="the key is refused"):
        Asker(model, ledger, STEP, FAST).ask(questions(100))
    assert model.asked.total() <= earlier + 3
    assert len(ledger.outcomes(r.key(STEP, "scripted") for r in questions(100))) == earlier


def test_a_key_that_is_withdrawn_on_the_way_stops_the_run(ledger: Ledger) -> None:
    model = ScriptedModel(denying(*range(10, 100)), concurrency=3, delay=0.001)
    with pytest.raises(ChatError, match="the key is refused"):
        Asker(model, ledger, STEP, FAST).ask(questions(100))
    known = ledger.outcomes(r.key(STEP, "scripted") for r in questions(100))
    assert [outcome.state for outcome in known.values()] == ["done"] * 10


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize(("failure", "told"), [(DOUBT, "every request was refused"), (DENIED, "the key is refused")])
def test_searches_whose_every_question_is_refused_stop_soon(
    tasks: int, failure: CallFailure, told: str, ledger: Ledger
) -> None:
    model = ScriptedModel(lambda q, before: failure)

    async def work(opened: LiveAsker) -> None:
        await searches(opened, tasks, 40)

    with pytest.raises(ChatError, match=told):
        live(Asker(model, ledger, STEP, FAST), work)
    assert model.asked.total() <= (3 * 8 if failure is DOUBT else tasks)


def test_a_busy_model_is_no_refusal(ledger: Ledger) -> None:
    model = ScriptedModel(lambda q, before: BUSY if before < 2 else ChatReply(GOOD, "stop"))

    async def work(opened: LiveAsker) -> None:
        found = await searches(opened, 3, 4)
        assert {outcome.state for own in found for outcome in own} == {"done"}

    live(Asker(model, ledger, STEP, FAST), work)


if __name__ == "__main__":
    with closing(Ledger(Path(sys.argv[2]))) as of_a_process:
        live(Asker(remote(sys.argv[1]), of_a_process, STEP, QUICK), work_of_a_process)
