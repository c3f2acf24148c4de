"""A block of stages that a recipe repeats: how it is written out, and that a run of it continues after a kill."""

import json
import signal
from pathlib import Path
from typing import Any, Final

import pytest
from safetensors.torch import load_file

from esckit.conversation import read_conversations
from esckit.errors import RecipeError
from esckit.recipes.recipe import Recipe
from esckit.recipes.recipe_files import load_recipe
from tests.children import esckit
from tests.recipes.tiny import write_tiny

BLOCK: Final = """
format: 1
stages:
  - {stage: sft, name: sft, part: planner, past_strategies: hidden}
  - repeat:
      name: rounds
      times: 3
      start: {dpo: sft, pairs: null}
      stages:
        - {stage: mine, name: pairs, model: dpo, trees: pairs}
        - {stage: preference, name: dpo, start: dpo, pairs: pairs}
  - {stage: supporter, name: last, planner: dpo}
  - {stage: supporter, name: first, planner: dpo-1}
"""


def load(tmp_path: Path, *settings: str, text: str = BLOCK) -> Recipe:
    (tmp_path / "rounds.yaml").write_text(text, encoding="utf-8")
    return load_recipe(str(tmp_path / "rounds.yaml"), settings)


def keys(recipe: Recipe, name: str) -> dict[str, Any]:
    return recipe.named(name).model_dump()


def test_a_block_is_written_out_as_plain_stages(tmp_path: Path) -> None:
    recipe = load(tmp_path)
    rounds = ["pairs-1", "dpo-1", "pairs-2", "dpo-2", "pairs-3", "dpo-3"]
    assert [stage.name for stage in recipe.stages] == ["sft", *rounds, "last", "first"]
    models = [keys(recipe, f"pairs-{turn}")["model"] for turn in (1, 2, 3)]
    assert models == ["sft", "dpo-1", "dpo-2"], "a later stage's name is the round before's"
    assert [keys(recipe, f"pairs-{turn}")["trees"] for turn in (1, 2, 3)] == [None, "pairs-1", "pairs-2"]
    assert [keys(recipe, f"dpo-{turn}")["start"] for turn in (1, 2, 3)] == ["sft", "dpo-1", "dpo-2"], "its own, too"
    assert [keys(recipe, f"dpo-{turn}")["pairs"] for turn in (1, 2, 3)] == rounds[::2], (
        "an earlier stage's is this one's"
    )
    assert (keys(recipe, "last")["planner"], keys(recipe, "first")["planner"]) == ("dpo-3", "dpo-1")


def test_the_written_out_recipe_is_the_same_recipe(tmp_path: Path) -> None:
    recipe = load(tmp_path)
    again = json.dumps({"format": 1, "stages": [s.model_dump(mode="json", exclude_unset=True) for s in recipe.stages]})
    assert load(tmp_path, text=again) == recipe


def test_settings_are_for_all_rounds_or_for_one(tmp_path: Path) -> None:
    recipe = load(tmp_path, "dpo-2.beta=0.3", "dpo.beta=0.2", "rounds.times=2", "pairs.samples=4", "last.planner=sft")
    assert [stage.name for stage in recipe.stages][1:5] == ["pairs-1", "dpo-1", "pairs-2", "dpo-2"]
    assert [keys(recipe, f"dpo-{turn}")["beta"] for turn in (1, 2)] == [0.2, 0.3], "what is said of one round counts"
    assert [keys(recipe, f"pairs-{turn}")["samples"] for turn in (1, 2)] == [4, 4]
    assert keys(recipe, "last")["planner"] == "sft"


