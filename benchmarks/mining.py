"""What asking through the ledger costs: wall time against a bare AsyncOpenAI loop, on a server that takes its time.

    python benchmarks/mining.py [--items N] [--delay SECONDS] [--at-once C] [--rounds R]

The server (tests/server.py) is a process of its own and makes no faults. The bare loop sends the same bodies under a
semaphore and keeps the replies in a list. benchmarks/README.md says what each number means; the last line is one JSON
object of ratios.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

from openai import AsyncOpenAI
from pydantic import BaseModel

from esckit.chat_models.asker import Asker
from esckit.chat_models.json_replies import response_format
from esckit.chat_models.ledger import Ledger
from esckit.chat_models.protocol import ChatRequest
from esckit.chat_models.remote import RemoteChatModel
from esckit.conversation.turn_rule import Message
from esckit.decoding import Decoding

ROOT: Final = Path(__file__).parents[1]
KEY: Final = "sk-test-2b6f0c6f1d"  # the server's
MODEL: Final = "test-model"
HOW: Final = Decoding(greedy=True, max_new_tokens=64)
BUDGET: Final = 1.3  # of the bare loop's wall time


class Judgement(BaseModel):
    """What each reply has to be."""

    score: Literal[1, 2, 3, 4, 5]
    reason: str


@contextmanager
def serving(delay: float) -> Iterator[str]:
    """A server in another process; its base URL."""
    command = [sys.executable, str(ROOT / "tests/server.py"), "--delay", str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def prompts(items: int, turns: int = 20) -> list[str]:
    """Judge's prompts with transcripts of the usual length, each different."""
    said = "I have not slept since the exam and I do not know whom to tell. "
    return [
        f"Rate supporter {place}.\n" + "\n".join(f"{turn}: {said}" for turn in range(turns)) for place in range(items)
    ]


async def bare(url: str, texts: list[str], at_once: int) -> float:
    """Seconds of a loop without record, retries or checks."""
    gate = asyncio.Semaphore(at_once)
    found: list[str | None] = []
    async with AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0) as client:

        async def call(text: str) -> None:
            async with gate:
                completion = await client.chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": text}],
                    max_tokens=HOW.max_new_tokens,
                    temperature=0.0,
                    response_format=response_format(Judgement),
                )
                found.append(completion.choices[0].message.content)

        started = time.perf_counter()
        await asyncio.gather(*(call(text) for text in texts))
        seconds = time.perf_counter() - started
    assert len(found) == len(texts)
    return seconds


def through_ledger(url: str, texts: list[str], at_once: int) -> float:
    """Seconds of the same, through `Asker` and a ledger on disk, opening and closing it included."""
    requests = [ChatRequest((Message("user", text),), HOW, Judgement) for text in texts]
    model = RemoteChatModel(MODEL, url, concurrency=at_once)
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        with Ledger(Path(folder) / "ledger.sqlite") as ledger:
            outcomes = Asker(model, ledger, "benchmark/1").ask(requests)
        seconds = time.perf_counter() - started
    assert all(outcome.state == "done" for outcome in outcomes)
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--delay", type=float, default=0.1)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = KEY
    texts = prompts(options.items)
    ratios = []
    with serving(options.delay) as url:
        asyncio.run(bare(url, texts[: options.at_once], options.at_once))  # imports and first connections
        for number in range(options.rounds):
            theirs = asyncio.run(bare(url, texts, options.at_once))
            ours = through_ledger(url, texts, options.at_once)
            ratios.append(ours / theirs)
            print(f"round {number + 1}: bare loop {theirs:.2f} s, esckit {ours:.2f} s, {ratios[-1]:.2f}x its wall time")
    median = statistics.median(ratios)
    floor = options.items / options.at_once * options.delay
    print(
        f"{options.items} calls of {options.delay:g} s, {options.at_once} at once: no way takes less than {floor:.2f} s"
    )
    print(f"esckit takes {median:.2f}x ({min(ratios):.2f} to {max(ratios):.2f}) the wall time of the bare loop")
    print(json.dumps({"wall_time_over_bare_loop": round(median, 3), "limit": BUDGET}))


if __name__ == "__main__":
    main()
