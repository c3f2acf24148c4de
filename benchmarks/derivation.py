"""What a derivation costs besides its model: many questions, three steps each, before a slow server.

    python benchmarks/derivation.py [--questions N] [--delay SECONDS] [--at-once C]

The server (tests/derivation_server.py) is a process of its own and makes no faults. benchmarks/README.md says what the
numbers mean; the last line is one JSON object.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from esckit import DerivationOptions, derive_corpus
from esckit.conversation import Conversation, Turn

ROOT: Final = Path(__file__).parents[1]
KEY: Final = "sk-test-2b6f0c6f1d"  # the server's
LIMITS: Final = {"wall_time_over_least": 1.3, "peak_gigabytes": 1.0}
_ANSWER: Final = " ".join(f"This is sentence number {number} of what somebody answered to it." for number in range(12))


@contextmanager
def serving(delay: float) -> Iterator[str]:
    """A server in another process; its base URL."""
    command = [sys.executable, "-m", "tests.derivation_server", "--delay", str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def question(number: int) -> Conversation:
    """A question with its answer; no two are the same."""
    asked = f"Question {number}: why does my sister not call?\nWe had a row in May, and she has been silent since then."
    turns = [Turn("0", None, "seeker", asked), Turn("1", "0", "supporter", _ANSWER)]
    return Conversation(f"q-{number}", turns, taxonomy=None)


def derived(questions: int, options: DerivationOptions, folder: Path) -> tuple[float, dict[str, Any]]:
    """Seconds that a derivation takes, and its record."""
    sources = [question(number) for number in range(questions)]
    started = time.perf_counter()
    record = derive_corpus(sources, folder, options)
    return time.perf_counter() - started, record


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--delay", type=float, default=0.1)
    parser.add_argument("--at-once", type=int, default=64)
    given = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = KEY
    with serving(given.delay) as url, TemporaryDirectory() as folder:
        asked = {"model": "remote:test-model", "base_url": url, "concurrency": given.at_once}
        options = DerivationOptions.model_validate({"derived_by": "model", "deriver": asked})
        derived(8, options, Path(folder) / "first")  # what is imported and opened once
        cpu = time.process_time()
        wall, record = derived(given.questions, options, Path(folder) / "all")
        cpu = time.process_time() - cpu
    calls, made = sum(record["calls"].values()), sum(record["dialogues"].values())
    least = calls * given.delay / given.at_once
    print(
        f"{given.questions} questions, {calls} calls of {given.delay:g} s, {given.at_once} at once: {made} dialogues "
        f"in {wall:.1f} s where none can take less than {least:.1f} s; {cpu / calls * 1e3:.2f} ms of CPU a call"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found = {"wall_time_over_least": wall / least, "cpu_ms_a_call": cpu / calls * 1e3, "peak_gigabytes": peak}
    print(json.dumps({name: round(value, 3) for name, value in found.items()} | {"limits": LIMITS}))


if __name__ == "__main__":
    main()
