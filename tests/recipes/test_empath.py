"""Empath as a recipe: derived, matched, trained as experts, cast in several ways, measured; and what is refused."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.conversation import read_conversations, write_conversations
from esckit.corpora import load_corpus
from esckit.errors import EsckitError
from esckit.measures import read_predictions
from esckit.recipes.folder import RunFolder
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import load_checked, run
from esckit.recipes.stages.sft import SftStage
from esckit.roles import read_bank
from tests.recipes.tiny import shorten
from tests.tiny import save_base

RECIPE: Final = """
format: 1
title: empath
corpus: {{name: tree, train: {folder}/train.jsonl, valid: {folder}/valid.jsonl, test: {folder}/test.jsonl}}
model: {{path: {folder}/base, max_context: 2048}}
stages:
  - {{stage: derive, name: derived, filters: {{fewest: 2}}}}
  - {{stage: match, name: roles, trees: derived, encoder: null, folds: 2, threshold: 0}}
  - {{stage: planner, name: planner, model: majority, derived: derived, folds: 2}}
  - {{stage: sft, name: experts, part: generator, past_strategies: gold, trees: derived, roles: roles,
      lora: {{r: 2, alpha: 4, layers: 1}}, experts: {{groups: {{role: 3, strategy: 2}}, embedding_size: 4}},
      epochs: 1, batch_size: 32}}
  - {{stage: supporter, name: empath, planner: planner, generator: experts, roles: roles}}
  - {{stage: predict, name: whole, supporter: empath, trees: derived, strategies: gold, wording: &words
      {{greedy: true, max_new_tokens: 4}}}}
  - {{stage: predict, name: no-matching, supporter: empath, trees: derived, casting: {{role: drawn}}, wording: *words}}
  - {{stage: predict, name: no-experience, supporter: empath, trees: derived, strategies: gold,
      casting: {{experiences: none}}, wording: *words}}
  - {{stage: evaluate, name: evaluate, predictions: [whole, no-matching, no-experience], resamples: 100}}
  - {{stage: report, name: report}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a base, a recipe: nothing of them is changed."""
    folder = tmp_path_factory.mktemp("empath")
    starter = load_corpus("starter")
    parts = {"train": starter.train[:4], "valid": starter.valid[:1], "test": starter.test[:1]}
    for name, trees in parts.items():
        write_conversations(folder / f"{name}.jsonl", (shorten(tree, 10) for tree in trees))
    save_base(folder / "base")
    (folder / "empath.yaml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(place: Path) -> RunFolder:
    return run(load_recipe(str(place / "empath.yaml")), place / "run")


def test_from_question_to_report(finished: RunFolder) -> None:
    folder, bank = finished.folder, read_bank()
    gates = finished.facts("experts")["gates"]
    assert set(gates) == {"role", "strategy"}
    card = json.loads((folder / "empath/supporter.json").read_text(encoding="utf-8"))
    assert (card["kind"], card["casting"]["role"]) == ("empath", "matched")
    rows = {name: read_predictions(folder / name / "predictions.jsonl") for name in ("whole", "no-matching")}
    test = read_conversations(folder / "derived/test.jsonl")
    assert {row.conversation_id for row in rows["whole"]} == {tree.id for tree in test}
    assert {row.extra["role"] for own in rows.values() for row in own} <= set(bank.names)
    without = read_predictions(folder / "no-experience/predictions.jsonl")
    assert [row.extra["role"] for row in without] == [row.extra["role"] for row in rows["whole"]]
    assert not any("experience" in row.extra for row in without)
    said = [turn for tree in read_conversations(folder / "whole/trees.jsonl") for turn in tree.turns]
    assert [turn.extra["role"] for turn in said if turn.source == "whole"] == [
        row.extra["role"] for row in rows["whole"]
    ]
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "no-matching" in report


def test_some_dialogues_are_trained_on_under_no_role_too(finished: RunFolder) -> None:
    experts = finished.recipe.named("experts")
    assert isinstance(experts, SftStage)
    derived = experts.dialogues(finished)
    assert all(tree.labels["role"] for tree in derived)
    both = experts.model_copy(update={"plain": 1.0}).dialogues(finished)
    assert both[: len(derived)] == derived
    plain = both[len(derived) :]
    assert {tree.id for tree in plain} == {tree.provenance["derived_from"] for tree in derived}
    assert not any("role" in tree.labels for tree in plain)
    half = experts.model_copy(update={"plain": 0.5}).dialogues(finished)[len(derived) :]
    assert len(half) == round(len(plain) / 2)


def made(folder: Path) -> dict[str, bytes]:
    """What a run's figures rest on."""
    names = ("trees.jsonl", "predictions.jsonl", "supporter.json", "matcher.json", "*.safetensors", "results.json")
    files = sorted(path for name in names for path in folder.rglob(name))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("stage", [pytest.param("experts", marks=pytest.mark.slow), "no-matching"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    stage: str, finished: RunFolder, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, work = load_recipe(str(place / "empath.yaml")), None
    kind = type(recipe.named(stage))
    work = kind.work

    def stopped(self: Any, folder: RunFolder) -> dict[str, Any]:
        if self.name == stage:
            raise KeyboardInterrupt
        return work(self, folder)

    monkeypatch.setattr(kind, "work", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "run")
    monkeypatch.undo()
    run(recipe, tmp_path / "run")
    first, second = made(finished.folder), made(tmp_path / "run")
    assert len(first) > 12
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["experts.part=planner"], "roles and experts are for the generator"),
        (["experts.experts={groups: {role: 10}}"], "10 experts for the 9 roles of its bank"),
        (["experts.experts={groups: {strategy: 9}}"], "9 experts for the 8 strategies, and some would be of no use"),
        (["experts.experts={groups: {mood: 2}}"], "no dialogue has the label 'mood' that stage 'experts' has experts"),
        (["experts.experts={groups: {role+mood: 2}}"], "no dialogue has the label 'mood'"),
        (["experts.experts={groups: {role: 2}, embeddings: described, encoder: no/where}"], "no/where"),
        (["empath.roles=null"], "was trained with the roles of 'roles': set roles to it"),
        (["empath.roles=null", "empath.casting={role: none}"], "casting is of a supporter with roles"),
        (["empath.casting={role: king}"], "has no role 'king': take one of"),
        (["whole.casting={role: king}"], "has no role 'king': take one of"),
        (["empath.casting={telling: {strategies: [Shout]}}"], "the casting of stage 'empath' tells under 'Shout'"),
        (["whole.casting={telling: {strategies: [Shout]}}"], "the casting of stage 'whole' tells under 'Shout'"),
        (["whole.casting={experiences: some}"], "experiences"),
        (["whole.trees=roles"], "stage 'whole' needs an earlier derive stage named 'roles'"),
    ],
)
def test_bad_keys_get_one_sentence_before_anything_is_written(
    settings: list[str], sentence: str, place: Path, tmp_path: Path
) -> None:
    with pytest.raises(EsckitError) as told:
        run(load_recipe(str(place / "empath.yaml"), settings), tmp_path / "run")
    assert sentence in str(told.value)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()


