"""Recipes whose figures would mean something else than they say are refused in a sentence."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from esckit.corpora import load_corpus, write_corpus
from esckit.corpora.esconv import conversation_to_esconv
from esckit.corpora.formats import write_list
from esckit.errors import RecipeError, RunError
from esckit.recipes.recipe import Recipe
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import load_checked

RECIPE: Final = """
format: 1
corpus: {name: starter}
model: {path: owner/name}
stages:
  - {stage: planner, name: both, model: majority, with_valid: true}
  - {stage: planner, name: train, model: majority}
  - {stage: sft, name: shown-sft, part: planner, past_strategies: gold}
  - {stage: sft, name: generator-sft, part: generator, past_strategies: hidden}
  - {stage: sft, name: gold-generator-sft, part: generator, past_strategies: gold}
  - {stage: supporter, name: on-both, planner: both}
  - {stage: supporter, name: on-train, planner: train}
  - {stage: supporter, name: plain, planner: train, calibrated: false}
  - {stage: supporter, name: language, planner: shown-sft}
  - {stage: supporter, name: joined, planner: train, generator: generator-sft, past_strategies: hidden}
  - {stage: supporter, name: joined-gold, planner: train, generator: gold-generator-sft}
  - {stage: calibrate, name: fitted, supporter: on-train}
  - {stage: predict, name: one, supporter: on-both}
  - {stage: predict, name: two, supporter: on-train, calibration: fitted}
  - {stage: predict, name: three, supporter: joined}
  - {stage: predict, name: four, supporter: joined-gold, calibration: fitted}
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return str(tmp_path / "recipe.yaml")


def test_the_recipe_itself_is_right(path: str) -> None:
    """A generator beside the planner changes nothing for a calibration of the planner."""
    load_checked(load_recipe(path))


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("one.split=valid", "stage 'one' predicts valid, which planner stage 'both' is fitted to: take another part"),
        ("fitted.supporter=on-both", "stage 'fitted' fits to valid, which planner stage 'both' is fitted to"),
        ("two.split=valid", "stage 'two' predicts valid, which calibrate stage 'fitted' is fitted to"),
        ("fitted.split=test", "stage 'two' predicts test, which calibrate stage 'fitted' is fitted to"),
    ],
)
def test_nothing_is_fitted_to_what_is_measured(path: str, setting: str, sentence: str) -> None:
    recipe = load_recipe(path, [setting, *(["two.supporter=on-both", "four.calibration=null"] * ("both" in setting))])
    with pytest.raises(RunError) as error:
        load_checked(recipe)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_the_training_part_may_be_predicted_and_a_planner_without_test_was_not_fitted_to_valid(
    path: str, tmp_path: Path
) -> None:
    load_checked(load_recipe(path, ["one.split=train"]))
    starter = load_corpus("starter")
    for name in ("train", "valid"):
        write_corpus(tmp_path / f"{name}.jsonl", getattr(starter, name))
    corpus = f"corpus={{name: tree, train: {tmp_path}/train.jsonl, valid: {tmp_path}/valid.jsonl}}"
    plain = ["two.calibration=null", "four.calibration=null"]
    load_checked(load_recipe(path, [corpus, "one.split=valid", *plain]))


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("two.supporter=plain", "its calibration 'fitted' is fitted to the planner of 'on-train': fit one to its own"),
        ("two.supporter=language", "its calibration 'fitted' is fitted to the planner of 'on-train'"),
        (
            "two.past_strategies=hidden",
            "'two' shows past strategies hidden, and its calibration 'fitted' is fitted with",
        ),
        ("two.past_strategies=predicted", "'two' shows past strategies predicted, and its calibration"),
        ("fitted.past_strategies=hidden", "its calibration 'fitted' is fitted with hidden: give both the same"),
        (
            "joined.past_strategies=gold",
            "stage 'joined' shows past strategies (gold) to a generator that was trained w",
        ),
        (
            "three.past_strategies=gold",
            "stage 'three' shows past strategies (gold) to a generator that was trained wit",
        ),
        ("three.past_strategies=predicted", "stage 'three' shows past strategies (predicted) to a generator"),
        ("joined.generator=null", ""),
    ],
)
def test_what_was_fitted_or_trained_otherwise(path: str, setting: str, sentence: str) -> None:
    if not sentence:
        assert load_recipe(path, [setting])
        return
    with pytest.raises(RecipeError) as error:
        load_recipe(path, [setting])
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_gold_strategies_are_not_the_model_s_own(path: str) -> None:
    with pytest.raises(RecipeError, match="three: strategies: gold predicts none that the history could show"):
        load_recipe(path, ["three.strategies=gold", "three.past_strategies=predicted"])


# ---------------------------------------------------------------------------------------------------------------- split


