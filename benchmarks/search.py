"""What a tree search costs besides the model: many seeds at once before a slow server, and one large tree without any.

    python benchmarks/search.py [--seeds N] [--iterations N] [--delay SECONDS] [--at-once C] [--alone N] [--turns N]

The server (tests/search_server.py) is a process of its own and makes no faults. benchmarks/README.md says what each
number means; the last line is one JSON object.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from esckit.chat_models.ledger import Ledger
from esckit.conversation import Conversation, read_conversations, write_conversations
from esckit.corpora import load_corpus
from esckit.decoding import seed_of
from esckit.mining.tree_search.open_roles import open_roles
from esckit.mining.tree_search.options import SearchOptions
from esckit.mining.tree_search.roles import END, Judged, Roles, Scored, Talk
from esckit.mining.tree_search.run import search_all
from esckit.mining.tree_search.search import TreeSearch
from esckit.report.drawn_tree import draw_tree
from esckit.report.tree_lines import tree_lines
from esckit.strategy import ESCONV

ROOT: Final = Path(__file__).parents[1]
KEY: Final = "sk-test-2b6f0c6f1d"  # the server's
LIMITS: Final = {"wall_time_over_least": 1.3, "peak_gigabytes": 1.0, "tree_seconds": 10.0}
SMALLER: Final = 5  # so many times fewer turns in the small tree


@contextmanager
def serving(delay: float) -> Iterator[str]:
    """A server in another process; its base URL."""
    command = [sys.executable, "-m", "tests.search_server", "--delay", str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


class Alone:
    """All roles without a model: any words, scores and rewards; the seconds that they take are counted."""

    name, calls, deterministic = "alone", 1, False
    lowest, highest, theta = -3.0, 1.0, 0.5

    def __init__(self, calls: int = 1) -> None:
        self.calls = calls
        self.seconds = 0.0

    def _drawn(self, talk: Talk, *parts: object) -> random.Random:
        started = time.perf_counter()
        drawn = random.Random(seed_of(talk.seed.id, talk.path[-1].id, talk.sample, *parts))
        self.seconds += time.perf_counter() - started
        return drawn

    async def say(self, talk: Talk, strategy: str | None = None) -> str | None:
        """Some words; a seeker ends one talk of fifty."""
        drawn = self._drawn(talk, strategy)
        return END if strategy is None and drawn.random() < 0.02 else f"I see what you mean, {drawn.random()}."

    async def rate(self, talk: Talk) -> dict[str, Scored] | None:
        """Any scores."""
        weights = [self._drawn(talk, "rate").random() for _ in ESCONV.labels]
        return {label: Scored(w, w / sum(weights)) for label, w in zip(ESCONV.labels, weights, strict=True)}

    async def judge(self, talk: Talk) -> Judged | None:
        """Any reward."""
        reward = round(self._drawn(talk, "judge").uniform(0, 1), 1)
        return Judged(reward, {"reward": reward})


def seeds(count: int) -> list[Conversation]:
    """Dialogues of the starter corpus, as often as it takes; each opens in its own way, so that no two ask the same."""
    found = [each for each in load_corpus("starter").train if each.turns[0].speaker == "seeker"]
    drawn = [(number, found[number % len(found)]) for number in range(count)]
    return [replace(each, id=str(n), turns=[_opened(each.turns[0], n), *each.turns[1:]]) for n, each in drawn]


def _opened(turn: Any, number: int) -> Any:
    return replace(turn, text=f"I am number {number}. {turn.text}")


def told(url: str, given: argparse.Namespace, **more: Any) -> SearchOptions:
    """The options: three roles are asked, nobody is asked for strategies."""
    role = {"model": "remote:test-model", "base_url": url, "concurrency": given.at_once}
    asked = {"seeker": role, "supporter": role, "reward": role}
    return SearchOptions.model_validate(
        {**asked, "iterations": given.iterations, "concurrency": given.at_once, **more, "strategy": role}
    )


async def searching(dialogues: list[Conversation], options: SearchOptions, ledger: Path) -> tuple[float, int]:
    """Seconds and calls of searching from all of them, through a ledger on disk."""
    started = time.perf_counter()
    with Ledger(ledger) as opened:
        async with open_roles(options, opened, ESCONV) as roles:
            trees = await search_all(dialogues, roles._replace(strategy=Alone(0)), options, 0)
    seconds = time.perf_counter() - started
    return seconds, sum(sum(tree.provenance["search"]["calls"].values()) for tree in trees)


async def one_after_another(url: str, given: argparse.Namespace, folder: Path) -> float:
    """Seconds a call where nobody asks anything before the last answer is there."""
    options = told(url, given, iterations=min(5, given.iterations), concurrency=1)
    seconds = calls = 0.0
    for number, dialogue in enumerate(seeds(given.alone)):
        took, asked = await searching([dialogue], options, folder / f"alone-{number}.sqlite")
        seconds, calls = seconds + took, calls + asked
    return seconds / calls


def grown(turns: int) -> tuple[Conversation, float]:
    """A searched tree of at least so many turns, and the seconds that the search took, the roles' left out."""
    roles = Alone()
    options = SearchOptions.model_validate({"iterations": 1_000_000})
    search = TreeSearch(seeds(1)[0], Roles(roles, roles, roles, roles), options, 0, asyncio.Semaphore(1))
    started = time.perf_counter()

    async def grow() -> str:
        why, allowance = "budget", 0
        while why == "budget" and len(search.tree.nodes) < turns:
            allowance += 200
            why = await search.run(allowance)
        return why

    tree = search.finish(asyncio.run(grow()))
    return tree, time.perf_counter() - started - roles.seconds


