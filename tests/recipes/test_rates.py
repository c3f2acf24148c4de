"""Rates belong to the backbone: a recipe's own leave with the one that it makes, and a user's stay."""

from pathlib import Path

import pytest

from esckit.recipes.check import check
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.stage import TrainingStage
from esckit.training.training_options import usual_rates
from tests.recipes.tiny import write_tiny
from tests.tiny import save_base


def rates(name: str, *settings: str) -> dict[str, float | None]:
    stages = load_recipe(name, settings).stages
    return {stage.name: stage.learning_rate for stage in stages if isinstance(stage, TrainingStage)}


def test_a_recipe_s_rates_are_those_of_the_backbone_that_it_makes() -> None:
    assert rates("starter")["coupled-sft"] == 2e-3
    assert set(rates("starter", "model.path=smollm2").values()) == {None}
    assert set(rates("starter", "model={path: smollm2}").values()) == {None}
    assert rates("starter", "model.path=null") == rates("starter")
    set_one = rates("starter", "planner-sft.learning_rate=3e-4", "model.path=a/b")
    assert {name: rate for name, rate in set_one.items() if rate} == {"planner-sft": 3e-4}


def test_rounds_and_recipes_on_a_base_likewise(tmp_path: Path) -> None:
    assert set(rates("starter-rounds", "model.path=a/b").values()) == {None}
    own = tmp_path / "own.yaml"
    text = "format: 1\nbase: starter\nmodel: {path: a/b}\nstages:\n  planner-sft: {learning_rate: 3.0e-4}\n"
    own.write_text(text, encoding="utf-8")
    found = rates(str(own))
    assert {name: rate for name, rate in found.items() if rate} == {"planner-sft": 3e-4}


def test_a_recipe_that_names_its_backbone_keeps_its_rates() -> None:
    assert rates("decoupled-qwen2.5-7b", "model.path=a/b") == rates("decoupled-qwen2.5-7b")
    assert rates("decoupled-qwen2.5-7b")["planner-dpo"] == 5e-8


def test_an_encoder_planner_s_rate_is_no_backbone_s() -> None:
    own = ["encoder-planner.learning_rate=0.03"]
    for settings in (own, [*own, "model.path=a/b"]):
        found = [stage for stage in load_recipe("planners", settings).stages if stage.name == "encoder-planner"]
        assert all("'learning_rate': 0.03" in str(stage.model_dump()) for stage in found)


@pytest.mark.parametrize(
    ("parameters", "kind", "sft"),
    [(2_000_000, "pocket", 1e-3), (135_000_000, "small", 2e-4), (7 * 10**9, "large", 1e-5)],
)
def test_rates_are_by_size(parameters: int, kind: str, sft: float) -> None:
    found = usual_rates(parameters)
    assert (found.kind, found.sft) == (kind, sft)
    assert found.preference < found.sft


def test_check_says_which_rates_will_be_used(tmp_path: Path) -> None:
    recipe = str(write_tiny(tmp_path))
    (line,) = [line for line in check(load_recipe(recipe)) if line.startswith("learning rates")]
    assert line.startswith(
        "learning rates, on a pocket backbone: pretrain 0.001 (set; usual 0.002), coupled-sft 0.001, "
    )
    base = save_base(tmp_path / "base")
    settings = [f"model.path={base}", "coupled-sft.learning_rate=3e-5"]
    (line,) = [line for line in check(load_recipe(recipe, settings)) if line.startswith("learning rates")]
    assert "coupled-sft 3e-05 (set; usual 0.001), planner-sft 0.001, " in line
    assert "planner-dpo 0.0001" in line
