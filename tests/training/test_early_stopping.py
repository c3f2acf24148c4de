"""Early stopping: when it measures, when it stops, which weights it keeps, and that a stopped run continues exactly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from torch import Tensor

from esckit.training.early_stopping import EarlyStopping, best_step, evaluation_steps
from esckit.training.trainer import Trained, _Watch, train
from tests.training.test_trainer import (
    Counter,
    Run,
    Stopped,
    assert_same,
    dataset,
    full,
    options,
    planner_adapter,
    rendered,
)

OPTIONS: Final[dict[str, Any]] = {"epochs": 5, "evaluations": 2, "learning_rate": 3e-2}
"""A rate at which four dialogues are soon known by heart, and others are guessed worse."""


def run(model: Any, folder: Path, counter: Counter, *, stop_at: int = 0, patience: int | None = 2, **more: Any) -> Run:
    """Four steps an epoch, measured on dialogues that are not trained on after every second one."""
    counter.start(stop_at)
    own, other = dataset(rendered()), dataset(rendered(count=7)[4:])
    chosen = options(**OPTIONS, patience=patience, **{"checkpoint_seconds": 1000, **more})
    trained = train(model, own, chosen, folder=folder, title="test", seed=5, valid=other)
    return Run(
        trained, {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}, counter.passes
    )


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that stops early, and that nothing killed."""
    with pytest.MonkeyPatch.context() as patched:
        return run(planner_adapter(), tmp_path_factory.mktemp("whole"), Counter(patched))


def measured(trained: Trained) -> dict[int, float]:
    return {int(row["step"]): row["valid_loss"] for row in trained.curve if "valid_loss" in row}


def test_the_loss_is_measured_at_even_distances_and_at_each_epoch_s_end() -> None:
    assert evaluation_steps([4, 3], 1) == [4, 7]
    assert evaluation_steps([4, 3], 2) == [2, 4, 6, 7]
    assert evaluation_steps([10], 3) == [4, 7, 10]
    assert evaluation_steps([2, 1], 5) == [1, 2, 3], "at most once a step"


def test_training_stops_after_so_many_evaluations_without_a_lower_loss(whole: Run) -> None:
    losses = measured(whole.trained)
    best = min(losses, key=lambda step: losses[step])
    assert list(losses) == list(range(2, best + 5, 2)), "two more after the best"
    assert whole.trained.best == best
    assert whole.trained.steps == whole.passes == best + 4 < whole.trained.planned == 20
    assert whole.trained.curve[-1]["step"] == best + 4


def test_the_weights_of_the_best_evaluation_are_kept_whether_it_stops_or_not(
    whole: Run, tmp_path: Path, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = weights_by_step(monkeypatch)
    last = run(planner_adapter(), tmp_path / "to the end", counter, patience=None)
    assert last.trained.steps == 20
    assert last.trained.best is None
    assert_equal(last.weights, seen[20])
    assert measured(whole.trained).items() <= measured(last.trained).items(), "the same run, as far as it goes"
    assert whole.trained.best is not None
    assert_equal(whole.weights, seen[whole.trained.best])
    kept = run(planner_adapter(), tmp_path / "patient", counter, patience=100)
    losses = measured(last.trained)
    assert (kept.trained.steps, kept.trained.best) == (20, min(losses, key=lambda step: losses[step]))
    assert_equal(kept.weights, whole.weights)


def weights_by_step(patch: pytest.MonkeyPatch) -> dict[int, dict[str, Tensor]]:
    seen: dict[int, dict[str, Tensor]] = {}
    plain: Callable[..., None] = _Watch.on_step_end

    def on_step_end(self: Any, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        seen[state.global_step] = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        plain(self, args, state, control, model=model, **more)

    patch.setattr(_Watch, "on_step_end", on_step_end)
    return seen


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("from_best", [-1, pytest.param(1, marks=pytest.mark.slow), 4])
def test_a_killed_run_continues_to_the_same_bytes(from_best: int, whole: Run, tmp_path: Path, counter: Counter) -> None:
    """Killed in the step at this distance from the best one: before and after it, and in the last step."""
    best = whole.trained.best
    assert best is not None
    with pytest.raises(Stopped):
        run(planner_adapter(), tmp_path, counter, stop_at=best + from_best, checkpoint_seconds=0)
    continued = run(planner_adapter(), tmp_path, counter)
    assert continued.passes == 4 - from_best + 1, "what was done is not done again"
    assert_same(continued, whole)


def test_a_run_killed_right_after_it_stopped_stops_there_again(
    whole: Run, tmp_path: Path, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(EarlyStopping, "restore", kill)
        with pytest.raises(Stopped):
            run(planner_adapter(), tmp_path, counter, checkpoint_seconds=0)
    continued = run(planner_adapter(), tmp_path, counter)
    assert continued.passes == 1, "no checkpoint is written where it stops"
    assert_same(continued, whole)


def test_of_equal_losses_the_first_is_the_best_and_none_improves() -> None:
    stopping, model = EarlyStopping(patience=2), full()
    assert not stopping.hear([1.0], model)
    kept = stopping.weights
    assert not stopping.hear([1.0, 1.0], model)
    assert stopping.hear([1.0, 1.0, 1.0], model)
    assert stopping.weights is kept
    assert not stopping.hear([1.0, 1.0, 0.9], model)
    assert stopping.weights is not kept
    assert best_step([{"step": n, "valid_loss": loss} for n, loss in enumerate((2.0, 1.0, 1.0))]) == 1
