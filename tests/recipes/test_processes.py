"""A recipe under two processes: both train, the first one does the rest, and one process would tell the same."""

import json
from importlib import resources
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from esckit.measures import read_predictions
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from tests.recipes.tiny import write_tiny
from tests.training.test_processes import gloo, torchrun

STAGES: Final = """
  - {stage: pretrain, name: pretrain, epochs: 1, batch_size: 8, learning_rate: 1.0e-3}
  - {stage: sft, name: planner-sft, part: planner, past_strategies: hidden, epochs: 1, batch_size: 4}
  - {stage: mine, name: mine, model: planner-sft, samples: 3, folds: 2}
  - {stage: preference, name: planner-dpo, start: planner-sft, pairs: mine, batch_size: 4, reference: stored}
  - {stage: sft, name: generator-sft, part: generator, past_strategies: hidden, epochs: 1, batch_size: 4}
  - {stage: supporter, name: decoupled, planner: planner-dpo, generator: generator-sft}
  - {stage: predict, name: predict, supporter: decoupled, wording: {max_new_tokens: 2}}
  - {stage: evaluate, name: evaluate, predictions: [predict], resamples: 100}
  - {stage: report, name: report}
"""


def write(folder: Path) -> Path:
    """The tiny corpus, and a recipe with every kind of stage that a backbone takes part in."""
    path = write_tiny(folder)
    path.write_text(path.read_text(encoding="utf-8").split("stages:")[0] + f"stages:{STAGES}", encoding="utf-8")
    return path


def curve(folder: Path, stage: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / stage / "curve.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
@gloo
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would share a device")
def test_two_processes_leave_what_one_leaves(tmp_path: Path) -> None:
    recipe = write(tmp_path)
    alone, together = tmp_path / "alone", tmp_path / "together"
    run(load_recipe(str(recipe)), alone)
    torchrun("esckit", "run", recipe, "--out", together)
    files = [{path.relative_to(folder) for path in folder.rglob("*")} for folder in (alone, together)]
    assert files[0] == files[1]
    assert json.loads((together / "versions.json").read_text())["processes"] == 2
    for stage in ("pretrain", "planner-sft", "mine/fold-0", "mine/fold-1"):
        for one, other in zip(curve(alone, stage), curve(together, stage), strict=True):
            assert one == pytest.approx(other, rel=1e-2), stage
    rows = [read_predictions(folder / "predict/predictions.jsonl") for folder in (alone, together)]
    assert [row.turn_id for row in rows[0]] == [row.turn_id for row in rows[1]]
    for one, other in zip(*rows, strict=True):
        assert one.strategy_probabilities == pytest.approx(other.strategy_probabilities, abs=1e-2)


@pytest.mark.parametrize("name", ["ddp", "deepspeed-zero2"])
def test_configurations_for_accelerate_are_ones_that_it_reads(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    path = resources.files("esckit.recipes").joinpath(f"accelerate/{name}.yaml")
    config = load_config_from_file(str(path))
    assert config.num_processes > 1
    assert "UNTESTED" in path.read_text(encoding="utf-8"), "until somebody has run it on GPUs"
