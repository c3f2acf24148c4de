"""Commands in processes of their own, which are killed or interrupted at a chosen moment of their work.

A moment is what a command does next: it opens, renames or removes a file, or counts one more step in its progress. The
processes come from a server that has imported the heavy libraries, so that one starts in half a second; they are
processes like any other, and the signals are real.
"""

import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, Final, NamedTuple

_HEAVY: Final = ["torch", "transformers.trainer", "transformers.models.qwen2.modeling_qwen2", "peft", "accelerate"]
_NUMBERS: Final = re.compile(r"\.\d+(?=\.esckit-)")  # process ids in the names of files that are being written


class Ended(NamedTuple):
    """How a command ended: its exit code (minus the signal that killed it), its standard error, its moments."""

    code: int
    errors: str
    moments: list[str]


def server() -> ForkServerContext:
    """What starts children; one server serves the whole session."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_HEAVY)
    return context


def start(arguments: Sequence[str | Path], place: Path, *, at: str = "", sign: int = signal.SIGKILL) -> Any:
    """Start a command that gets a signal at a moment.

    Args:
        arguments: of ``esckit``.
        place: a folder for what it prints and for its moments; paths in moments are relative to it.
        at: the moment; none by default.
        sign: the signal.
    """
    child = server().Process(target=_child, args=([*map(str, arguments)], place, at, sign))
    child.start()
    return child


def finish(child: Any, place: Path) -> Ended:
    """Wait for a child."""
    child.join()
    return Ended(child.exitcode, (place / "stderr").read_text(), (place / "moments").read_text().splitlines())


def esckit(arguments: Sequence[str | Path], place: Path, *, at: str = "", sign: int = signal.SIGKILL) -> Ended:
    """Run a command to its end; see `start`."""
    return finish(start(arguments, place, at=at, sign=sign), place)


def _child(arguments: list[str], place: Path, at: str, sign: int) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["esckit", *arguments]
    from esckit.cli import main

    _watch(place, at, sign)
    main()


def _watch(place: Path, at: str, sign: int) -> None:
    """Write every moment into a file before it happens; at the one that is asked for, the signal comes."""
    from esckit.progress import Progress

    log = os.open(place / "moments", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    advance = Progress.advance

    def moment(text: str) -> None:
        os.write(log, f"{text}\n".encode())
        if text == at:
            os.kill(os.getpid(), sign)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        is_write = event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR)
        if is_write or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            path = os.fsdecode(given[0]) if not isinstance(given[0], int) else ""
            if path.startswith(f"{place}{os.sep}"):
                moment(f"{event} {_NUMBERS.sub('', path[len(str(place)) + 1 :])}")

    def advanced(bar: Progress, note: str = "", steps: int = 1) -> None:
        advance(bar, note, steps)
        moment(f"{bar.title}: {bar.done} of {bar.total}")

    Progress.advance = advanced  # type: ignore[method-assign]
    sys.addaudithook(hook)
