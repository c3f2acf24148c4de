"""Progress: a bar in a terminal, at most a line in ten seconds in a log."""

import pytest

from esckit.progress import Progress


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("esckit.progress.time.monotonic", clock.monotonic)
    monkeypatch.setattr(Progress, "_told", 0.0)
    return clock


def test_a_log_gets_at_most_a_line_in_ten_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bars = [Progress(f"stage {number}", 50) for number in range(4)]
    for bar in bars:
        for _ in range(50):
            bar.advance()
            clock.now += 0.25
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("█")[0].split("·")[0].strip() for line in lines] == [
        *("stage 0", "stage 0", "stage 1", "stage 2", "stage 3")
    ]
    assert "41/50" in lines[1]


def test_a_terminal_sees_every_step(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    bar = Progress("stage", 3)
    for _ in range(3):
        bar.advance("loss 1")
    bar.close()
    told = capsys.readouterr().err
    assert told.count("\r") == 3
    assert "3/3" in told
    assert told.endswith("loss 1\x1b[K\n")
