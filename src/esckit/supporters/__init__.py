"""Supporters: who answers. A planner chooses a strategy, a generator words it; one adapter may do both.

``Supporter`` and ``predict`` need esckit[train] and come when they are asked for; prompted baselines do without.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from esckit.supporters.prediction import predict
    from esckit.supporters.supporter import Supporter

__all__ = ["Supporter", "predict"]


def __getattr__(name: str) -> Any:
    if name == "Supporter":
        from esckit.supporters.supporter import Supporter

        return Supporter
    if name == "predict":
        from esckit.supporters.prediction import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
