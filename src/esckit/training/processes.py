"""Several processes that train together, started by ``torchrun`` or ``accelerate launch``; the first one is main."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist

from esckit.errors import RunError

T = TypeVar("T")
_PATIENCE: Final = timedelta(days=14)  # the others wait while the first one mines or predicts


def join_processes() -> int:
    """Meet the other processes that the launcher started; return how many there are, 1 without a launcher.

    Raises:
        RunError: the launcher asks for weights that are divided over the processes.
    """
    zero3 = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3"
    if zero3 or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise RunError(
            "FSDP and ZeRO stage 3 divide the weights over the processes, and esckit saves whole ones only: "
            "launch with ddp.yaml or deepspeed-zero2.yaml of esckit/recipes/accelerate, or with torchrun."
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_PATIENCE)
    return count_processes()


def count_processes() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """True in the process that writes: the first, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def wait() -> None:
    """Wait until every process is here."""
    _gather(None)


def from_main(ask: Callable[..., T], *arguments: Any) -> T:
    """What ``ask`` returns in the main process; only that one asks, all hear."""
    told = [ask(*arguments) if is_main() else None]
    if dist.is_initialized():
        dist.broadcast_object_list(told)
    return told[0]  # type: ignore[return-value]


def total(figures: Mapping[str, float]) -> dict[str, float]:
    """Sums of named figures over all processes."""
    sums: Counter[str] = Counter()
    for own in _gather(dict(figures)):
        sums.update(own)
    return dict(sums)


def _gather(value: T) -> list[T]:
    values = [value] * count_processes()
    if dist.is_initialized():
        dist.all_gather_object(values, value)
    return values
