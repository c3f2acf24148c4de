"""Whether bfloat16 is as fast here as float32: on a CPU without instructions for it, it is many times slower."""

from pathlib import Path
from typing import Final, Literal

import torch

__all__ = ["SLOW_BFLOAT16", "fast_bfloat16", "fast_precision"]

SLOW_BFLOAT16: Final = "this CPU has no instructions for bfloat16, which makes it many times slower than float32 here"

_CPU_INFO: Final = Path("/proc/cpuinfo")
_FLAGS: Final = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}  # of x86 and of ARM


def fast_bfloat16(device: str = "cpu") -> bool:
    """Whether a type of device (``cpu``, ``cuda``) has instructions of its own for bfloat16."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if _CPU_INFO.exists():
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
        flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
        return bool(_FLAGS & set(flags.partition(":")[2].split()))
    return bool(torch.cpu._is_avx512_bf16_supported())


def fast_precision(device: str = "cpu") -> Literal["bfloat16", "float32"]:
    """The faster precision of the two on a type of device."""
    return "bfloat16" if fast_bfloat16(device) else "float32"
