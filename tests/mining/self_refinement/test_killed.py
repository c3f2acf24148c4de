"""A round whose refiner and judge stand behind a server with faults: killed anywhere, it ends as if it had not been."""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests.children import server as children
from tests.mining.tree_search.test_killed import AT_ONCE, FAULTY, items
from tests.server import KEY, MODEL, ChatServer

pytest.importorskip("openai", reason="needs esckit[remote]")

TALKS: Final = 12
KILLS: Final = 4


def refine(url: str, place: Path) -> None:
    """In a process of its own: a round whose drafts take a moment each."""
    import os

    from esckit.chat_models import opening
    from esckit.chat_models.pacing import Pace
    from esckit.mining.self_refinement.options import RefinementOptions
    from esckit.mining.self_refinement.run import Models, refine_dialogues
    from tests.mining.self_refinement.players import Drafts
    from tests.mining.self_refinement.test_round import exam

    os.environ["OPENAI_API_KEY"] = KEY
    setattr(opening, "Pace", lambda **given: Pace(first_wait=0.01, longest_wait=0.05, **given))  # noqa: B010
    role: dict[str, Any] = {"model": f"remote:{MODEL}", "base_url": url, "concurrency": AT_ONCE}
    told: dict[str, Any] = {"refined_by": "model", "refiner": role, "accept": role, "skip_first": 0, "skip_last": 0}
    options = RefinementOptions(**told, longest=None, whole=False, encoder=None)

    def slow(request: Any) -> tuple[str, str]:
        time.sleep(0.01)
        return "Others", f"Well, {request.seed} is how it is, as I say to {request.parent} again."

    def opened(options: Any) -> Any:
        return lambda: opening.open_chat_model(options)

    assert options.accept is not None
    models = Models(None, opened(options.refiner), MODEL, opened(options.accept))
    dialogues = [exam(f"exam-{number}") for number in range(TALKS)]
    policy, ledger = Drafts(slow).policy(), place / "ledger.sqlite"
    refine_dialogues(dialogues, options, place, policy, models, ledger=ledger, seed=0, key="")


def started(url: str, place: Path) -> Any:
    child = children().Process(target=refine, args=(url, place))
    child.start()
    return child


@pytest.mark.slow
def test_a_round_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with ChatServer(FAULTY) as server:
        child = started(server.url, whole)
        child.join()
        assert child.exitcode == 0
        calls = server.calls
        assert sum(server.faults.values()) > 0.1 * calls
    with ChatServer(FAULTY, server.port) as server:
        _kill_while_it_drafts(server.url, killed)
        for after in sorted(random.Random(0).sample(range(1, calls - 2 * AT_ONCE), KILLS)):
            child = started(server.url, killed)
            while server.calls < after and child.is_alive():
                time.sleep(0.001)
            child.kill()
            child.join()
            assert child.exitcode == -signal.SIGKILL
            assert not (killed / "trees.jsonl").exists()
        child = started(server.url, killed)
        child.join()
        assert child.exitcode == 0
        assert calls <= server.calls <= calls + KILLS * AT_ONCE, "no answer is asked for twice"
    assert sorted(path.name for path in killed.iterdir()) == sorted(path.name for path in whole.iterdir())
    for path in whole.glob("*.json*"):
        assert (killed / path.name).read_bytes() == path.read_bytes(), path.name
    assert items(killed) == items(whole)
    assert {state for state, _ in items(whole).values()} > {"done"}
    record = json.loads((whole / "refinement.json").read_text())
    assert record["contexts"] == 3 * TALKS == record["pairs"] + sum(record["filters"].values())
    assert len(items(whole)) == record["calls"]["refine"] + record["calls"]["accept"]
    assert record["pairs"] > 0 < record["filters"]["not accepted"]


def _kill_while_it_drafts(url: str, place: Path) -> None:
    child = started(url, place)
    while not any(path.stat().st_size for path in place.glob(".drafts-*.partial")):
        assert child.is_alive()
        time.sleep(0.001)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
