"""Rows are whatever the renderer gives: tries of the layout ``paper`` equal their sequences read alone, too."""

import pytest

from esckit.rendering import Part, PastStrategies
from tests.language_models.test_exactness import ARCHITECTURES, PARTS, check
from tests.tiny import Architecture, starter_dialogues, strategies_shown, tiny_model, tiny_renderer


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tries_in_the_layout_paper_are_exact(architecture: Architecture, part: Part) -> None:
    renderer = tiny_renderer(layout="paper")
    mode: PastStrategies = "gold" if part == "coupled" else "hidden"
    rows = [renderer.examples(c, part, strategies_shown(c, mode)) for c in starter_dialogues(2, 6)]
    check(tiny_model(architecture), rows)
