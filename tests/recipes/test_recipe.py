"""Recipes are checked whole before anything runs, and an error names the key and the nearest right one."""

from pathlib import Path
from typing import Final

import pytest

from esckit.errors import RecipeError
from esckit.recipes.recipe_files import load_recipe, shipped_recipes
from esckit.recipes.stages.preference import PreferenceStage
from esckit.recipes.stages.pretrain import PretrainStage
from esckit.recipes.stages.sft import SftStage, sft_of
from tests.recipes.tiny import RECIPE

JUDGED: Final = ["mine-planner.rule=judged", "mine-planner.wording=generator-sft"]


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
    assert any(isinstance(stage, PretrainStage) for stage in recipe.stages)


def test_a_small_version_draws_dialogues_and_the_same_ones_again() -> None:
    whole = load_recipe("starter").corpus.load()
    small = load_recipe("starter", ["corpus.dialogues=5", "corpus.held_out=2"]).corpus.load()
    assert [len(part) for part in (small.train, small.valid, small.test)] == [5, 2, 2]
    assert {each.id for each in small.train} < {each.id for each in whole.train}
    again = load_recipe("starter", ["corpus.dialogues=5"]).corpus.load()
    assert [each.id for each in again.train] == [each.id for each in small.train]
    other = load_recipe("starter", ["corpus.dialogues=5", "corpus.split_seed=1"]).corpus.load()
    assert [each.id for each in other.train] != [each.id for each in small.train]
    assert len(again.test) == len(whole.test)


@pytest.mark.parametrize("ranker", ["a/b", "smollm2"])
def test_a_ranker_needs_replies_to_choose_among(ranker: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "format: 1\nstages:\n- {stage: planner, name: p}\n"
        f"- {{stage: supporter, name: s, planner: p, ranker: {ranker}}}\n"
    )
    with pytest.raises(RecipeError, match="stage 's' has a ranker and no replies to choose among"):
        load_recipe(str(path))


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


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["planner-dpo.pairs=mine-generator"], "'planner-dpo' aligns a part on pairs that were mined for another part"),
        (
            ["planner-dpo.pairs=planner-sft"],
            "'planner-dpo' needs an earlier mine or search or refine stage named 'planner-sft'",
        ),
        (["planner-dpo.start=mine-planner"], "needs an earlier sft or preference or keep stage named 'mine-planner'"),
        (["planner-dpo.start=generator-dpo"], "needs an earlier sft or preference or keep stage named 'generator-dpo'"),
        (["planner-dpo.loss=ppo"], "planner-dpo.loss: input should be 'dpo', 'ipo', 'simpo', 'kto' or 'orpo'"),
        (["planner-dpo.reference=base"], "planner-dpo.reference: input should be 'frozen', 'merged' or 'stored'"),
        (["planner-dpo.beta=0"], "planner-dpo.beta: input should be greater than 0"),
        (["planner-dpo.bata=1"], "unknown key 'planner-dpo.bata': did you mean 'beta'?"),
        (["planner-dpo.lora.rank=1"], "unknown key 'planner-dpo.lora.rank'"),
        (["mine-planner.rule=jugded"], "mine-planner.rule: input should be 'unequal', 'judged' or 'random'"),
        (["mine-planner.rule=judged"], "replies that follow its strategies: set wording to a stage of the generator"),
        ([*JUDGED, "mine-planner.wording=coupled-sft"], "'mine-planner' needs a stage of the generator as wording"),
        (
            [*JUDGED, "mine-planner.wording=mine-coupled"],
            "needs an earlier sft or preference or keep stage named 'mine-coupled'",
        ),
        (["mine-generator.wording=generator-sft"], "'mine-generator' needs no wording, which is for judged pairs"),
        ([*JUDGED, "generator-sft.past_strategies=gold"], "must be trained with the same past_strategies"),
        (["mine-planner.clean_chosen=false"], "'mine-planner' asks no annotator: leave out clean_chosen"),
        (["annotator.model=embedded"], "annotator is for mine stages with the rule judged, and there is none"),
        ([*JUDGED, "annotator.budget_calls=5"], "budget_calls is for a chat model: set model to remote:"),
        ([*JUDGED, 'annotator.model="remote:"'], "remote: names no model: write remote:MODEL"),
        ([*JUDGED, "annotator.modle=embedded"], "unknown key 'annotator.modle': did you mean 'model'?"),
        (
            ["planner-dpo.kinds=[PsNr]"],
            "'planner-dpo' chooses kinds of pairs, which only a coupled part's differ in",
        ),
        (["coupled-dpo.kinds=[PsPr]"], "input should be 'PsNr', 'NsNr' or 'NsPr'"),
        (["mine-planner.sample=2"], "unknown key 'mine-planner.sample': did you mean 'samples'?"),
        (["mine-planner.samples=0"], "mine-planner.samples: input should be greater than or equal to 1"),
        (["mine-planner.model=mine-coupled"], "needs an earlier sft or preference or keep stage named 'mine-coupled'"),
        (["mine-again.folds=2"], "'mine-again' mines in folds, which needs an sft stage as its model"),
        (["mine-planner.rule=random", "mine-planner.folds=2"], "mines at random, which asks no model: leave out folds"),
        (["mine-generator.top_k=2"], "'mine-generator' chooses no strategy by its probability: leave out top_k"),
        (["mine-planner.top_k=2", "mine-planner.rule=random"], "chooses no strategy by its probability"),
        (["planner-sft.label_weight=2"], "label_weight is for the coupled part"),
        (["coupled-sft.label_weight=0"], "coupled-sft.label_weight: input should be greater than 0"),
        (["aligned.planner=generator-dpo"], "'aligned' takes a part from a stage that trained another part"),
    ],
)
def test_wrong_preference_stages_get_one_sentence(tmp_path: Path, settings: list[str], sentence: str) -> None:
    text = RECIPE.format(folder=tmp_path) + "  - {stage: mine, name: mine-again, model: planner-dpo}\n"
    (tmp_path / "tiny.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        load_recipe(str(tmp_path / "tiny.yaml"), settings)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_part_is_its_root_s_through_every_round(tmp_path: Path) -> None:
    text = RECIPE.format(folder=tmp_path) + (
        "  - {stage: mine, name: mine-again, model: planner-dpo, top_k: 2}\n"
        "  - {stage: preference, name: planner-dpo-again, start: planner-dpo, pairs: mine-again}\n"
    )
    (tmp_path / "tiny.yaml").write_text(text, encoding="utf-8")
    recipe = load_recipe(str(tmp_path / "tiny.yaml"))
    assert sft_of(recipe, "planner-dpo-again") == recipe.named("planner-sft")
    assert isinstance(recipe.named("planner-dpo-again"), PreferenceStage)


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


@pytest.mark.parametrize("ratios", ["8:1:1", "9:1", "7:1.5:1.5", "1:1.5"])
def test_ratios_are_no_numbers_to_the_base_of_sixty(ratios: str, tmp_path: Path) -> None:
    assert load_recipe("starter", [f"corpus.split={ratios}"]).corpus.split == ratios
    own = tmp_path / "own.yaml"
    own.write_text(f"format: 1\nbase: starter\ncorpus: {{split: {ratios}, split_seed: 0x10}}\n", encoding="utf-8")
    assert (load_recipe(str(own)).corpus.split, load_recipe(str(own)).corpus.split_seed) == (ratios, 16)
