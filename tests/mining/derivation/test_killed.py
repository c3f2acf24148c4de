"""A derivation behind a server with faults: killed anywhere, it ends as if it had not been."""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests.children import server as children
from tests.derivation_server import DerivationServer
from tests.mining.derivation.talks import bank, question, talk, tree
from tests.mining.tree_search.test_killed import AT_ONCE, FAULTY, items
from tests.server import KEY, MODEL

pytest.importorskip("openai", reason="needs esckit[remote]")

SOURCES: Final = 12
KILLS: Final = 4


def derive(url: str, place: Path) -> None:
    """In a process of its own: questions and dialogues without strategies, for three roles each."""
    import os

    from esckit.chat_models import opening
    from esckit.chat_models.pacing import Pace
    from esckit.mining.derivation.by_name import deriver_of
    from esckit.mining.derivation.options import DerivationOptions
    from esckit.mining.derivation.run import derive_parts

    os.environ["OPENAI_API_KEY"] = KEY
    setattr(opening, "Pace", lambda **given: Pace(first_wait=0.01, longest_wait=0.05, **given))  # noqa: B010
    asked: dict[str, Any] = {"model": f"remote:{MODEL}", "base_url": url, "concurrency": AT_ONCE}
    told: dict[str, Any] = {"derived_by": "model", "deriver": asked, "filters": {"near_duplicate": None}}
    options = DerivationOptions(**told, roles="all")
    plain = tuple(each._replace(strategy=None) for each in talk("zh"))
    sources = [
        question(f"Question number {number}?\nIt is about my sister.", name=f"q-{number}")
        if number % 2
        else tree((plain[0]._replace(seeker=f"我姐姐第{number}次没有回电话。"), *plain[1:]), "zh", f"t-{number}")
        for number in range(SOURCES)
    ]
    derive_parts({"trees.jsonl": sources}, options, place, bank(), deriver_of(options), seed=0)


def started(url: str, place: Path) -> Any:
    child = children().Process(target=derive, args=(url, place))
    child.start()
    return child


@pytest.mark.slow
def test_a_derivation_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with DerivationServer(FAULTY) as server:
        child = started(server.url, whole)
        child.join()
        assert child.exitcode == 0
        calls = server.calls
        assert sum(server.faults.values()) > 0.1 * calls
    with DerivationServer(FAULTY, server.port) as server:
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
    record = json.loads((whole / "derivation.json").read_text(encoding="utf-8"))
    assert len(items(whole)) == sum(record["calls"].values()), "every question has a state"
    states = [state for state, _ in items(whole).values()]
    lost = {"unparsed", "refused", "failed"}
    told = sum(n for faults in record["faults"].values() for name, n in faults.items() if name in lost)
    assert told == sum(state in lost for state in states) > 0
    ended = sum(n for name in ("experiences", "style") for n in record["faults"][name].values())
    assert record["dialogues"]["trees.jsonl"] == record["versions"] - ended > 0
    assert record["versions"] == 3 * (SOURCES - sum(record["faults"]["dialogue"].values()))
