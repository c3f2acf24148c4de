"""Several chats with one supporter at the same time get what each gets alone."""

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, Thread
from typing import Any, Final

import pytest

from esckit.decoding import Decoding
from esckit.planning.calibration import Calibration
from esckit.supporters import Supporter
from esckit.supporters.chat import Chat
from esckit.supporters.parts import OnText
from esckit.supporters.proposing import Candidate, TurnRequest
from tests.supporters.known import known
from tests.tiny import talk

WORDS: Final = [
    ["I lost my job.", "Nobody calls me.", "It is my fault."],
    ["My exam is tomorrow and I know nothing.", "I cannot sleep.", "Hm."],
    ["He left.", "We broke up after six years, and I do not know how to go on without him.", "Yes."],
]
Told = list[tuple[str | None, str | None, str, tuple[str, ...]]]


class Brief:
    """A supporter of few words, so that the test takes seconds; everything else is the supporter's own."""

    def __init__(self, supporter: Supporter) -> None:
        self.supporter = supporter

    def __getattr__(self, name: str) -> Any:
        return getattr(self.supporter, name)

    def propose(self, requests: Sequence[TurnRequest], on_text: OnText | None = None) -> list[list[Candidate]]:
        brief = [replace(r, wording=r.wording and Decoding(max_new_tokens=12)) for r in requests]
        return self.supporter.propose(brief, on_text)


def held(supporter: Any, number: int, waits: Sequence[float]) -> Told:
    """One chat of three exchanges, the second with another reply, pausing before each and while text comes."""
    chat, found = Chat(supporter, "shared", seed=number, past="predicted"), Told()
    for exchange, words in enumerate(WORDS[number]):
        time.sleep(waits[exchange])
        chat.say(words)
        for _ in range(1 + (exchange == 1)):
            pieces: list[str] = []

            def hear(piece: str, heard: list[str] = pieces) -> None:
                heard.append(piece)
                time.sleep(0.001)  # lets the others run

            answer = chat.reply(hear)
            assert "".join(pieces) == answer.turn.text
            probabilities = " ".join(f"{label} {p:.4f}" for label, p in answer.probabilities.items())
            found.append((answer.turn.strategy, answer.turn.text, probabilities, answer.skipped))
    return found


@pytest.mark.parametrize("kind", ["coupled", "decoupled", "retrieval"])
def test_three_chats_at_once_are_as_each_is_alone(
    kind: Any, supporters: dict[str, Supporter], retrieval: Supporter
) -> None:
    supporter = Brief({**supporters, "retrieval": retrieval}[kind])
    alone = [held(supporter, number, [0.0] * 3) for number in range(3)]
    assert len({text for chat in alone for _, text, _, _ in chat}) > 9, "or it would not show"
    draw = random.Random(5)
    for _ in range(3):
        start = Barrier(3)
        waits = [[draw.random() / 50 for _ in range(3)] for _ in range(3)]

        def at_once(number: int, start: Barrier = start, waits: list[list[float]] = waits) -> Told:
            start.wait()
            return held(supporter, number, waits[number])

        with ThreadPoolExecutor(3) as threads:
            assert list(threads.map(at_once, range(3))) == alone


@pytest.mark.parametrize("calibrated", [False, True])
def test_who_shares_the_parts_waits_until_a_reply_is_whole(calibrated: bool) -> None:
    _, supporter = known()
    other = supporter.calibrated(Calibration.none(8)) if calibrated else supporter
    request = TurnRequest(talk(("seeker", "Hello")), "0", 0)
    done: list[str] = []
    thread = Thread(target=lambda: done.append(str(len(other.propose([request])))))

    def hear(_: str) -> None:
        thread.start()
        thread.join(0.05)  # enough for it, if it did not wait
        done.append("whole")

    supporter.propose([request], hear)
    thread.join()
    assert done == ["whole", "1"]
