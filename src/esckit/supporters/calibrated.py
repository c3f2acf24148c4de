"""A planner under a calibration that was fitted to it afterwards."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from esckit.conversation import Conversation, Turn
from esckit.planning.calibration import Calibration
from esckit.supporters.parts import Planner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CalibratedPlanner"]


class CalibratedPlanner:
    """Any planner's scores with a temperature and class offsets."""

    def __init__(self, planner: Planner, calibration: Calibration) -> None:
        self._planner = planner
        self._calibration = calibration

    @property
    def identity(self) -> str:
        """The planner's, and the calibration."""
        return json.dumps([self._planner.identity, self._calibration.to_json()])

    def score(
        self, conversation: Conversation, turns: Sequence[Turn], shown: Mapping[str, str]
    ) -> "NDArray[np.float64]":
        """See `Planner.score`."""
        return self._calibration.apply(self._planner.score(conversation, turns, shown))