def test_a_block_after_a_block_reads_its_last_round(tmp_path: Path) -> None:
    more = (
        "  - repeat:\n      times: 2\n      start: {kto: dpo}\n      stages:\n"
        "        - {stage: mine, name: more, model: kto, trees: pairs}\n"
        "        - {stage: preference, name: kto, start: kto, pairs: more, loss: kto}\n"
    )
    recipe = load(tmp_path, text=BLOCK + more)
    assert keys(recipe, "more-1")["model"] == "dpo-3"
    assert [keys(recipe, f"more-{turn}")["trees"] for turn in (1, 2)] == ["pairs-3", "pairs-3"]
    assert keys(recipe, "kto-2")["start"] == "kto-1"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("{dpo: sft, pairs: null}", "{dpo: sft}", "stage 'pairs' reads 'pairs' of the round before, and there is none"),
        ("{dpo: sft, pairs: null}", "{dpo: sft, pair: null}", "repeat.start names 'pair', and no stage of the block"),
        ("{dpo: sft, pairs: null}", "{dpo: null, pairs: null}", "pairs-1.model: field required"),
        (
            "{dpo: sft, pairs: null}",
            "{dpo: stf, pairs: null}",
            "'pairs-1' needs an earlier sft or preference or keep",
        ),
        ("times: 3", "times: 0", "repeat.times: input should be greater than or equal to 1"),
        ("times: 3", "time: 3", "repeat.times: field required"),
        ("name: rounds", "names: rounds", "unknown key 'repeat.names': did you mean 'name'?"),
        ("- {stage: mine, name: pairs, ", "- {repeat: {times: 2, stages: []}, ", "a repeat block holds another one"),
        (
            "planner: dpo-1",
            "planner: dpo-4",
            "'first' needs an earlier sft or preference or keep or planner stage named 'dpo-4'",
        ),
        ("  - repeat:", "  - times: 2\n    repeat:", "what belongs to a repeat block stands below repeat"),
        ("name: last", "name: dpo-2", "stage name 'dpo-2' is taken"),
        ("pairs: pairs}", "pairs: pairs, bata: 1}", "unknown key 'dpo-1.bata': did you mean 'beta'?"),
    ],
)
def test_wrong_blocks_get_one_sentence(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    assert old in BLOCK
    with pytest.raises(RecipeError) as error:
        load(tmp_path, text=BLOCK.replace(old, new))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_star_names_every_round_in_a_list(tmp_path: Path) -> None:
    more = """
  - {stage: predict, name: before, supporter: last}
  - repeat:
      times: 2
      stages: [{stage: predict, name: predict, supporter: first}]
  - {stage: evaluate, name: evaluate, predictions: [before, predict-*]}
"""
    assert keys(load(tmp_path, text=BLOCK + more), "evaluate")["predictions"] == ["before", "predict-1", "predict-2"]
    with pytest.raises(RecipeError, match=r"named 'nobody-\*'"):
        load(tmp_path, text=BLOCK + more.replace("before, predict-*", "nobody-*"))


def test_a_stage_of_a_block_has_a_name(tmp_path: Path) -> None:
    text = "format: 1\nstages: [{repeat: {times: 2, stages: [{stage: planner}]}}]\n"
    with pytest.raises(RecipeError, match=r"1\.name: field required"):
        load(tmp_path, text=text)


def test_the_shipped_recipe_has_three_rounds() -> None:
    recipe = load_recipe("starter-rounds")
    assert [stage.name for stage in recipe.stages if stage.stage == "preference"] == ["dpo-1", "dpo-2", "dpo-3"]
    assert load_recipe("starter-rounds", ["rounds.times=2"]).named("dpo-2")


STAGES: Final = """stages:
  - {stage: pretrain, name: pretrain, epochs: 1, batch_size: 8, learning_rate: 1.0e-3}
  - {stage: sft, name: sft, part: planner, past_strategies: hidden, epochs: 1, batch_size: 4, lora: {r: 2, dropout: 0}}
  - repeat:
      times: 3
      start: {dpo: sft, pairs: null}
      stages:
        - {stage: mine, name: pairs, model: dpo, trees: pairs, samples: 3}
        - {stage: preference, name: dpo, start: dpo, pairs: pairs, batch_size: 2, learning_rate: 1.0e-2,
            reference: merged, lora: {r: 2, dropout: 0}, checkpoint_seconds: 0}
"""


def test_three_rounds_that_are_killed_in_the_second_end_as_if_they_had_not_been(tmp_path: Path) -> None:
    path = write_tiny(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").split("stages:")[0] + STAGES, encoding="utf-8")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    reference = esckit(["run", path, "--out", whole / "run"], whole)
    assert reference.code == 0, reference.errors
    at = "dpo-2: 2 of "
    (moment,) = [moment for moment in reference.moments if moment.startswith(at)]
    assert esckit(["run", path, "--out", killed / "run"], killed, at=moment).code == -signal.SIGKILL
    assert not (killed / "run/dpo-2/planner").exists()
    last = esckit(["run", path, "--out", killed / "run"], killed)
    assert last.code == 0, last.errors
    assert not any(moment.startswith(("pretrain:", "dpo-1:", "pairs-2:")) for moment in last.moments)
    are_equal(whole / "run", killed / "run")
    _adapters_do_not_grow(whole / "run")
    _trees_accumulate(whole / "run")


def are_equal(one: Path, other: Path) -> None:
    paths = [sorted(path.relative_to(folder) for path in folder.rglob("*")) for folder in (one, other)]
    assert paths[0] == paths[1]
    for path in (path for path in paths[0] if path.suffix and path.parent.name != "stages"):
        said = (other / path).read_bytes().replace(str(other).encode(), str(one).encode())
        assert said == (one / path).read_bytes(), path
    for path in sorted((one / "stages").iterdir()):
        records = [json.loads((folder / "stages" / path.name).read_text()) for folder in (one, other)]
        assert {**records[1], "seconds": records[0]["seconds"]} == records[0]


def _adapters_do_not_grow(run: Path) -> None:
    """Over SFT, merged, a fresh adapter is added to its rank once; a round's own adapter is trained further."""
    ranks = []
    for name in ("sft", "dpo-1", "dpo-2", "dpo-3"):
        weights = load_file(run / name / "planner/adapter_model.safetensors")
        ranks.append({len(weight) for key, weight in weights.items() if "lora_A" in key})
    assert ranks == [{2}, {4}, {4}, {4}]
    facts = [json.loads((run / f"stages/dpo-{turn}.json").read_text())["facts"] for turn in (1, 2, 3)]
    assert [each["reference"] for each in facts] == ["merged", "frozen", "frozen"]


def _trees_accumulate(run: Path) -> None:
    """Turns and preferences of all rounds stand in the last trees; counts are each round's own."""
    total = 0
    for turn, source in enumerate(("sft", "dpo-1", "dpo-2"), 1):
        trees = read_conversations(run / f"pairs-{turn}/trees.jsonl")
        facts = json.loads((run / f"stages/pairs-{turn}.json").read_text())["facts"]
        total += facts["pairs"]
        preferred = [tree.turn(pair.rejected).source for tree in trees for pair in tree.preferences]
        assert preferred.count(source) == facts["pairs"] > 0
        assert len(preferred) == total
        assert json.loads((run / f"pairs-{turn}/pairs.json").read_text())["pairs"] == facts["pairs"]
        assert json.loads((run / f"stages/dpo-{turn}.json").read_text())["facts"]["pairs"] == facts["pairs"]
