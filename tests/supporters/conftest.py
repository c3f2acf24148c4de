"""Supporters that are made once: the tests read them and change only copies."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from esckit.supporters import Supporter
from esckit.supporters.supporter import Kind
from tests.tiny import one_thread, write_supporter


@pytest.fixture(scope="package", autouse=True)
def models_on_one_thread() -> Iterator[None]:
    """See `one_thread`."""
    with one_thread():
        yield


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Path]:
    """A supporter folder of each kind, with random adapters."""
    place = tmp_path_factory.mktemp("supporters")
    return {
        "decoupled": write_supporter(place / "decoupled", "decoupled"),
        "coupled": write_supporter(place / "coupled", "coupled", "gold"),
    }


@pytest.fixture(scope="session")
def supporters(folders: dict[Kind, Path]) -> dict[Kind, Supporter]:
    """The same, loaded."""
    return {kind: Supporter.load(folder) for kind, folder in folders.items()}


@pytest.fixture
def decoupled(supporters: dict[Kind, Supporter]) -> Supporter:
    """A planner and a generator, trained without past strategies."""
    return supporters["decoupled"]
