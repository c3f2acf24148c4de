"""Stage search, and what trains on its trees: its keys, its identity, kept turns, pairs of all parts, their number."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.conversation import read_conversations, write_conversations
from esckit.errors import CorpusError, EsckitError, RecipeError
from esckit.mining.export import export_judged, export_replies
from esckit.mining.pairs import pairs_of, render_pairs
from esckit.mining.tree_search.open_roles import check_roles
from esckit.mining.tree_search.options import SearchOptions
from esckit.recipes.check import check
from esckit.recipes.folder import RunFolder
from esckit.recipes.recipe import Recipe
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from esckit.recipes.stages.preference import PreferenceStage
from esckit.recipes.stages.sft import SftStage
from esckit.recipes.trees import PAIRS, TREES, mined_trees
from esckit.rendering import Part, past_strategies
from esckit.report.run_records import StageConfig
from esckit.strategy import ESCONV
from esckit.training.preferences import make_item
from tests.recipes.searched import KEPT, StandIn, searched_tree
from tests.tiny import save_base, starter_dialogues, tiny_encoder, tiny_renderer

PARTS: Final[tuple[Part, ...]] = ("coupled", "planner", "generator")
SFT: Final = "{{stage: sft, name: {part}-sft, part: {part}, past_strategies: {past}, trees: search, epochs: 1}}"
DPO: Final = "{{stage: preference, name: {part}-dpo, start: {part}-sft, pairs: search}}"
SEARCH: Final = "{stage: search, name: search, decoupled: true, dialogues: 2}"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(monkeypatch)


def write(folder: Path, *stages: str) -> str:
    """A recipe of these stages, over a tiny corpus and base; return its path."""
    dialogues = starter_dialogues(5, 6)
    write_conversations(folder / "train.jsonl", dialogues[:4])
    write_conversations(folder / "valid.jsonl", dialogues[4:])
    if not (folder / "base").exists():
        save_base(folder / "base")
    corpus = f"{{name: tree, train: {folder}/train.jsonl, valid: {folder}/valid.jsonl}}"
    lines = "".join(f"  - {stage}\n" for stage in stages)
    text = f"format: 1\ncorpus: {corpus}\nmodel: {{path: {folder}/base}}\nstages:\n{lines}"
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return str(folder / "recipe.yaml")


def part_stages(part: Part) -> list[str]:
    return [SFT.format(part=part, past="gold" if part == "coupled" else "hidden"), DPO.format(part=part)]


def stage_of(recipe: Recipe, name: str) -> Any:
    return recipe.named(name)


def facts(out: Path, stage: str) -> dict[str, Any]:
    return dict(json.loads((out / "stages" / f"{stage}.json").read_text(encoding="utf-8"))["facts"])


# ------------------------------------------------------------------------------------------------------------ the stage


def test_a_search_is_run_and_its_trees_train_every_part(stand_in: StandIn, tmp_path: Path) -> None:
    """Decoupled CSO: planner and generator learn from the tree that trains the coupled part."""
    recipe = load_recipe(write(tmp_path, SEARCH, *(stage for part in PARTS for stage in part_stages(part))))
    out = tmp_path / "run"
    run(recipe, out)
    (call,) = stand_in.calls
    assert call["options"].decoupled
    assert call["conversations"] == stand_in.checked[0]["seeds"]
    assert (call["planner"], call["title"], call["ledger"].parent) == (None, "search", out)
    trees = read_conversations(out / "search" / TREES)
    assert [tree.id for tree in trees] == call["conversations"]
    assert len(trees) == 2
    assert json.loads((out / "search" / PAIRS).read_text(encoding="utf-8"))["pairs"] == 2 * 7
    assert facts(out, "search") == {"seeds": 2, "unanswered": {"reward": 2, "seeker": 0}}
    for part, pairs in {"coupled": 4, "planner": 3, "generator": 1}.items():
        assert facts(out, f"{part}-dpo")["pairs"] == 2 * pairs
        examples = [e for tree in trees for e in stage_of(recipe, f"{part}-sft").targets(tree, tiny_renderer())]
        assert facts(out, f"{part}-sft")["scored_tokens"] == sum(len(example.scored) for example in examples)
        assert (out / f"{part}-dpo" / part / "adapter_model.safetensors").exists()
    rows = [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["event"], row["count"]) for row in rows if row["stage"] == "search"] == [("reward did not answer", 2)]


def test_a_stage_searches_by_a_planner_of_the_recipe(stand_in: StandIn, tmp_path: Path) -> None:
    tiny_encoder(tmp_path / "encoder")
    planner = f"{{stage: planner, name: plan, encoder: {tmp_path}/encoder, folds: 2, seeds: 1, epochs: 1, trees: 2}}"
    run(load_recipe(write(tmp_path, planner, "{stage: search, name: search, planner: plan}")), tmp_path / "run")
    assert stand_in.calls[0]["planner"] == tmp_path / "run/plan"
    assert (tmp_path / "run/plan/planner.json").exists(), "which is a planner's folder"
    assert stand_in.checked[0]["planned"], "no other planner is looked for"
    assert stand_in.checked[0]["taxonomy"] == "esconv"


def test_a_planner_that_is_not_made_yet_is_not_looked_for() -> None:
    options = SearchOptions.model_validate({"strategy": {"planner": "/nowhere"}})
    check_roles(options, ESCONV, planned=True)
    with pytest.raises(EsckitError, match="the strategy role: "):
        check_roles(options, ESCONV)


def identity(path: str, *settings: str) -> str:
    recipe = load_recipe(path, settings)
    return RunFolder(recipe, Path(path).parent / "run", recipe.corpus.load()).identity(recipe.named("search"))


def test_a_search_is_another_one_by_what_changes_its_result_alone(stand_in: StandIn, tmp_path: Path) -> None:
    path = write(tmp_path, SEARCH)
    same = ["search.concurrency=3", "search.mode=ours"]
    other = ["budget_calls=50", "dialogues=3", "theta=0.4", "mode=paper", "rollout=2"]
    assert {identity(path, setting) for setting in same} == {identity(path)}
    assert len({identity(path), *(identity(path, f"search.{setting}") for setting in other)}) == 1 + len(other)
    before, stand_in.identity = identity(path), "other roles"
    assert identity(path) != before


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        (
            [
                "{stage: planner, name: plan}",
                "{stage: search, name: search, planner: plan, strategy: {model: smollm2}}",
            ],
            "planner names a stage that chooses strategies: leave out strategy, or leave out planner",
        ),
        (["{stage: search, name: search, planner: plan}"], "'search' needs an earlier planner stage named 'plan'"),
        (
            ["{stage: search, name: search, check: {modle: a}}"],
            "unknown key 'search.check.modle': did you mean",
        ),
        (
            ["{stage: search, name: search}", SFT.format(part="planner", past="hidden"), DPO.format(part="planner")],
            "'planner-dpo' aligns a part on pairs that were mined for another part",
        ),
        (
            [
                "{stage: sft, name: first, part: coupled, past_strategies: gold}",
                "{stage: mine, name: search, model: first}",
                SFT.format(part="coupled", past="gold"),
            ],
            "'coupled-sft' trains on what a search kept, and 'search' is a mine stage: name a search stage",
        ),
        (
            [SEARCH, SFT.format(part="coupled", past="gold"), "{stage: mine, name: m, model: coupled-sft, folds: 2}"],
            "'coupled-sft' is trained on a search's trees: leave out folds",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(stages: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(write(tmp_path, *stages))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mine_stage_may_grow_a_search_s_trees(stand_in: StandIn, tmp_path: Path) -> None:
    mine = "{stage: mine, name: more, model: coupled-sft, trees: search, max_new_tokens: 4, temperature: 2.0}"
    recipe = load_recipe(write(tmp_path, SEARCH, SFT.format(part="coupled", past="gold"), mine))
    folder = run(recipe, tmp_path / "run")
    own, both = (pairs_of(mined_trees(folder, "more", whose), "coupled") for whose in ("mined", "accumulated"))
    assert len(both) == len(own) + 2 * 4
    assert {pair.preference.judge for pair in own} == {"rule:unequal"}


# --------------------------------------------------------------------------------------------------- what trains on it


def test_sft_trains_on_kept_turns_each_behind_its_own_path() -> None:
    tree = searched_tree()
    sft = SftStage(stage="sft", name="sft", part="coupled", past_strategies="gold", trees="search")
    examples = sft.targets(tree, tiny_renderer())
    assert [example.turn_id for example in examples] == list(KEPT)
    shown = past_strategies(tree, "gold")
    on_path = tiny_renderer().context(tree.path("weeks"), shown, 0).text
    assert "How long did you study?" in on_path
    assert "[Question]" in on_path
    alone = [tiny_renderer().example(tree, tree.turn(key), "coupled", shown) for key in KEPT]
    assert examples == alone
    plain = sft.model_copy(update={"trees": None}).targets(tree, tiny_renderer())
    assert [example.turn_id for example in plain] == ["1", "3"], "without the key, the trunk"
    (talk,) = starter_dialogues(1, 6)
    assert sft.targets(talk, tiny_renderer()) == tiny_renderer().examples(talk, "coupled", sft.shown(talk)), "as valid"


def test_export_writes_the_same_turns_for_other_trainers() -> None:
    tree = searched_tree()
    rows = list(export_replies([tree], "coupled", "gold"))
    assert [row.reply.partition("] ")[2] for row in rows] == [tree.turn(key).text for key in KEPT]
    assert rows[-1].prompt[-1]["content"] == "For weeks."
    assert rows[-1].prompt[-2]["content"] == "[Question] How long did you study?"


def test_a_search_that_kept_nothing_is_told(stand_in: StandIn, tmp_path: Path) -> None:
    out = tmp_path / "run"
    recipe = load_recipe(write(tmp_path, SEARCH, SFT.format(part="coupled", past="gold")))
    run(recipe.model_copy(update={"stages": recipe.stages[:1]}), out)
    bare = [
        replace(tree, turns=[replace(turn, scores={}) for turn in tree.turns])
        for tree in read_conversations(out / "search" / TREES)
    ]
    write_conversations(out / "search" / TREES, bare)
    with pytest.raises(CorpusError, match="'search' kept no turn, so raise its iterations or lower theta"):
        run(recipe, out)


def test_kto_counts_each_kept_and_each_rejected_turn_once() -> None:
    """Two kept turns are preferred to the same one, which counts once."""
    tree = searched_tree()
    pairs = pairs_of([tree], "coupled")
    rendered = render_pairs(pairs, tiny_renderer(), "coupled", lambda tree: past_strategies(tree, "gold"))
    item = make_item(rendered[0], mismatched=True)
    assert (len(item.chosen), len(item.desirable), len(item.undesirable)) == (4, len(KEPT), 3)
    exported = [row.wanted for row in export_judged(pairs, "coupled", "gold")]
    assert (exported.count(True), exported.count(False)) == (len(KEPT), 3)


def test_a_curve_of_dialogues_is_nested_and_drawn_by_the_recipe_s_seed(stand_in: StandIn, tmp_path: Path) -> None:
    many = SEARCH.replace("dialogues: 2", "dialogues: 4")
    path = write(tmp_path, many, *part_stages("coupled"))
    folder = run(load_recipe(path, ["coupled-dpo.dialogues=1"]), tmp_path / "run")
    assert facts(tmp_path / "run", "coupled-dpo")["pairs"] == 4

    def drawn(number: int, seed: int = 0) -> set[str]:
        stage = stage_of(load_recipe(path, [f"coupled-dpo.dialogues={number}"]), "coupled-dpo")
        assert isinstance(stage, PreferenceStage)
        mined = pairs_of(mined_trees(folder, "search"), "coupled")
        return {pair.conversation.id for pair in stage.drawn(mined, seed)}

    sizes = [drawn(number) for number in (1, 2, 3, 4)]
    assert [len(each) for each in sizes] == [1, 2, 3, 4]
    assert all(less < more for less, more in pairwise(sizes))
    assert len({min(drawn(1, seed)) for seed in range(12)}) > 1


def test_without_weights_a_search_s_training_can_be_estimated(stand_in: StandIn, tmp_path: Path) -> None:
    lines = check(load_recipe(write(tmp_path, SEARCH, *part_stages("coupled"))))
    assert any(line.split()[:1] == ["coupled-dpo"] for line in lines)


def test_the_report_reads_a_recipe_with_a_search(tmp_path: Path) -> None:
    """In it a supporter is a role and no stage's name."""
    recipe = load_recipe(write(tmp_path, SEARCH, *part_stages("coupled")))
    read = {stage.name: StageConfig.model_validate(stage.model_dump(mode="json")) for stage in recipe.stages}
    assert (read["search"].supporter, read["coupled-sft"].trees) == (None, "search")
