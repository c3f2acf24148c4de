"""Whether a CPU has instructions for bfloat16 is read from what the system says of it."""

from pathlib import Path

import pytest
import torch

from esckit.language_models import precision
from esckit.language_models.precision import fast_bfloat16, fast_precision


@pytest.mark.parametrize(
    ("line", "fast"),
    [
        ("flags\t\t: fpu avx2 fma f16c", False),
        ("flags\t\t: fpu avx2 avx512f avx512bw avx512_vnni", False),
        ("flags\t\t: fpu avx512f avx512_bf16", True),
        ("flags\t\t: fpu amx_tile amx_bf16", True),
        ("Features\t: fp asimd i8mm bf16", True),
        ("Features\t: fp asimd", False),
        ("hardware: unknown", False),
    ],
)
def test_the_flags_of_a_cpu(line: str, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n\nprocessor\t: 1\n{line}\n")
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "cpuinfo")
    assert fast_bfloat16() is fast
    assert fast_precision() == ("bfloat16" if fast else "float32")


def test_without_such_a_file_torch_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "none")
    for found in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda found=found: found)
        assert fast_bfloat16() is found


def test_of_a_gpu_torch_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert fast_precision("cuda") == "bfloat16"
