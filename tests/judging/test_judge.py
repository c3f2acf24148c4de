"""A whole judging through a ledger."""

from pathlib import Path

import pytest

from esckit.chat_models.pacing import Pace
from esckit.errors import BudgetSpent
from esckit.judging.judge_run import judge_files
from esckit.judging.plan import JudgingOptions
from tests.judging.judged import dialogues, predicted
from tests.server import KEY, MODEL, Behaviour, ChatServer

TALKS = dialogues(6)
FILES = {"one": predicted(TALKS, lambda c, t: f"I hear you, {c} {t}.")}
CALLS = 12 * 4


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def options(server: ChatServer) -> JudgingOptions:
    return JudgingOptions(model=f"remote:{MODEL}", base_url=server.url, reference="hidden")


def test_only_what_failed_is_asked_again(tmp_path: Path) -> None:
    with ChatServer(Behaviour(call_faults=0.4, hang=0.0)) as server:
        for attempt in (1, 2):
            found = judge_files(
                FILES, TALKS, options(server), tmp_path, ledger=tmp_path / "ledger", pace=Pace(attempts=1)
            )
            failed = sum(row.states.failed for row in found.scores)
            if attempt == 1:
                assert server.calls == CALLS
                assert failed == sum(server.faults.values()) > 5
                first = failed
        assert server.calls == CALLS + first
        assert failed < first


def test_a_spent_budget_stops_it_and_more_of_it_goes_on(tmp_path: Path) -> None:
    with ChatServer() as server:
        with pytest.raises(BudgetSpent, match="raise it and run the same again"):
            judge_files(FILES, TALKS, options(server), tmp_path, ledger=tmp_path / "ledger", pace=Pace(budget_calls=10))
        assert server.calls == 10
        assert not (tmp_path / "judging.json").exists()
        judge_files(FILES, TALKS, options(server), tmp_path, ledger=tmp_path / "ledger")
        assert server.calls == CALLS
