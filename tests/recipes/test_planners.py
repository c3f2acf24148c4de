"""Planners and supporters without a language model, through a recipe and through the command."""

import json
from pathlib import Path
from typing import Final

import pytest

from esckit.cli import main
from esckit.conversation import read_conversations, write_conversations
from esckit.corpora import load_corpus
from esckit.errors import CorpusError, EsckitError, ModelError, RecipeError, RunError
from esckit.measures import read_predictions
from esckit.planning.calibration import Calibration
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from esckit.supporters import Supporter
from tests.recipes.tiny import shorten

RECIPE: Final = """
format: 1
corpus: {{name: tree, train: {folder}/train.jsonl, valid: {folder}/valid.jsonl, test: {folder}/test.jsonl}}
stages:
  - {{stage: planner, name: encoder-planner, folds: 2, seeds: 1, epochs: 1, width: 8, head: 8}}
  - {{stage: planner, name: linear-planner, model: linear, folds: 2, seeds: 1, epochs: 1, with_valid: true}}
  - {{stage: planner, name: train-planner, model: linear, folds: 2, seeds: 1, epochs: 1}}
  - {{stage: planner, name: majority-planner, model: majority, folds: 2}}
  - {{stage: replies, name: replies}}
  - {{stage: supporter, name: encoder, planner: encoder-planner}}
  - {{stage: supporter, name: plain, planner: encoder-planner, calibrated: false}}
  - {{stage: supporter, name: linear, planner: linear-planner, past_strategies: hidden}}
  - {{stage: supporter, name: train-only, planner: train-planner, past_strategies: hidden}}
  - {{stage: supporter, name: majority, planner: majority-planner}}
  - {{stage: supporter, name: embedded, planner: encoder-planner, generator: replies}}
  - {{stage: calibrate, name: fitted, supporter: train-only}}
  - {{stage: predict, name: with-encoder, supporter: encoder}}
  - {{stage: predict, name: with-plain, supporter: plain}}
  - {{stage: predict, name: with-linear, supporter: linear}}
  - {{stage: predict, name: with-fitted, supporter: train-only, calibration: fitted}}
  - {{stage: predict, name: with-majority, supporter: majority}}
  - {{stage: predict, name: with-embedded, supporter: embedded, past_strategies: predicted}}
  - {{stage: evaluate, name: evaluate, predictions: [with-encoder, with-plain, with-majority], resamples: 100}}
  - {{stage: report, name: report}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planners")
    starter = load_corpus("starter")
    for name, part in {"train": starter.train[:8], "valid": starter.valid[:2], "test": starter.test[:2]}.items():
        write_conversations(folder / f"{name}.jsonl", [shorten(conversation, 14) for conversation in part])
    (folder / "planners.yaml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
    return folder / "planners.yaml"


@pytest.fixture(scope="module")
def finished(recipe: Path) -> Path:
    return run(load_recipe(str(recipe)), recipe.parent / "run").folder


def facts(finished: Path, stage: str) -> dict[str, float]:
    found: dict[str, float] = json.loads((finished / f"stages/{stage}.json").read_text(encoding="utf-8"))["facts"]
    return found


def test_a_planner_alone_predicts_strategies_and_no_text(finished: Path) -> None:
    rows = read_predictions(finished / "with-encoder/predictions.jsonl")
    assert rows
    assert {row.predicted_text for row in rows} == {None}
    assert {row.extra["past_strategies"] for row in rows} == {"gold"}
    assert all(row.predicted_strategy for row in rows)
    assert len({row.predicted_strategy for row in read_predictions(finished / "with-majority/predictions.jsonl")}) == 1


def test_calibrated_and_plain_planners_differ_in_their_offsets(finished: Path) -> None:
    calibrated, plain = (read_predictions(finished / f"with-{name}/predictions.jsonl") for name in ("encoder", "plain"))
    shifts = {
        tuple(round(a - b, 3) for a, b in zip(*(r.strategy_probabilities.values() for r in rows), strict=True))  # type: ignore[union-attr]
        for rows in zip(calibrated, plain, strict=True)
    }
    assert shifts != {(0.0,) * 8}


def test_a_calibration_is_fitted_on_valid_and_applied_to_test(finished: Path, recipe: Path) -> None:
    valid = read_conversations(recipe.parent / "valid.jsonl")
    assert facts(finished, "fitted")["turns"] == sum(1 for c in valid for turn in c.trunk if turn.strategy)
    fitted = Calibration.from_json(json.loads((finished / "fitted/calibration.json").read_text(encoding="utf-8")))
    supporter = Supporter.load(finished / "train-only")
    test = read_conversations(recipe.parent / "test.jsonl")[0]
    turn = next(turn for turn in test.trunk if turn.strategy)
    wanted = fitted.apply(supporter.score(test, [turn], {}))[0]
    row = read_predictions(finished / "with-fitted/predictions.jsonl")[0]
    assert row.strategy_probabilities is not None
    assert [*row.strategy_probabilities.values()] == pytest.approx([2.718281828**value for value in wanted], abs=1e-5)


def test_the_embedded_supporter_says_what_people_said_under_strategies_that_it_has(
    finished: Path, recipe: Path
) -> None:
    rows = read_predictions(finished / "with-embedded/predictions.jsonl")
    train = read_conversations(recipe.parent / "train.jsonl")
    said = {(turn.strategy, (turn.text or "").strip()) for c in train for turn in c.trunk}
    assert all((row.predicted_strategy, row.predicted_text) in said for row in rows)
    assert "Self-disclosure" not in {row.predicted_strategy for row in rows}
    counted = (finished / "events.jsonl").read_text(encoding="utf-8")
    assert "replies left out: self-disclosure of lived experience" in counted


def test_the_validation_part_is_trained_on_only_where_asked_and_there_is_a_test_part(
    finished: Path, recipe: Path, tmp_path: Path
) -> None:
    assert facts(finished, "encoder-planner")["dialogues"] == 8
    assert facts(finished, "linear-planner")["dialogues"] == 10
    text = recipe.read_text(encoding="utf-8").replace(f", test: {recipe.parent}/test.jsonl", "")
    lines = [line for line in text.splitlines() if "stage:" not in line or "linear-planner, model" in line]
    (tmp_path / "one.yaml").write_text("\n".join(lines), encoding="utf-8")
    assert facts(run(load_recipe(str(tmp_path / "one.yaml")), tmp_path / "run").folder, "linear-planner") == {
        **facts(tmp_path / "run", "linear-planner"),
        "dialogues": 8,
    }


def test_nothing_is_fitted_to_what_is_evaluated(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="predicts valid, which calibrate stage 'fitted' is fitted to"):
        run(load_recipe(str(recipe), ["with-fitted.split=valid"]), tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["embedded.generator=encoder-planner"], "needs an earlier sft or preference or keep or replies stage"),
        (["encoder.planner=replies"], "needs an earlier sft or preference or keep or planner stage"),
        (["encoder-planner.model=oracle"], "encoder-planner.model: input should be"),
        (["encoder-planner.folds=1"], "encoder-planner.folds: input should be greater than or equal to 2"),
        (["with-fitted.calibration=replies"], "needs an earlier calibrate stage"),
        (["encoder.coupled=encoder-planner"], "needs"),
    ],
)
def test_wrong_parts_get_one_sentence(settings: list[str], sentence: str, recipe: Path) -> None:
    with pytest.raises(RecipeError, match=sentence):
        load_recipe(str(recipe), settings)


def test_a_loss_that_overflows_stops_and_leaves_no_planner(recipe: Path, tmp_path: Path) -> None:
    told = "encoder-planner stopped, a network has no finite .+: lower its learning_rate"
    with pytest.raises(EsckitError, match=told):
        run(load_recipe(str(recipe), ["encoder-planner.learning_rate=1e30"]), tmp_path / "run")
    assert not (tmp_path / "run/encoder-planner/planner.json").exists()


def test_an_encoder_that_cannot_be_had_is_said_before_anything_is_written(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esckit.language_models.backbone.unreachable", lambda _: "the Hub is away")
    for stage in ("encoder-planner", "replies"):
        with pytest.raises(ModelError, match="owner/name is no folder here, and the Hub is away: give a folder"):
            run(load_recipe(str(recipe), [f"{stage}.encoder=owner/name"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_few_dialogues_are_said(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="fewer than the planner's 9 folds"):
        run(load_recipe(str(recipe), ["encoder-planner.folds=9"]), tmp_path / "run")


def test_the_command_trains_a_supporter_that_answers(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, predictions = tmp_path / "supporter", tmp_path / "p.jsonl"

    def call(*words: object) -> None:
        monkeypatch.setattr("sys.argv", ["esckit", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 0

    call("train", "planner", recipe.parent / "train.jsonl", out, "--model", "linear", "--replies")
    assert "dialogues 8" in capsys.readouterr().out
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    call("predict", out, recipe.parent / "test.jsonl", predictions)
    assert all(row.predicted_text for row in read_predictions(predictions))
