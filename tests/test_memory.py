"""A file that memory cannot hold is refused before it is read."""

from pathlib import Path

import pytest

from esckit import memory
from esckit.conversation import read_conversations
from esckit.corpora import read_corpus
from esckit.errors import CorpusError, PredictionsError
from esckit.measures import read_predictions
from esckit.memory import available_memory, check_fits


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """Eight tebibytes that take no room on disk; reading them would take hours and more memory than there is."""
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(2**43)
    return path


@pytest.mark.parametrize(
    ("read", "error"),
    [(read_corpus, CorpusError), (read_conversations, CorpusError), (read_predictions, PredictionsError)],
)
def test_a_file_over_memory_is_refused_in_a_sentence(huge: Path, read, error) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error) as raised:
        read(huge)
    told = str(raised.value)
    assert told.startswith(f"{huge} is too large for this machine: its 8,192.0 GiB need about 40,960.0 GiB of memory")
    assert told.endswith("are free, so divide it into smaller files, or take a larger machine.")
    assert "\n" not in told


def test_what_fits_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    for available in (500, None):
        monkeypatch.setattr(memory, "available_memory", lambda told=available: told)
        check_fits(tmp_path / "file", CorpusError)
    monkeypatch.setattr(memory, "available_memory", lambda: 499)
    with pytest.raises(CorpusError):
        check_fits(tmp_path / "file", CorpusError)


def test_the_smaller_of_machine_and_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert available_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal:  900 kB\nMemAvailable:     700 kB\n", encoding="ascii")
    assert available_memory() == 700 * 1024
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    assert available_memory() == 700 * 1024
    for name, text in (("max", "5000\n"), ("current", "3000\n"), ("stat", "anon 9\ninactive_file 400\nslab 1\n")):
        (tmp_path / f"memory.{name}").write_text(text, encoding="ascii")
    assert available_memory() == 2400
