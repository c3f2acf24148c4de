"""Recipes are checked whole before anything runs, and an error names the key and the nearest right one."""

from pathlib import Path

import pytest

from esckit.errors import RecipeError
from esckit.recipes.schema import PretrainStage, SftStage, load_recipe, shipped_recipes


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid(name: str) -> None:
    assert load_recipe(name).stages


def test_settings_reach_top_level_keys_and_stages() -> None:
    recipe = load_recipe(
        "starter", ["seed=7", "corpus.name=tree", "planner-sft.learning_rate=1e-4", "planner-sft.lora.r=4"]
    )
    planner = next(stage for stage in recipe.stages if stage.name == "planner-sft")
    assert isinstance(planner, SftStage)
    assert (recipe.seed, recipe.corpus.name, planner.learning_rate, planner.lora.r) == (7, "tree", 1e-4, 4)
    assert planner.lora.alpha == 16


def test_defaults_are_the_papers() -> None:
    recipe = load_recipe("starter")
    shown = {s.part: s.past_strategies for s in recipe.stages if isinstance(s, SftStage)}
    assert shown == {"planner": "hidden", "generator": "hidden", "coupled": "gold"}
    assert isinstance(recipe.stages[0], PretrainStage)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["planner-sft.learning_rte=1"], "unknown key 'planner-sft.learning_rte': did you mean 'learning_rate'?"),
        (["planer-sft.epochs=1"], "unknown key 'planer-sft' in --set: did you mean 'planner-sft'?"),
        (["corpus.trian=x"], "unknown key 'corpus.trian': did you mean 'train'?"),
        (["planner-sft.lora.rank=3"], "unknown key 'planner-sft.lora.rank'"),
        (["planner-sft.epochs=many"], "planner-sft.epochs: input should be a valid integer"),
        (["planner-sft.epochs=0"], "planner-sft.epochs: input should be greater than or equal to 1"),
        (["seed"], "is not key=value"),
        (["planner-sft=3"], "names a stage and no key"),
        (["seed.deep.er=3"], "has no keys below it"),
        (["decoupled.planner=generator-sft"], "takes a part from a stage that trained another part"),
        (["planner-sft.past_strategies=gold"], "must be trained with the same past_strategies"),
        (["predict-coupled.supporter=nobody"], "needs an earlier supporter stage named 'nobody'"),
        (["planner-sft.past_strategies=predicted"], "planner-sft.past_strategies: input should be 'gold' or 'hidden'"),
    ],
)
def test_wrong_settings_get_one_sentence(settings: list[str], sentence: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe("starter", settings)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'strter': did you mean 'starter'\?"):
        load_recipe("strter")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("format: 2\nstages: []\n", "recipe format 2"),
        ("- a list\n", "is not a recipe"),
        ("format: [1\n", "not valid YAML"),
        ("format: 1\nstages: []\n", "stages: list should have at least 1 item"),
        ("format: 1\nstages: [{stage: fly, name: x}]\n", "'fly'"),
    ],
)
def test_wrong_files_get_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        load_recipe(str(path))
    assert sentence in str(error.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="does not exist"):
        load_recipe(str(tmp_path / "none.yaml"))
