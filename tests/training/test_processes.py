"""Two processes under torchrun take the steps of one: the same loss, gradients and curve; they continue a run."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from esckit.errors import RunError
from esckit.training.batches import divide
from esckit.training.processes import count_processes, from_main, is_main, join_processes, total, wait
from tests.training.step import Step
from tests.training.together import STEPS, Run, everything

ROOT = Path(__file__).parents[2]
gloo = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch has no gloo")


def torchrun(*arguments: str | Path, processes: int = 2) -> None:
    """Run a module of ours in several processes."""
    paths = [str(ROOT), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("two")
    torchrun("tests.training.together", folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What this process finds alone."""
    return everything(tmp_path_factory.mktemp("one"))


@pytest.mark.slow
@gloo
@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_two_processes_is_the_step_of_one(name: str, one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    wanted: Step = one[name]
    for found in (own[name] for own in two):
        assert found.gradients.keys() == wanted.gradients.keys()
        for parameter, gradient in wanted.gradients.items():
            assert float((found.gradients[parameter] - gradient).norm() / gradient.norm()) < 1e-4, parameter
        assert found.logged == pytest.approx(wanted.logged, rel=1e-4)


@pytest.mark.slow
@gloo
def test_a_run_of_two_processes_tells_what_a_run_of_one_tells(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    wanted: Run = one["run"]
    for found in (own["run"] for own in two):
        assert [row.keys() for row in found.curve] == [row.keys() for row in wanted.curve]
        for row, other in zip(found.curve, wanted.curve, strict=True):
            assert row == pytest.approx(other, rel=1e-2, abs=1e-4)
    first, second = (own["run"].weights for own in two)
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


@pytest.mark.slow
@gloo
def test_two_processes_continue_from_a_checkpoint_exactly(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert found["again"].curve == found["run"].curve
        weights = found["run"].weights
        assert all(torch.equal(weight, weights[name]) for name, weight in found["again"].weights.items())


@pytest.mark.slow
@gloo
def test_two_processes_stop_early_together_and_keep_the_same_weights(
    one: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    wanted: Run = one["stopped"]
    first, second = (own["stopped"] for own in two)
    assert [row["step"] for row in first.curve] == [row["step"] for row in wanted.curve]
    assert sum("valid_loss" in row for row in first.curve) == 2, "after the second evaluation of six"
    assert first.curve == second.curve
    assert all(torch.equal(weight, second.weights[name]) for name, weight in first.weights.items())


@pytest.mark.slow
@gloo
def test_processes_hear_the_first_one_and_sum_up(two: list[dict[str, Any]]) -> None:
    assert [own["talk"][:4] for own in two] == [(2, 2, True, 0), (2, 2, False, 0)]
    assert [own["talk"][4] for own in two] == [{"a": 3.0, "0": 1, "1": 1}] * 2


@pytest.mark.parametrize("asked", [("ACCELERATE_USE_FSDP", "true"), ("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")])
def test_divided_weights_are_refused_before_anything_is_trained(
    asked: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*asked)
    with pytest.raises(RunError, match=r"^FSDP and ZeRO stage 3 divide the weights .* launch with ddp\.yaml"):
        join_processes()


def test_one_process_alone_asks_nobody() -> None:
    wait()
    assert (join_processes(), count_processes(), is_main()) == (1, 1, True)
    assert from_main(max, 3, 4) == 4
    assert total({"a": 2.0}) == {"a": 2.0}


@given(st.lists(st.integers(1, 50), max_size=12), st.integers(1, 5))
def test_a_batch_is_divided_evenly_and_wholly(sizes: list[int], processes: int) -> None:
    shares = divide(sizes, processes)
    assert len(shares) == processes
    assert sorted(index for share in shares for index in share) == list(range(len(sizes)))
    loads = [sum(sizes[index] for index in share) for share in shares]
    assert max(loads) - min(loads) <= max(sizes, default=0)
    assert all(share == sorted(share) for share in shares)