MORE: Final = """
format: 1
corpus: {{name: tree, train: {folder}/train.jsonl, valid: {folder}/valid.jsonl, test: {folder}/test.jsonl}}
model: {{path: {folder}/base, max_context: 2048}}
stages:
  - {{stage: match, name: roles, encoder: null, folds: 2}}
  - {{stage: planner, name: planner, model: majority, folds: 2}}
  - {{stage: replies, name: replies}}
  - {{stage: sft, name: plan, part: planner, past_strategies: gold}}
  - {{stage: sft, name: plain, part: generator, past_strategies: gold}}
  - {{stage: sft, name: experts, part: generator, past_strategies: gold, experts: {{groups: {{strategy: 2}}}},
      lora: {{r: 2, alpha: 4, layers: 1}}, epochs: 1, batch_size: 32}}
  - {{stage: mine, name: pairs, model: experts, max_new_tokens: 4}}
  - {{stage: preference, name: dpo, start: experts, pairs: pairs, batch_size: 32}}
  - {{stage: planner, name: late, model: majority, folds: 2}}
  - {{stage: sft, name: kept, part: generator, past_strategies: gold}}
  - {{stage: supporter, name: made, planner: planner, generator: plain}}
  - {{stage: predict, name: said, supporter: made}}
"""


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["made.planner=plan", "made.generator=experts"], "puts a planner's adapter beside experts"),
        (["made.generator=replies", "made.roles=roles"], "has roles, in whose voice no stored reply is"),
        (["made.generator=null", "made.roles=roles"], "roles are for a planner and a generator"),
        (["said.casting={role: none}"], "stage 'said' has a casting, and 'made' has no roles: leave it out"),
        (["said.trees=pairs"], "stage 'said' needs an earlier derive stage named 'pairs'"),
        (["late.derived=pairs"], "stage 'late' needs an earlier derive stage named 'pairs'"),
        (["dpo.reference=merged"], "stage 'dpo' cannot merge experts"),
        (["kept.plain=0.5"], "stage 'kept' has plain dialogues beside derived ones: set trees to a derive stage"),
        (["kept.trees=pairs"], "stage 'kept' trains on what a search kept, and 'pairs' is a mine stage"),
    ],
)
def test_what_does_not_fit_together_is_one_sentence(
    settings: list[str], sentence: str, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "more.yaml").write_text(MORE.format(folder=place), encoding="utf-8")
    load_checked(load_recipe(str(tmp_path / "more.yaml")))
    with pytest.raises(EsckitError) as told:
        load_checked(load_recipe(str(tmp_path / "more.yaml"), settings))
    assert sentence in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_preferences_align_experts(place: Path, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text(
        MORE.format(folder=place).partition("  - {stage: planner, name: late")[0], "utf-8"
    )
    done = run(load_recipe(str(tmp_path / "more.yaml")), tmp_path / "run")
    assert done.facts("dpo")["reference"] == "frozen"
    first, second = (done.folder / name / "generator/adapter_model.safetensors" for name in ("experts", "dpo"))
    assert first.read_bytes() != second.read_bytes()
    assert (done.folder / "dpo/generator/adapter_config.json").exists()


@pytest.mark.slow
def test_described_members_are_read_by_an_encoder(place: Path, tmp_path: Path) -> None:
    described = "experts.experts={groups: {role: 3, strategy: 2}, embeddings: described}"
    kept = ["derived", "roles", "experts"]
    recipe = load_recipe(str(place / "empath.yaml"), [described])
    recipe = recipe.model_copy(update={"stages": [stage for stage in recipe.stages if stage.name in kept]})
    done = run(recipe, tmp_path / "run")
    config = json.loads((done.folder / "experts/generator/adapter_config.json").read_text(encoding="utf-8"))
    assert config["embeddings"] == "described"
    assert config["embedding_size"] == 384
    assert config["bank"] == read_bank().digest


def test_stages_without_the_new_keys_count_as_before() -> None:
    plain = SftStage(stage="sft", name="sft", part="generator", past_strategies="gold")
    assert not {"roles", "experts"} & plain.counting_keys.keys()
    recipe = load_recipe("starter")
    for stage in recipe.stages:
        new = {"roles", "experts", "casting", "derived"} | (
            {"trees"} if stage.stage in ("predict", "baseline") else set()
        )
        assert not new & stage.counting_keys.keys(), stage.name
