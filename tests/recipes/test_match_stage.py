"""Stage ``match``: what it makes, what it depends on, and what it refuses before anything is written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from esckit.conversation import write_conversations
from esckit.corpora import load_corpus
from esckit.errors import EsckitError, ModelError, RoleError, RunError
from esckit.planning.role_matcher import RoleMatcher
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from esckit.roles import RoleBank, save_bank
from tests.recipes.tiny import shorten
from tests.roles.little import little_bank

RECIPE: Final = """
format: 1
corpus: {{name: tree, train: {folder}/train.jsonl, test: {folder}/test.jsonl}}
stages:
  - {{stage: match, name: match, encoder: null, folds: 2, bank: {folder}/bank}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    starter = load_corpus("starter")
    trees = [*starter.train, *starter.valid, *starter.test]
    known = [
        tree
        for tree in trees
        if tree.labels["problem_type"] in ("job crisis", "breakup with partner", "sleep problems")
    ]
    other = next(tree for tree in trees if tree.labels["problem_type"] == "procrastination")
    write_conversations(tmp_path / "train.jsonl", map(shorten, [*known[:12], other]))
    write_conversations(tmp_path / "test.jsonl", map(shorten, known[12:14]))
    save_bank(little_bank(), tmp_path / "bank")
    (tmp_path / "match.yaml").write_text(RECIPE.format(folder=tmp_path), encoding="utf-8")
    return tmp_path / "match.yaml"


def test_it_makes_a_matcher_with_its_bank_and_says_how_well_it_does(recipe: Path) -> None:
    folder = run(load_recipe(str(recipe)), recipe.parent / "run").folder
    record = json.loads((folder / "stages/match.json").read_text(encoding="utf-8"))
    assert record["facts"]["questions"] == 12
    assert record["facts"]["gold"] == {"topic": 12}
    assert record["facts"]["f1_of_topic_en"] == 1
    assert 0 <= record["facts"]["f1_unseen_en"] < 1
    assert "questions left out: no gold role" in (folder / "events.jsonl").read_text(encoding="utf-8")
    matcher = RoleMatcher.load(folder / "match", bank=little_bank())
    assert set(matcher.match("I lost my job", [], "en").probabilities) == {"captain", "gardener", "miller"}


def test_a_bank_that_changes_or_moves(recipe: Path) -> None:
    place = recipe.parent / "run"
    run(load_recipe(str(recipe)), place)
    stamp = (place / "match/matcher.json").stat().st_mtime_ns
    (recipe.parent / "bank").rename(recipe.parent / "moved")
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("/bank}", "/moved}"), encoding="utf-8")
    run(load_recipe(str(recipe)), place)
    assert (place / "match/matcher.json").stat().st_mtime_ns == stamp, "the same roles elsewhere are the same"
    save_bank(
        RoleBank(tuple(replace(role, topics=(*role.topics, "x" + role.name)) for role in little_bank().roles)),
        recipe.parent / "moved",
    )
    with pytest.raises(RunError, match=r"stage 'match' in .* was run with other settings"):
        run(load_recipe(str(recipe)), place)


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (("/bank}", "/nowhere}"), RoleError, "does not exist"),
        (("encoder: null", "encoder: no-such/encoder"), ModelError, "no-such/encoder"),
        (("folds: 2", "folds: 1"), EsckitError, "folds"),
        (("folds: 2", "threshold: 2"), EsckitError, "threshold"),
    ],
)
def test_bad_keys_are_refused_before_anything_is_written(
    recipe: Path, change: tuple[str, str], error: type[EsckitError], told: str
) -> None:
    recipe.write_text(recipe.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    with pytest.raises(error, match=told):
        run(load_recipe(str(recipe)), recipe.parent / "run")
    assert not (recipe.parent / "run").exists()
