"""What tests of several rooms share."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: a second thread costs more than it gives

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the public datasets; a test that asks for it is skipped where there is none."""
    folder = Path(os.environ.get("ESCKIT_DATA", ROOT / "../shared/data")).resolve()
    if not (folder / "esconv/train.json").exists():
        pytest.skip(f"no datasets under {folder}: set ESCKIT_DATA to the folder that holds esconv/train.json")
    return folder