def split(path: str, tmp_path: Path, *settings: str) -> list[str]:
    if not (tmp_path / "all.jsonl").exists():
        write_corpus(tmp_path / "all.jsonl", load_corpus("starter").train)
    corpus = f"corpus={{name: tree, file: {tmp_path}/all.jsonl, split: '8:1:1'}}"
    return [conversation.id for conversation in load_checked(load_recipe(path, [corpus, *settings])).test]


def test_training_seeds_share_one_test_set(path: str, tmp_path: Path) -> None:
    sets = [split(path, tmp_path, f"seed={seed}") for seed in (0, 1, 2)]
    assert sets[0] == sets[1] == sets[2] != []
    assert split(path, tmp_path, "corpus.split_seed=1") != sets[0]


def test_a_recipe_maps_labels_and_merges_turns(path: str, tmp_path: Path) -> None:
    talks = [conversation_to_esconv(tree) for tree in load_corpus("starter").train[:3]]
    for talk in talks:
        for entry in talk["dialog"]:
            if entry["annotation"].get("strategy") == "Others":
                entry["annotation"]["strategy"] = "Salam"
    write_list(tmp_path / "own.json", talks)
    (tmp_path / "map.yaml").write_text("Salam: Others\n", encoding="utf-8")
    settings = {"name": "esconv", "file": f"{tmp_path}/own.json", "split": "1:1:1", "turn_rule": "merged"}
    own = f"corpus={json.dumps({**settings, 'labels': f'{tmp_path}/map.yaml'})}"
    corpus = load_checked(load_recipe(path, [own]))
    assert corpus.source.endswith("own.json split by 1:1:1, turns merged (first label)")
    trees = [tree for part in corpus.parts.values() for tree in part]
    assert all(one.speaker != other.speaker for tree in trees for one, other in pairwise(tree.turns))
    assert any(turn.strategy == "Others" for tree in trees for turn in tree.turns)
    with pytest.raises(RecipeError, match="merged_label is for turn_rule merged: set both"):
        load_recipe(path, ["corpus.merged_label=last"])


# ---------------------------------------------------------------------------------------------------- files and aliases

ALIASES: Final = """
format: 1
stages:
  - &sft {stage: sft, name: one, part: planner, past_strategies: hidden, lora: &lora {r: 4}}
  - {<<: *sft, name: two}
  - {stage: sft, name: three, part: planner, past_strategies: hidden, lora: *lora}
"""


def ranks(recipe: Recipe) -> list[int]:
    return [stage.model_dump()["lora"]["r"] for stage in recipe.stages]


def test_a_setting_reaches_one_place_of_what_aliases_share(tmp_path: Path) -> None:
    (tmp_path / "aliases.yaml").write_text(ALIASES, encoding="utf-8")
    path = str(tmp_path / "aliases.yaml")
    assert ranks(load_recipe(path)) == [4, 4, 4]
    assert ranks(load_recipe(path, ["one.lora.r=8"])) == [8, 4, 4]
    assert ranks(load_recipe(path, ["two.lora.r=8", "three.lora.r=2"])) == [4, 8, 2]


def test_an_alias_inside_itself_is_told(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("format: 1\nstages: &s [*s]\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="contains itself"):
        load_recipe(str(tmp_path / "loop.yaml"))


def on_base(tmp_path: Path, text: str) -> Recipe:
    (tmp_path / "base.yaml").write_text(ALIASES + "model: {path: owner/name, layout: paper}\n", encoding="utf-8")
    (tmp_path / "own.yaml").write_text(f"format: 1\nbase: {tmp_path}/base.yaml\n{text}", encoding="utf-8")
    return load_recipe(str(tmp_path / "own.yaml"))


def test_a_recipe_may_say_what_it_changes_in_another(tmp_path: Path) -> None:
    recipe = on_base(tmp_path, "title: own\nmodel: {path: another/name}\nstages: {two: {epochs: 7}}\n")
    assert (recipe.title, recipe.model.path, recipe.model.layout) == ("own", "another/name", "paper")
    assert [stage.model_dump()["epochs"] for stage in recipe.stages] == [3, 7, 3]
    assert [s.name for s in on_base(tmp_path, f"stages: [{ALIASES.splitlines()[3][4:]}]\n").stages] == ["one"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("stages: {tow: {epochs: 7}}\n", "its base has no stage 'tow' with keys: did you mean 'two'?"),
        ("stages: {two: 7}\n", "its base has no stage 'two' with keys"),
        ("stages: {two: {epoch: 7}}\n", "unknown key 'two.epoch': did you mean 'epochs'?"),
        ("base: [1]\n", "base is the name or the path of another recipe"),
        ("base: nowhere.yaml\n", "nowhere.yaml does not exist"),
        ("base: strter\n", "there is no recipe 'strter': did you mean 'starter'?"),
    ],
)
def test_a_wrong_base_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        on_base(tmp_path, text)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_recipe_that_is_its_own_base_is_told(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"format: 1\nbase: {path}\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="base is the name or the path of another recipe"):
        load_recipe(str(path))
