"""A search through its ledger before a server with faults: killed anywhere, it ends as if it had not been."""

import json
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.conversation import read_conversations
from esckit.mining.tree_search.options import SearchOptions
from tests.children import server as children
from tests.mining.tree_search.toy import dialogue
from tests.search_server import SearchServer
from tests.server import KEY, MODEL, Behaviour

pytest.importorskip("openai", reason="needs esckit[remote]")

SEEDS: Final = (1, 5, 8, 12)
AT_ONCE: Final = 8
FAULTY: Final = Behaviour(delay=0.002, call_faults=0.12, reply_faults=0.08, hang=0.1)
"""A fifth of all calls goes wrong."""


def search(url: str, place: Path, iterations: int, mode: str) -> None:
    """In a process of its own: search from some dialogues."""
    import os

    from esckit.chat_models import opening
    from esckit.chat_models.pacing import Pace
    from esckit.mining.tree_search.run import search_dialogues

    os.environ["OPENAI_API_KEY"] = KEY
    setattr(opening, "Pace", lambda **given: Pace(first_wait=0.01, longest_wait=0.05, **given))  # noqa: B010
    role = {"model": f"remote:{MODEL}", "base_url": url}
    told: dict[str, Any] = dict.fromkeys(("seeker", "supporter", "strategy", "reward", "check"), role)
    options = SearchOptions(**told, mode=mode, iterations=iterations, concurrency=AT_ONCE)
    search_dialogues([dialogue(each, 3, 5) for each in SEEDS], options, place, ledger=place / "ledger.sqlite", seed=0)


def started(server: SearchServer, place: Path, *how: Any) -> Any:
    """A child that searches."""
    child = children().Process(target=search, args=(server.url, place, *how))
    child.start()
    return child


def items(place: Path) -> dict[str, tuple[str, str]]:
    """State and text of each item in a ledger."""
    database = sqlite3.connect(place / "ledger.sqlite")
    try:
        return {key: (state, text) for key, state, text in database.execute("SELECT key, state, text FROM items")}
    finally:
        database.close()


def killed_and_finished(folder: Path, kills: int, iterations: int, mode: str = "ours") -> None:
    """Search in one go, and with kills; both end alike."""
    whole, killed = folder / "whole", folder / "killed"
    with SearchServer(FAULTY) as server:
        child = started(server, whole, iterations, mode)
        child.join()
        assert child.exitcode == 0
        calls = server.calls
        assert sum(server.faults.values()) > 0.1 * calls
    draw = random.Random(kills)
    with SearchServer(FAULTY, server.port) as server:
        for after in sorted(draw.sample(range(1, calls - 2 * AT_ONCE), kills)):
            child = started(server, killed, iterations, mode)
            while server.calls < after and child.is_alive():
                time.sleep(0.001)
            child.kill()
            child.join()
            assert child.exitcode == -signal.SIGKILL
            assert not (killed / "trees.jsonl").exists()
        child = started(server, killed, iterations, mode)
        child.join()
        assert child.exitcode == 0
        assert calls <= server.calls <= calls + kills * AT_ONCE
    for name in ("trees.jsonl", "search.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert items(killed) == items(whole)
    assert {state for state, _ in items(whole).values()} == {"done", "unparsed", "refused"}


def test_a_search_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    killed_and_finished(tmp_path, kills=2, iterations=12)
    trees = read_conversations(tmp_path / "whole/trees.jsonl")
    record = json.loads((tmp_path / "whole/search.json").read_text())
    assert [tree.id for tree in trees] == [f"toy-{each}" for each in SEEDS]
    assert record["pairs"] == sum(len(tree.preferences) for tree in trees) > 10
    asked = [tree.provenance["search"] for tree in trees]
    assert record["unanswered"]["reward"] == sum(each["unanswered"].get("reward", 0) for each in asked) > 0
    assert record["checked"]["pairs"] > 5
    # an item is asked once, and every question of a role is an item
    searching = sum(record["calls"].values())
    assert searching < len(items(tmp_path / "whole")) <= searching + 2 * record["pairs"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ours", "as_coded"])
def test_ten_kills_at_random_moments(mode: str, tmp_path: Path) -> None:
    killed_and_finished(tmp_path, 10, 20, mode)
