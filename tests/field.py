"""Cases that people of the field report, kept outside the repository: without them, their tests are skipped."""

import os
from pathlib import Path

import pytest

FIELD = Path(os.environ.get("ESCKIT_FIELD", Path(__file__).parents[1] / "../shared/field")).resolve()


def field(path: str) -> Path:
    """The path of an input of the field's cases."""
    if not (FIELD / path).exists():
        pytest.skip(f"no {path} under {FIELD}: set ESCKIT_FIELD to the folder of the field's cases")
    return FIELD / path
