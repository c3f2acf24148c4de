"""Asking: every item ends in one recorded state, whatever the model, the network or a SIGKILL does."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from esckit.chat_models.asker import Asker, ToAsk
from esckit.chat_models.ledger import Ledger, Outcome
from esckit.chat_models.pacing import Pace
from esckit.chat_models.protocol import CallFailure, ChatReply, ChatRequest, Usage
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding
from esckit.errors import BudgetSpent, ChatError, LedgerError
from tests.chat_models.questions import AT_ONCE, QUICK, STEP, questions, remote
from tests.chat_models.scripted import Script, ScriptedModel, says
from tests.server import FAULTY, KEY, ChatServer, reply_fault

GOOD = '{"score": 2, "reason": "x"}'
BUSY = CallFailure("http_503", "busy", "retry", crowded=True)
GONE = CallFailure("unreachable", "refused", "wait", stop=ChatError("nothing answers: start the server."))
BAD = CallFailure("http_400", "too long", "doubt")
STOP = CallFailure("http_401", "no", "stop", stop=ChatError("the key is refused: export another."))
LOST = CallFailure("timeout", "no reply", "retry", lost=True)
FAST = Pace(attempts=3, first_wait=0.001, longest_wait=0.002)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def rows(path: Path, columns: str = "key, state, text, finish, failure, detail", table: str = "items") -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return sorted(database.execute(f"SELECT {columns} FROM {table}").fetchall())


def fails(times: int, failure: CallFailure, then: str = GOOD) -> Script:
    """Each question fails so often, and is then answered."""
    return lambda question, before: failure if before < times else ChatReply(then, "stop", Usage(10, 5, 2))


# -------------------------------------------------------------------------------------------------------------- states


@pytest.mark.parametrize(
    ("script", "json_asked", "outcome", "calls"),
    [
        (says(GOOD), True, Outcome("done", GOOD, "stop"), 1),
        (says("I hear you."), False, Outcome("done", "I hear you.", "stop"), 1),
        (says(" \n"), False, Outcome("unparsed", " \n", "stop", detail="it is blank"), 1),
        (says("three"), True, Outcome("unparsed", "three", "stop", detail="it holds no JSON object"), 2),
        (lambda q, b: ChatReply("no", "refused"), True, Outcome("refused", "no", "refused"), 1),
        (fails(9, BAD), True, Outcome("failed", failure="http_400", detail="too long"), 2),
        (fails(9, BUSY), True, Outcome("failed", failure="http_503", detail="busy"), 3),
        (fails(2, BUSY), True, Outcome("done", GOOD, "stop"), 3),
    ],
)
def test_each_end_is_a_state(script: Script, json_asked: bool, outcome: Outcome, calls: int, ledger: Ledger) -> None:
    model = ScriptedModel(script)
    asker = Asker(model, ledger, STEP, FAST)
    assert asker.ask(questions(1, json=json_asked)) == [outcome]
    assert model.asked.total() == asker.usage.calls == calls
    assert asker.ask(questions(1, json=json_asked)) == [outcome]  # from the record
    assert model.asked.total() == calls
    assert (asker.usage.calls, asker.usage.recorded) == (0, 1)


def test_a_broken_reply_is_repaired_in_one_turn(ledger: Ledger, tmp_path: Path) -> None:
    asker = Asker(
        ScriptedModel(lambda question, before: ChatReply("three" if question.startswith("Q") else GOOD, "stop")),
        ledger,
        STEP,
    )
    assert asker.ask(questions(1)) == [Outcome("done", GOOD, "stop")]
    assert (asker.usage.calls, asker.usage.repairs, asker.usage.retries) == (2, 1, 0)
    ledger.close()
    assert rows(ledger.path, "id, result, text", "calls") == [(1, "draft", "three"), (2, "reply", GOOD)]


def test_a_repair_that_is_tried_again_is_one_repair(ledger: Ledger) -> None:
    def script(question: str, before: int) -> ChatReply | CallFailure:
        if question.startswith("Question"):
            return ChatReply("three", "stop")
        return ChatReply(GOOD, "stop") if before else LOST

    asker = Asker(ScriptedModel(script), ledger, STEP, FAST)
    assert asker.ask(questions(1)) == [Outcome("done", GOOD, "stop")]
    assert (asker.usage.calls, asker.usage.repairs, asker.usage.retries) == (3, 1, 1)


def test_what_is_refused_for_its_form_is_sent_again_at_once_and_is_no_attempt(ledger: Ledger) -> None:
    again = CallFailure("sent_again", "HTTP 400: not so", "again")

    def script(question: str, before: int) -> ChatReply | CallFailure:
        return again if before < 5 else BUSY if before == 5 else ChatReply("Yes.", "stop")

    asker = Asker(ScriptedModel(script), ledger, STEP, replace(FAST, attempts=2))
    assert asker.ask(questions(3, json=False)) == [Outcome("done", "Yes.", "stop")] * 3
    assert (asker.usage.calls, asker.usage.retries, asker.usage.failures["sent_again"]) == (21, 3, 15)


def test_an_answer_that_is_none_stops_a_run_after_two_tries(ledger: Ledger) -> None:
    page = CallFailure("web_page", "x", "retry", attempts=2, stop=ChatError("a web page."))
    model = ScriptedModel(lambda q, before: page)
    with pytest.raises(ChatError, match=r"a web page\."):
        Asker(model, ledger, STEP, FAST).ask(questions(5))
    assert max(model.asked.values()) == 2


def test_where_others_are_answered_it_fails_alone_after_three(ledger: Ledger) -> None:
    page = CallFailure("web_page", "x", "retry", attempts=2, stop=ChatError("a web page."))
    model = ScriptedModel(lambda q, before: page if "0" in q else ChatReply(GOOD, "stop"))
    outcomes = Asker(model, ledger, STEP, FAST).ask(questions(5))
    assert [outcome.state for outcome in outcomes] == ["failed", "done", "done", "done", "done"]
    assert model.asked.total() == 3 + 4


@pytest.mark.parametrize("text", ["", "  ", "<think>\nThey sound alone.", "<think>They"])
def test_a_reply_that_the_limit_cut_before_it_began_is_not_repaired(text: str, ledger: Ledger) -> None:
    for schema in (True, False):
        asker = Asker(ScriptedModel(says_cut(text)), ledger, f"{STEP}/{schema}", FAST)
        assert [outcome.state for outcome in asker.ask(questions(2, json=schema))] == ["unparsed"] * 2
        assert (asker.usage.calls, asker.usage.cut) == (2, 2)
        assert "2 replies were cut at the limit, a thought counts" in str(asker.usage)


def says_cut(text: str) -> Script:
    return lambda question, before: ChatReply(text, "length")


def test_what_is_shown_for_repair_has_no_thought_and_is_never_empty(ledger: Ledger) -> None:
    model = Remembering(lambda q, before: ChatReply("<think>One.</think>\nthree" if before else "<think>Two.", "stop"))
    assert Asker(model, ledger, STEP, FAST).ask(questions(1))[0].state == "unparsed"
    assert model.last[1].content == "(no reply)"


class Remembering(ScriptedModel):
    """Keeps the messages of its last request."""

    last: Sequence[Message] = ()

    async def answer(self, requests: Sequence[ChatRequest]) -> AsyncIterator[tuple[int, ChatReply | CallFailure]]:
        self.last = requests[-1].messages
        async for answer in super().answer(requests):
            yield answer


def test_settings_that_were_left_out_are_on_record(ledger: Ledger) -> None:
    reply = ChatReply("Yes.", "stop", left_out=("temperature", "top_p"))
    for _ in range(2):
        outcomes = Asker(ScriptedModel(lambda q, before: reply), ledger, STEP, FAST).ask(questions(1, json=False))
        assert outcomes == [Outcome("done", "Yes.", "stop", left_out="temperature,top_p")]


def test_equal_requests_are_asked_once_and_answered_each(ledger: Ledger) -> None:
    model = ScriptedModel(says(GOOD))
    first, second = questions(2)
    outcomes = Asker(model, ledger, STEP).ask([first, second, first, replace(first, sample=1)])
    assert len(outcomes) == 4
    assert model.asked.total() == 3


def test_a_step_asks_anew_what_another_step_asked(ledger: Ledger) -> None:
    model = ScriptedModel(says(GOOD))
    for step in ("judge/1", "judge/2", "judge/1"):
        Asker(model, ledger, step).ask(questions(2))
    assert model.asked.total() == 4


def test_outcomes_come_as_they_are_known(ledger: Ledger) -> None:
    """What is on record first, and nothing waits for the slowest."""

    async def places() -> list[int]:
        first = questions(4)[3:]
        _ = [_ async for _ in Asker(ScriptedModel(says(GOOD)), ledger, STEP).answers(first)]
        slow = ScriptedModel(fails(0, BUSY))
        slow.script = lambda q, before: BUSY if "0" in q and before == 0 else ChatReply(GOOD, "stop")
        return [place async for place, _ in Asker(slow, ledger, STEP, FAST).answers(questions(4))]

    found = asyncio.run(places())
    assert sorted(found) == [0, 1, 2, 3]
    assert (found[0], found[-1]) == (3, 0)


def test_a_model_that_takes_batches(ledger: Ledger) -> None:
    model = ScriptedModel(lambda q, before: BUSY if "3" in q and before == 0 else ChatReply(GOOD, "stop"))
    model.batch_size, model.concurrency = 3, 1
    outcomes = Asker(model, ledger, STEP, FAST).ask(questions(7))
    assert [outcome.state for outcome in outcomes] == ["done"] * 7
    assert sum(model.batches) == 8
    assert model.batches[:2] == [3, 3]
    assert (model.most_at_once, model.closed) == (1, 1)


# ---------------------------------------------------------------------------------------------------- pace and stopping


def test_as_many_calls_at_once_as_the_model_takes_and_fewer_in_a_crowd(ledger: Ledger) -> None:
    model = ScriptedModel(says(GOOD), concurrency=6, delay=0.002)
    Asker(model, ledger, "a").ask(questions(30))
    assert model.most_at_once == 6
    crowd = ScriptedModel(lambda q, before: BUSY if model_is_full(crowd) else ChatReply(GOOD, "stop"))
    crowd.concurrency, crowd.delay = 16, 0.002
    asker = Asker(crowd, ledger, "b", replace(FAST, attempts=50))
    assert {outcome.state for outcome in asker.ask(questions(200))} == {"done"}
    assert crowd.most_at_once == 16
    assert asker.usage.failures["http_503"] < 150  # never slowing down would be refused most of the time


def test_after_a_crowd_the_calls_at_once_creep_back(ledger: Ledger) -> None:
    seen: list[int] = []

    def script(question: str, before: int) -> ChatReply | CallFailure:
        seen.append(model.at_once)
        return BUSY if "n 0?" in question and not before else ChatReply(GOOD, "stop")

    model = ScriptedModel(script, concurrency=8, delay=0.001)
    Asker(model, ledger, STEP, FAST).ask(questions(120))
    assert (seen[0], max(seen[-40:])) == (8, 8)
    assert max(seen[8:18]) <= 6


def model_is_full(model: ScriptedModel) -> bool:
    return model.at_once > 4


def test_an_error_that_stops_the_run_waits_for_what_is_under_way(ledger: Ledger) -> None:
    def script(question: str, before: int) -> ChatReply | CallFailure:
        return STOP if "0" in question else ChatReply(GOOD, "stop")

    model = ScriptedModel(script, concurrency=3, delay=0.002)
    with pytest.raises(ChatError, match=r"^the key is refused: export another\.$"):
        Asker(model, ledger, STEP).ask(questions(9))
    assert model.asked.total() == 3
    assert model.closed == 1
    known = ledger.outcomes(request.key(STEP, "scripted") for request in questions(9))
    assert [outcome.state for outcome in known.values()] == ["done", "done"]
    model.script = says(GOOD)
    assert len(Asker(model, ledger, STEP).ask(questions(9))) == 9
    assert model.asked.total() == 3 + 7
    ledger.close()
    assert [stopped for _, stopped in rows(ledger.path, "id, stopped", "runs")] == ["http_401", None]


def test_nobody_there_is_told_at_once_and_waited_for_only_after_someone_was(ledger: Ledger) -> None:
    model = ScriptedModel(fails(99, GONE), concurrency=1)
    with pytest.raises(ChatError, match="nothing answers"):
        Asker(model, ledger, "a", FAST).ask(questions(2))
    assert model.asked.total() == 1
    away = ScriptedModel(lambda q, before: GONE if "1" in q and before < 2 else ChatReply(GOOD, "stop"), concurrency=1)
    assert len(Asker(away, ledger, "b", FAST).ask(questions(2))) == 2
    away.script = lambda q, before: GONE if "1" in q else ChatReply(GOOD, "stop")
    with pytest.raises(ChatError, match="nothing answers"):
        Asker(away, ledger, "c", FAST).ask(questions(2))
    states = ledger.outcomes(request.key("c", "scripted") for request in questions(2))
    assert len(states) == 1  # the other is no failed item: the server was away


def test_where_all_requests_are_refused_few_are_made(ledger: Ledger) -> None:
    """A wrong name of the model, to some servers, is a bad request like any other."""
    model = ScriptedModel(fails(9, BAD), concurrency=5)
    with pytest.raises(ChatError, match=r"^every request was refused \(too long\): mend the model's name"):
        Asker(model, ledger, STEP, FAST).ask(questions(100))
    assert 8 <= model.asked.total() <= 8 + 5
    assert ledger.outcomes(request.key(STEP, "scripted") for request in questions(100)) == {}


def test_many_items_at_fault_before_the_first_reply_do_not_stop_the_run(ledger: Ledger) -> None:
    async def slow_where_good() -> list[Outcome]:
        model = ScriptedModel(lambda q, before: BAD if int(q[9:-1]) < 20 else ChatReply(GOOD, "stop"), concurrency=30)
        found = [(place, o) async for place, o in Asker(model, ledger, STEP, FAST).answers(questions(60))]
        return [outcome for _, outcome in sorted(found, key=lambda pair: pair[0])]

    outcomes = asyncio.run(slow_where_good())
    assert [outcome.state for outcome in outcomes] == ["failed"] * 20 + ["done"] * 40


def test_a_wait_longer_than_our_patience_stops_the_run(ledger: Ledger) -> None:
    model = ScriptedModel(fails(1, replace(BUSY, after=3600.0)))
    with pytest.raises(ChatError, match=r"asks to wait 3600 s \(busy\): run the same again then\.$"):
        Asker(model, ledger, STEP).ask(questions(1))


def test_a_wait_that_is_asked_for_is_kept(ledger: Ledger) -> None:
    seen: list[float] = []

    def script(question: str, before: int) -> ChatReply | CallFailure:
        seen.append(time.monotonic())
        return ChatReply(GOOD, "stop") if before else replace(BUSY, after=0.1)

    Asker(ScriptedModel(script), ledger, STEP, FAST).ask(questions(1))
    assert seen[1] - seen[0] >= 0.1


def test_an_error_of_our_own_is_not_swallowed(ledger: Ledger) -> None:
    def script(question: str, before: int) -> ChatReply:
        raise ZeroDivisionError

    model = ScriptedModel(script)
    with pytest.raises(ZeroDivisionError):
        Asker(model, ledger, STEP).ask(questions(3))
    assert model.closed == 1


def test_a_consumer_that_stops_early_loses_only_what_is_under_way(ledger: Ledger) -> None:
    model = ScriptedModel(says(GOOD), concurrency=2, delay=0.001)

    async def two() -> None:
        answers = Asker(model, ledger, STEP).answers(questions(10))
        for _ in range(2):
            await anext(answers)
        await answers.aclose()

    asyncio.run(two())
    assert len(ledger.outcomes(request.key(STEP, "scripted") for request in questions(10))) >= 2
    ledger.close()
    assert rows(ledger.path, "id, stopped", "runs") == [(1, "interrupted")]


# ------------------------------------------------------------------------------------------------- budgets and figures


def test_a_budget_of_calls_stops_before_it_is_exceeded_and_can_be_raised(ledger: Ledger) -> None:
    model = ScriptedModel(fails(1, BUSY))
    with pytest.raises(BudgetSpent) as error:
        Asker(model, ledger, STEP, replace(FAST, budget_calls=11)).ask(questions(10))
    assert model.asked.total() == 11
    assert str(error.value).startswith("budget_calls 11 is used up with ")
    assert str(error.value).endswith(
        " of 10 items answered: raise it and run the same again, which asks only for the rest."
    )
    with pytest.raises(BudgetSpent):  # of the ledger, not of the run
        Asker(model, ledger, STEP, replace(FAST, budget_calls=11)).ask(questions(10))
    assert model.asked.total() == 11
    assert len(Asker(model, ledger, STEP, replace(FAST, budget_calls=40)).ask(questions(10))) == 10
    assert model.asked.total() <= 21
    ledger.close()
    assert [stopped for _, stopped in rows(ledger.path, "id, stopped", "runs")] == [
        "budget_calls",
        "budget_calls",
        None,
    ]


@pytest.mark.parametrize("failure", [BUSY, LOST])
def test_a_budget_of_tokens_is_never_exceeded(failure: CallFailure, ledger: Ledger) -> None:
    """By what the model counts; a reply that was lost counts as the most that it can have cost."""
    budget = 5000
    costs = Usage(150, 50)
    model = ScriptedModel(lambda q, before: ChatReply(GOOD, "stop", costs) if before else failure)
    with pytest.raises(BudgetSpent, match="budget_tokens 5000 is used up"):
        Asker(model, ledger, STEP, replace(FAST, budget_tokens=budget)).ask(questions(100))
    replies = sum(count - 1 for count in model.asked.values())
    bound = questions(1)[0].prompt_bytes + 50
    assert replies * 200 <= ledger.spent(STEP).tokens <= budget
    if failure is BUSY:
        assert ledger.spent(STEP).tokens == replies * 200 > budget - 2 * bound  # and it is nearly used up
    else:
        assert ledger.spent(STEP).tokens > replies * 200 + sum(1 for _ in model.asked) * bound / 2


def test_the_bound_of_a_call_holds_for_every_tokenizer_on_bytes() -> None:
    texts = ["", "plain", "é 累了 🙂" * 50, "\x00" * 30]
    for text in texts:
        assert ChatRequest((Message("user", text),)).prompt_bytes >= len(text.encode())
    with_schema, without = (questions(1, json=asked)[0].prompt_bytes for asked in (True, False))
    assert with_schema > without + 100


def test_an_estimate_before_and_a_summary_after(ledger: Ledger) -> None:
    requests = [
        ChatRequest((Message("user", f"{place}" + "x" * 390),), Decoding(max_new_tokens=7)) for place in range(5)
    ]
    model = ScriptedModel(
        lambda q, before: BUSY if q[0] == "1" and not before else ChatReply("ok", "stop", Usage(10, 5, 2))
    )
    asker = Asker(model, ledger, STEP, FAST)
    asker.ask(requests[:2])
    estimate = asker.estimate([*requests, requests[0]])
    assert estimate == ToAsk(3, 2, estimate.prompt_tokens, 21)
    assert 290 <= estimate.prompt_tokens <= 340
    asker.ask(requests)
    assert (asker.usage.items, asker.usage.recorded, asker.usage.calls) == (5, 2, 3)
    Asker(model, ledger, "other", FAST).estimate(requests)
    again = Asker(ScriptedModel(model.script), ledger, "again", FAST)
    again.ask(requests)
    summary = str(again.usage)
    assert summary.startswith(
        "5 items (0 on record; 5 done); 6 calls (1 retries, 0 repairs; 1 http_503); "
        "50 prompt tokens (10 cached) and 25 completion tokens; "
    )


# ---------------------------------------------------------------------------------------------- the server, with faults


@pytest.fixture
def with_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def question_text(request: ChatRequest) -> str:
    return request.messages[0].content


@pytest.mark.usefixtures("with_openai")
def test_2000_items_end_in_a_recorded_state_none_twice_though_a_fifth_of_all_calls_fail(tmp_path: Path) -> None:
    requests = questions(2000)
    path = tmp_path / "ledger"
    with ChatServer(FAULTY) as server, Ledger(path) as ledger:
        asker = Asker(remote(server.url), ledger, STEP, QUICK)
        outcomes = asker.ask(requests)
    broken = {"broken_twice": "unparsed", "wrong_twice": "unparsed", "refusal": "refused", "filtered": "refused"}
    faults = [reply_fault(FAULTY, question_text(request)) for request in requests]
    assert [outcome.state for outcome in outcomes] == [broken.get(str(fault), "done") for fault in faults]
    assert sum(server.faults.values()) > 0.15 * server.calls
    assert len(set(server.faults)) == 15  # every one that the server has
    usage = asker.usage
    repairs = sum(fault in ("broken", "broken_twice", "wrong", "wrong_twice") for fault in faults)
    assert usage.calls == 2000 + usage.retries + repairs
    lost = sum(count for fault, count in usage.failures.items() if fault == "timeout")  # some, before they arrived
    assert usage.calls - lost <= server.calls <= usage.calls
    assert usage.repairs == repairs
    assert len(rows(path)) == 2000
    states = Counter(row[1] for row in rows(path))
    assert states == usage.states == Counter(outcome.state for outcome in outcomes)


@pytest.mark.usefixtures("with_openai")
def test_killed_at_five_random_points_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """SIGKILL of a real process; what is asked again is at most what was under way."""
    count, kills = 400, 5
    draws = random.Random(7)
    with ChatServer(FAULTY) as server, Ledger(tmp_path / "whole") as ledger:
        Asker(remote(server.url), ledger, STEP, QUICK).ask(questions(count))
        url, calls = server.url, server.calls
    port = int(url.split(":")[2].split("/")[0])
    points = sorted(draws.sample(range(20, calls - 20), kills))
    with ChatServer(FAULTY, port) as server:  # at the same URL, as if nobody had asked before
        assert server.url == url
        for point in points:
            child = start(url, tmp_path / "killed", count)
            while server.calls < point and child.poll() is None:
                time.sleep(0.001)
            os.kill(child.pid, signal.SIGKILL)
            assert child.wait() == -signal.SIGKILL, "it ended before it was killed"
        assert start(url, tmp_path / "killed", count).wait() == 0
        seen = server.calls
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    recorded = rows(tmp_path / "killed", "id, run, key, result", "calls")
    assert seen <= len(recorded) + kills * AT_ONCE
    answered = Counter(key for _, _, key, result in recorded if result in ("reply", "draft"))
    drafts = Counter(key for _, _, key, result in recorded if result == "draft")
    assert all(number == 1 + drafts[key] for key, number in answered.items())  # no reply was asked for twice
    runs = [run for _, run, _, _ in recorded]
    assert len(set(runs)) == kills + 1
    assert all(first <= second for first, second in pairwise(runs))
    assert (
        sum(
            stopped is None and ended is not None
            for _, stopped, ended in rows(tmp_path / "killed", "id, stopped, ended", "runs")
        )
        == 1
    )


def start(url: str, ledger: Path, count: int) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    command = [sys.executable, "-m", "tests.chat_models.questions", url, str(ledger), str(count)]
    return subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.DEVNULL)


@pytest.mark.usefixtures("with_openai")
def test_a_second_process_on_the_ledger_is_told_and_asks_nothing(ledger: Ledger) -> None:
    with ChatServer() as server:
        done = start(server.url, ledger.path, 5)
        assert done.wait() != 0
        assert server.calls == 0
    with pytest.raises(LedgerError, match="another process is using the ledger"):
        Ledger(ledger.path)


def test_a_repair_under_way_at_the_kill_is_all_that_is_asked_again(tmp_path: Path) -> None:
    """The broken reply is on record, so it is not asked for again."""

    def killed(question: str, before: int) -> ChatReply:
        if question.startswith("Your reply"):
            raise KeyboardInterrupt
        return ChatReply("three", "stop")

    path = tmp_path / "ledger"
    with Ledger(path) as ledger, pytest.raises(KeyboardInterrupt):
        Asker(ScriptedModel(killed), ledger, STEP).ask(questions(1))
    model = ScriptedModel(says(GOOD))
    with Ledger(path) as ledger:
        assert Asker(model, ledger, STEP).ask(questions(1)) == [Outcome("done", GOOD, "stop")]
    (asked,) = model.asked
    assert asked.startswith("Your reply cannot be used")
    assert json.loads(rows(path, "id, usage", "runs")[-1][1])["repairs"] == 1
