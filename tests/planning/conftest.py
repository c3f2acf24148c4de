"""Tiny models only."""

from collections.abc import Iterator

import pytest

from tests.tiny import one_thread


@pytest.fixture(scope="package", autouse=True)
def models_on_one_thread() -> Iterator[None]:
    """See `one_thread`."""
    with one_thread():
        yield
