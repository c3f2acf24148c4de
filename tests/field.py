"""The folder of field cases, which is no part of the repository: what people have, made small."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def field(name: str) -> Path:
    """A file or folder of the field cases; the test is skipped where there is none."""
    path = Path(os.environ.get("ESCKIT_FIELD", ROOT / "../shared/field")).resolve() / name
    if not path.exists():
        pytest.skip(f"no field case {path}: set ESCKIT_FIELD to the folder that holds them")
    return path
