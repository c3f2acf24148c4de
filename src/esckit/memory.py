"""Whether a file's contents fit into memory, asked before it is read."""

from pathlib import Path
from typing import Final

from esckit.errors import EsckitError

__all__ = ["available_memory", "check_fits"]

_TIMES: Final = 5  # memory that a read file takes, in its sizes: ESConv's dialogues took 3.9 to 4.8, predictions 5.2
_MEMINFO: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes that can be had now: the machine's, or its container's where that is less; None where neither is told."""
    told = []
    if _MEMINFO.exists():
        told += [int(line.split()[1]) * 1024 for line in _read(_MEMINFO) if line.startswith("MemAvailable:")]
    if (_CGROUP / "memory.max").exists() and (limit := _read(_CGROUP / "memory.max")[0]) != "max":
        used = int(_read(_CGROUP / "memory.current")[0])
        cache = [int(line.split()[1]) for line in _read(_CGROUP / "memory.stat") if line.startswith("inactive_file ")]
        told.append(int(limit) - used + sum(cache))
    return min(told, default=None)


def check_fits(path: Path, error: type[EsckitError]) -> None:
    """Refuse a file that memory cannot hold once it is read; a machine would swap for hours, or kill the program.

    Raises:
        EsckitError: of the class asked for.
        OSError: there is no such file.
    """
    size, available = path.stat().st_size, available_memory()
    if available is not None and size * _TIMES > available:
        raise error(
            f"{path} is too large for this machine: its {_gib(size)} need about {_gib(size * _TIMES)} of memory and "
            f"{_gib(available)} are free, so divide it into smaller files, or take a larger machine."
        )


def _read(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").splitlines()


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