def large_tree(turns: int) -> dict[str, float]:
    """Seconds of everything that is done with a tree."""
    tree, seconds = grown(turns)
    found = {"turns": float(len(tree.turns)), "searched": seconds}

    def timed(name: str, work: Callable[[], object]) -> None:
        started = time.perf_counter()
        work()
        found[name] = time.perf_counter() - started

    with TemporaryDirectory() as folder:
        path = Path(folder) / "trees.jsonl"
        timed("written", lambda: write_conversations(path, [tree]))
        timed("read", lambda: read_conversations(path))
        timed("lines", lambda: list(tree_lines(tree)))
        timed("drawn", lambda: draw_tree(tree, len(tree.turns)))
    return found


def parse() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--delay", type=float, default=0.1)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--alone", type=int, default=2, help="seeds that are searched one after another")
    parser.add_argument("--turns", type=int, default=5000, help="of the large tree")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    given = parse()
    os.environ["OPENAI_API_KEY"] = KEY
    large = large_tree(given.turns)
    small = large_tree(given.turns // SMALLER)
    steps = [name for name in large if name != "turns"]
    print(f"a tree of {large['turns']:.0f} turns: " + ", ".join(f"{name} {large[name]:.2f} s" for name in steps))
    with serving(given.delay) as url, TemporaryDirectory() as folder:
        alone = asyncio.run(one_after_another(url, given, Path(folder)))
        cpu = time.process_time()
        wall, calls = asyncio.run(searching(seeds(given.seeds), told(url, given), Path(folder) / "ledger.sqlite"))
        cpu = time.process_time() - cpu
    least = calls * given.delay / given.at_once
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{given.seeds} seeds, {given.iterations} iterations, {calls} calls of {given.delay:g} s, {given.at_once} at "
        f"once: {wall:.1f} s where none can take less than {least:.1f} s; {cpu / calls * 1e3:.2f} ms of CPU a call; "
        f"one after another {alone * calls:,.0f} s (from {given.alone} seeds and {alone:.3f} s a call)"
    )
    total = sum(large[name] for name in steps)
    ratios = {f"turn_{name}_in_large_over_small_tree": large[name] / small[name] for name in ("searched", "drawn")}
    by_turn = large["turns"] / small["turns"]
    found = {
        "wall_time_over_least": wall / least,
        "times_one_after_another": alone * calls / wall,
        "peak_gigabytes": peak,
        "tree_seconds": total,
        **{name: ratio / by_turn for name, ratio in ratios.items()},
    }
    print(json.dumps({name: round(value, 3) for name, value in found.items()} | {"limits": LIMITS}))


if __name__ == "__main__":
    main()
