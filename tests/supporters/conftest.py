"""Supporters that are made once: the tests read them and change only copies."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from esckit.corpora import load_corpus
from esckit.planning.encoder import load_encoder
from esckit.supporters import Supporter
from esckit.supporters.retrieval import build_store
from esckit.supporters.supporter_folder import Kind, SupporterCard
from tests.supporters.known import Known
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


@pytest.fixture(scope="session")
def retrieval() -> Supporter:
    """A planner of known probabilities with stored replies."""
    store = build_store(load_corpus("starter").train[:12], load_encoder(), "starter", "CC0-1.0", Counter())
    return Supporter(SupporterCard("decoupled", "hidden", generator="retrieval"), Known(), store)
