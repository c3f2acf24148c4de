"""Supporters: who answers. A planner chooses a strategy, a generator words it; one adapter may do both."""

from esckit.supporters.prediction import predict
from esckit.supporters.supporter import Supporter

__all__ = ["Supporter", "predict"]
