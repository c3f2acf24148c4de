"""Progress of long work: a bar in a terminal, a line every tenth elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Progress", "progress"]


class Progress:
    """Counts up to ``total`` and shows it on standard error."""

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self.title, self.total, self.done = title, total, done
        self._started, self._first = time.monotonic(), done
        self._terminal = sys.stderr.isatty()
        self._shown = -1

    def advance(self, note: str = "", steps: int = 1) -> None:
        """Count ``steps`` more; ``note`` is shown behind the count."""
        self.done += steps
        part = self.done / max(self.total, 1)
        if not self._terminal and int(part * 10) == self._shown:
            return
        self._shown = int(part * 10)
        rate = max(self.done - self._first, 1) / max(time.monotonic() - self._started, 1e-6)
        speed = f"{rate:.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
        bar = "█" * round(part * 24) + "·" * (24 - round(part * 24))
        left = f"{(self.total - self.done) / rate:4.0f} s left"
        line = f"{self.title:<20} {bar} {self.done}/{self.total}  {speed}  {left}  {note}"
        print(
            f"\r{line}\x1b[K" if self._terminal else line,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        """End the bar's line."""
        if self._terminal and self._shown >= 0:
            print(file=sys.stderr)


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Progress]:
    """Show progress while the block runs; ``done`` of ``total`` were there before."""
    bar = Progress(title, total, done)
    try:
        yield bar
    finally:
        bar.close()
