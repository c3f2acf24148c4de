"""A model as it is in a recipe: a supporter stage that names it, predicted with; what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from esckit.errors import EsckitError, RecipeError
from esckit.measures import read_predictions
from esckit.planning.encoder_planner import EncoderPlanner
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from esckit.recipes.stages.predict import PredictStage
from esckit.supporters import Supporter
from tests.recipes.tiny import write_tiny
from tests.server import KEY, MODEL, ChatServer
from tests.tiny import save_base, tiny_encoder

HEAD = """
format: 1
corpus: {{name: tree, train: {folder}/train.jsonl, valid: {folder}/valid.jsonl, test: {folder}/test.jsonl}}
stages:
  - {{stage: planner, name: encoder, encoder: {folder}/encoder, folds: 2, seeds: 1, epochs: 1, trees: 2}}
"""


def write(folder: Path, *stages: dict[str, Any]) -> str:
    write_tiny(folder)
    path = folder / "own.yaml"
    lines = [f"  - {json.dumps(stage)}\n" for stage in stages]
    path.write_text(HEAD.format(folder=folder) + "".join(lines), encoding="utf-8")
    return str(path)


def supporter(**keys: Any) -> dict[str, Any]:
    return {"stage": "supporter", "name": "own", **keys}


def predicting(**keys: Any) -> dict[str, Any]:
    return {"stage": "predict", "name": "predict-own", "supporter": "own", "wording": {"max_new_tokens": 4}, **keys}


def test_a_model_as_it_is_is_predicted_with_and_only_once(tmp_path: Path) -> None:
    tiny_encoder(tmp_path / "encoder")
    base = save_base(tmp_path / "base")
    alone = {**supporter(model=str(base), strategy_form="{strategy}: {text}"), "name": "alone"}
    planned = supporter(model=str(base), planner="encoder", system="Be kind. Use {strategy}.")
    also = {**predicting(), "name": "predict-alone", "supporter": "alone"}
    recipe = load_recipe(write(tmp_path, planned, alone, predicting(), also))
    finished = run(recipe, tmp_path / "run")
    for name, past in (("predict-own", "hidden"), ("predict-alone", "gold")):
        rows = read_predictions(tmp_path / "run" / name / "predictions.jsonl")
        assert rows
        assert all(row.strategy_probabilities and row.extra["past_strategies"] == past for row in rows)
    assert all(finished.is_done(stage) for stage in recipe.stages)
    save_base(base, seed=4)
    with pytest.raises(EsckitError, match=r"'own' .* was run with other settings, inputs, models"):
        run(recipe, tmp_path / "run")


def test_keys_of_a_planner_and_of_the_history_are_heeded(tmp_path: Path) -> None:
    tiny_encoder(tmp_path / "encoder")
    own = supporter(
        model=str(save_base(tmp_path / "base")), planner="encoder", calibrated=False, past_strategies="gold"
    )
    run(load_recipe(write(tmp_path, own, predicting())), tmp_path / "run")
    rows = read_predictions(tmp_path / "run/predict-own/predictions.jsonl")
    assert {row.extra["past_strategies"] for row in rows} == {"gold"}
    loaded, plain = Supporter.load(tmp_path / "run/own"), EncoderPlanner.load(tmp_path / "run/encoder")
    assert loaded.planner.identity == plain.uncalibrated.identity != plain.identity


def test_a_model_behind_a_url_is_asked_by_the_run_s_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    tiny_encoder(tmp_path / "encoder")
    with ChatServer() as server:
        own = supporter(model=f"remote:{MODEL}", base_url=server.url, planner="encoder")
        run(load_recipe(write(tmp_path, own, predicting())), tmp_path / "run")
        calls = server.calls
        assert calls == len(read_predictions(tmp_path / "run/predict-own/predictions.jsonl"))
        changed = load_recipe(write(tmp_path, own, predicting()), ["predict-own.wording.max_new_tokens=4"])
        assert isinstance(changed.named("predict-own"), PredictStage)
        run(changed, tmp_path / "run")
        assert server.calls == calls
    assert (tmp_path / "run/ledger.sqlite").exists()


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([supporter(model="smollm2", system="Use {strategy}.")], "nobody chooses it before: give a planner"),
        ([supporter(model="smollm2", system="words/system.txt")], "system is the text itself in a recipe, not a file"),
        ([supporter(planner="encoder", system="Hi")], "system is of a model as it is: set model as well"),
        ([supporter(model="smollm2", generator="encoder")], "takes a planner and no other part"),
        ([supporter(model="smollm2", base_url="http://x/v1")], "base_url is for a model behind a URL"),
        (
            [supporter(model="remote:m"), predicting(past_strategies="predicted")],
            "shows past strategies (predicted), and remote:m names none before it words one",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(stages: list[dict[str, Any]], words: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(write(tmp_path, *stages))
    assert words in str(error.value)


def test_a_model_that_is_none_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(EsckitError, match="nobody is no chat model"):
        run(load_recipe(write(tmp_path, supporter(model=str(tmp_path / "nobody")))), tmp_path / "run")
    assert not (tmp_path / "run").exists()
