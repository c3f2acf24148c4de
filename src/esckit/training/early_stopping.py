"""Early stopping: when the loss on what is not trained on is measured, when training ends, which weights are kept."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_BEST: Final = "best.safetensors"  # in a checkpoint


class EarlyStopping:
    """Keeps the trained weights of the evaluation with the lowest loss, the first of several, and says when to stop.

    How long it waited stands in the history of losses, so that a checkpoint has to carry the weights alone.

    Args:
        patience: of so many evaluations in a row without a lower loss, the last one stops training; at least 1.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.weights: dict[str, Tensor] = {}

    def hear(self, losses: Sequence[float], model: Any) -> bool:
        """Keep the model's trained weights where the last of all losses is the best; true where training stops."""
        waited = len(losses) - 1 - _best(losses)
        if not waited:
            self.weights = {name: p.detach().to("cpu", copy=True) for name, p in _trained(model).items()}
        return waited >= self.patience

    def save(self, checkpoint: Path) -> None:
        """Write the kept weights into a checkpoint; nothing before the first evaluation."""
        if self.weights:
            save_file({name: weight.contiguous() for name, weight in self.weights.items()}, checkpoint / _BEST)

    def load(self, checkpoint: Path) -> None:
        """Keep what a checkpoint kept."""
        self.weights = load_file(checkpoint / _BEST) if (checkpoint / _BEST).exists() else {}

    @torch.no_grad()
    def restore(self, model: Any) -> None:
        """Give the model the kept weights."""
        for name, parameter in _trained(model).items():
            parameter.copy_(self.weights[name])


def evaluation_steps(epochs: Sequence[int], evaluations: int) -> list[int]:
    """The steps after which the loss is measured, given each epoch's steps: at even distances, at its end too."""
    found, before = set(), 0
    for steps in epochs:
        found |= {before + -(-steps * turn // evaluations) for turn in range(1, evaluations + 1)}
        before += steps
    return sorted(found)


def valid_losses(history: Iterable[Mapping[str, float]]) -> list[float]:
    """The losses that were measured, in order."""
    return [row["valid_loss"] for row in history if "valid_loss" in row]


def best_step(history: Sequence[Mapping[str, float]]) -> int:
    """The step of the lowest loss, the first of several."""
    measured = [row for row in history if "valid_loss" in row]
    return int(measured[_best(valid_losses(measured))]["step"])


def _best(losses: Sequence[float]) -> int:
    return losses.index(min(losses))


def _trained(model: Any) -> dict[str, Any]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
