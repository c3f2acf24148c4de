"""Commands in processes of their own, to which something happens at a chosen moment of their work.

A moment is what a command does next: it reads, writes, renames or removes a file, or counts one more step in its
progress. The processes come from a server that has imported the heavy libraries, so that one starts in half a second;
they are processes like any other, and the signals are real.
"""

import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
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


class Signal(NamedTuple):
    """Comes from the process itself, so that it is there at the moment and not a little later."""

    number: int


class Refusal(NamedTuple):
    """From the moment on, the system refuses to write or rename a file there, with this errno."""

    number: int


KILL: Final = Signal(signal.SIGKILL)


def start(
    arguments: Sequence[str | Path],
    place: Path,
    *,
    at: str = "",
    event: Signal | Refusal = KILL,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Start a command to which something happens.

    Args:
        arguments: of ``esckit``.
        place: a folder, made where it is not there, for what it prints and for its moments; paths in moments are
            relative to it.
        at: the moment; none by default.
        event: what happens then.
        environment: variables that it has besides those of the tests' first child.
    """
    place.mkdir(exist_ok=True)
    child = server().Process(target=_child, args=([*map(str, arguments)], place, at, event, environment or {}))
    child.start()
    return child


def wait_for(moment: str, place: Path, child: Any) -> None:
    """Wait until a child's moment has come."""
    while not (place / "moments").exists() or moment not in (place / "moments").read_text().splitlines():
        assert child.is_alive(), (place / "stderr").read_text()
        time.sleep(0.05)


def finish(child: Any, place: Path) -> Ended:
    """Wait for a child."""
    child.join()
    return Ended(child.exitcode, (place / "stderr").read_text(), (place / "moments").read_text().splitlines())


def esckit(
    arguments: Sequence[str | Path],
    place: Path,
    *,
    at: str = "",
    event: Signal | Refusal = KILL,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run a command to its end; see `start`."""
    return finish(start(arguments, place, at=at, event=event, environment=environment), place)


def _child(arguments: list[str], place: Path, at: str, event: Signal | Refusal, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it from its start
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["esckit", *arguments]
    from esckit.cli import main

    _watch(place, at, event)
    main()


def _watch(place: Path, at: str, happens: Signal | Refusal) -> None:
    """Note every moment in a file before it comes, and have happen what shall happen."""
    from esckit.progress import Progress

    log = os.open(place / "moments", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    advance, refusing = Progress.advance, False

    def moment(text: str) -> None:
        nonlocal refusing
        os.write(log, f"{text}\n".encode())
        refusing = refusing or (text == at and isinstance(happens, Refusal))
        if text == at and isinstance(happens, Signal):
            os.kill(os.getpid(), happens.number)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        kind = _kind(event, given)
        path = os.fsdecode(given[0]) if kind and not isinstance(given[0], int) else ""
        if path.startswith(f"{place}{os.sep}"):
            moment(f"{kind} {_NUMBERS.sub('', path[len(str(place)) + 1 :])}")
            if refusing and kind in ("write", "rename"):
                raise OSError(happens.number, os.strerror(happens.number), path)

    def advanced(bar: Progress, note: str = "", steps: int = 1) -> None:
        advance(bar, note, steps)
        moment(f"{bar.title}: {bar.done} of {bar.total}")

    setattr(Progress, "advance", advanced)  # noqa: B010
    sys.addaudithook(hook)


def _kind(event: str, given: tuple[Any, ...]) -> str:
    if event == "open":
        return "write" if isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR) else "read"
    return {"os.rename": "rename", "os.remove": "remove", "os.rmdir": "remove", "os.mkdir": "mkdir"}.get(event, "")
