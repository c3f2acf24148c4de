"""A recipe whose baseline and judge are asked in a user's own words, which are part of what its stages are."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.conversation import write_conversations
from esckit.corpora import load_corpus
from esckit.errors import EsckitError, RunError
from esckit.measures import read_predictions
from esckit.prompts.own import read_prompts
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from tests.recipes.tiny import shorten
from tests.server import KEY, MODEL, ChatServer
from tests.test_prompts_own import write

RECIPE: Final = """
format: 1
corpus: {{name: tree, train: {folder}/train.jsonl, valid: {folder}/valid.jsonl}}
stages:
  - {{stage: baseline, name: base, method: base, model: "remote:{model}", base_url: "{url}"}}
  - {{stage: judge, name: judge, predictions: [base], model: "remote:{model}", base_url: "{url}", turns: 2,
      reference: hidden}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    starter = load_corpus("starter")
    for name, part in {"train": starter.train[:1], "valid": starter.valid[:1]}.items():
        write_conversations(tmp_path / f"{name}.jsonl", [shorten(conversation, 6) for conversation in part])
    for place in ("mine", "moved"):
        write(tmp_path / place, baselines__base="Sei freundlich: {{strategies}}.", judge__system="Urteile milde.")
    return tmp_path


def recipe_at(folder: Path, url: str) -> str:
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder, url=url, model=MODEL), encoding="utf-8")
    return str(folder / "recipe.yaml")


def facts(folder: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"run/stages/{stage}.json").read_text(encoding="utf-8"))["facts"]
    return found


def systems(server: ChatServer) -> set[str]:
    """How the system texts of all calls begin."""
    return {body["messages"][0]["content"][:14] for body in server.bodies}


@pytest.mark.parametrize(("stage", "method", "words"), [("base", "baselines", "Sei"), ("judge", "judge", "Urteile")])
def test_other_prompts_are_another_stage_and_the_same_words_elsewhere_are_not(
    stage: str, method: str, words: str, folder: Path
) -> None:
    out = folder / "run"
    with ChatServer() as server:
        recipe = recipe_at(folder, server.url)
        run(load_recipe(recipe), out)
        assert facts(folder, stage)["prompts"] is None
        assert not any(system.startswith(words) for system in systems(server))
        own = load_recipe(recipe, [f"{stage}.prompts={folder / 'mine'}"])
        with pytest.raises(RunError, match=rf"stage '{stage}' in .* was run with other settings"):
            run(own, out)
        run(own, out, fresh=True)
        assert any(system.startswith(words) for system in systems(server))
        assert facts(folder, stage)["prompts"] == read_prompts(folder / "mine", method).label
        calls = server.calls
        moved = load_recipe(recipe, [f"{stage}.prompts={folder / 'moved'}"])
        run(moved, out)
        assert server.calls == calls
        write(folder / "moved", baselines__base="Sei nett: {{strategies}}.", judge__system="Urteile streng.")
        with pytest.raises(RunError, match=rf"stage '{stage}' in .* was run with other settings"):
            run(moved, out)


def test_what_a_stage_writes_says_whose_the_prompts_were(folder: Path) -> None:
    with ChatServer() as server:
        settings = [f"{stage}.prompts={folder / 'mine'}" for stage in ("base", "judge")]
        run(load_recipe(recipe_at(folder, server.url), settings), folder / "run")
    rows = read_predictions(folder / "run/base/predictions.jsonl")
    assert {row.extra["prompts"] for row in rows} == {read_prompts(folder / "mine", "baselines").label}
    judging = json.loads((folder / "run/judge/judging.json").read_text(encoding="utf-8"))
    assert judging["prompts"] == read_prompts(folder / "mine", "judge").label


@pytest.mark.parametrize("stage", ["base", "judge"])
def test_a_wrong_folder_is_refused_before_anything_is_written(stage: str, folder: Path) -> None:
    write(folder / "mine", judge__duel="Which is better?")
    recipe = load_recipe(recipe_at(folder, "http://localhost:1/v1"), [f"{stage}.prompts={folder / 'mine'}"])
    with pytest.raises(EsckitError, match=r"mine/judge/duel\.txt lacks the slot {{qualities}}, "):
        run(recipe, folder / "run")
    assert not (folder / "run").exists()
