"""Training in tests: many runs of a few steps each."""

import gc
from collections.abc import Iterator

import pytest

from tests.tiny import one_thread


@pytest.fixture(scope="package", autouse=True)
def nothing_old_to_collect() -> Iterator[None]:
    """Every run collects garbage; without the objects of all imported libraries that takes no time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="package", autouse=True)
def models_on_one_thread() -> Iterator[None]:
    """See `one_thread`."""
    with one_thread():
        yield
