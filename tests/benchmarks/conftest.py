"""A tiny backbone on disk, as the benchmarks load it."""

from collections.abc import Iterator

import pytest

from tests.tiny import one_thread, save_base


@pytest.fixture(scope="package", autouse=True)
def models_on_one_thread() -> Iterator[None]:
    """See `one_thread`."""
    with one_thread():
        yield


@pytest.fixture(scope="package")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with random weights that give uneven log-probabilities."""
    return str(save_base(tmp_path_factory.mktemp("backbone") / "base"))
