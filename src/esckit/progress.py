"""Progress of long work: a bar in a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Final

__all__ = ["Progress", "progress", "tell"]

_SECONDS: Final = 10.0
"""Between two lines in a log, whatever they are about."""


class Progress:
    """Counts up to ``total`` and shows it on standard error."""

    _told: ClassVar[float] = -_SECONDS  # when any of them wrote a line last

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self.title, self.total, self.done = title, total, done
        self._started, self._first = time.monotonic(), done
        self._terminal = sys.stderr.isatty()
        self._shown = False

    def advance(self, note: str = "", steps: int = 1) -> None:
        """Count ``steps`` more; ``note`` is shown behind the count."""
        self.done += steps
        now = time.monotonic()
        if self._terminal:
            print(f"\r{self._line(note, now)}\x1b[K", end="", file=sys.stderr, flush=True)
        elif now - Progress._told >= _SECONDS:
            Progress._told = now
            print(self._line(note, now), file=sys.stderr, flush=True)
        self._shown = True

    def _line(self, note: str, now: float) -> str:
        part = self.done / max(self.total, 1)
        rate = max(self.done - self._first, 1) / max(now - self._started, 1e-6)
        speed = f"{rate:.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
        bar = "█" * round(part * 24) + "·" * (24 - round(part * 24))
        left = f"{(self.total - self.done) / rate:4.0f} s left"
        return f"{self.title:<20} {bar} {self.done}/{self.total}  {speed}  {left}  {note}"

    def close(self) -> None:
        """End the bar's line."""
        if self._terminal and self._shown:
            print(file=sys.stderr)


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Progress]:
    """Show progress while the block runs; ``done`` of ``total`` were there before."""
    bar = Progress(title, total, done)
    try:
        yield bar
    finally:
        bar.close()


def tell(line: str) -> None:
    """Say something on standard error while a bar may be on the screen."""
    print(f"\r\x1b[K{line}" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)
