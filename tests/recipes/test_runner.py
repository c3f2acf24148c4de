"""A whole run on a tiny corpus: what it leaves behind, and that the same command continues or repeats it exactly."""

import json
import shutil
from pathlib import Path
from typing import Final

import pytest
from safetensors.torch import load_file, save_file

from esckit.conversation import read_conversations
from esckit.corpora import load_corpus
from esckit.errors import CorpusError, EsckitError, ModelError, RunError
from esckit.measures import predictions_of, read_predictions
from esckit.recipes.folder import RunFolder, stage_seed
from esckit.recipes.recipe import Recipe
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import print_results, run
from esckit.recipes.stages import KINDS
from esckit.recipes.stages.pretrain import PretrainStage
from esckit.recipes.stages.supporter import SupporterStage
from esckit.recipes.trees import TREES
from esckit.rendering import supporter_turns
from esckit.supporters import Supporter
from tests.recipes.tiny import write_tiny


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "out"
    run(load_recipe(str(recipe)), folder)
    return folder


SHORT: Final = ("pretrain", "coupled-sft", "coupled", "predict-coupled", "evaluate", "report")


def short(recipe: Path, *settings: str) -> Recipe:
    """One of the recipe's three supporters, from its pretraining to its report."""
    loaded = load_recipe(str(recipe), [*settings, "evaluate.predictions=[predict-coupled]"])
    return loaded.model_copy(update={"stages": [stage for stage in loaded.stages if stage.name in SHORT]})


def test_predicts_every_labelled_supporter_turn_of_test_in_order(finished: Path, recipe: Path) -> None:
    wanted = [
        (c.id, t.id, t.text) for c in read_conversations(recipe.parent / "test.jsonl") for t in supporter_turns(c)
    ]
    for name in ("predict-coupled", "predict-decoupled"):
        rows = read_predictions(finished / name / "predictions.jsonl")
        assert [(row.conversation_id, row.turn_id, row.gold_text) for row in rows] == wanted
        assert all(abs(sum((row.strategy_probabilities or {}).values()) - 1) < 1e-4 for row in rows)
        trees = read_conversations(finished / name / TREES)
        assert predictions_of(trees, name) == rows, "trees and file say the same"
        assert [tree.trunk for tree in trees] == [c.trunk for c in read_conversations(recipe.parent / "test.jsonl")]
    assert rows[0].extra["past_strategies"] == "hidden"


def test_a_part_whose_trees_hold_the_stage_s_own_turns_is_refused(finished: Path, recipe: Path, tmp_path: Path) -> None:
    trees = finished / "predict-aligned" / TREES
    with pytest.raises(CorpusError, match=r"test part hold turns by 'predict-aligned' already.*: rename the stage"):
        run(load_recipe(str(recipe), [f"corpus.test={trees}"]), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_leaves_a_report_curves_records_and_events(finished: Path) -> None:
    assert "tiny" in (finished / "report.html").read_text(encoding="utf-8")
    curve = [json.loads(line) for line in (finished / "planner-sft" / "curve.jsonl").read_text().splitlines()]
    assert any("loss" in row for row in curve)
    assert any("valid_loss" in row for row in curve)
    records = [json.loads(path.read_text()) for path in (finished / "stages").glob("*.json")]
    assert {record["state"] for record in records} == {"done"}
    events = [json.loads(line) for line in (finished / "events.jsonl").read_text().splitlines()]
    cut = [event for event in events if event["event"] == "replies cut at max_new_tokens"]
    assert {event["stage"] for event in cut} <= {"predict-coupled", "predict-decoupled", "predict-aligned"}
    assert cut  # six tokens are too few for a model that says anything


def test_evaluation_holds_figures_and_a_test_of_every_difference(finished: Path) -> None:
    evaluation = json.loads((finished / "evaluate/evaluation.json").read_text(encoding="utf-8"))
    assert list(evaluation["files"]) == ["predict-coupled", "predict-decoupled", "predict-aligned"]
    pairs = {(entry["a"], entry["b"]) for entry in evaluation["comparisons"]}
    assert len(pairs) == 3, "every pair of three"
    tests = {entry["metric"]: entry for entry in evaluation["comparisons"] if entry["b"] == "predict-aligned"}
    assert {"q", "b", "rouge_l_utterance"} <= set(tests)
    figures = [evaluation["files"][tests["q"][side]]["strategy"] for side in "ab"]
    assert tests["q"]["difference"] == pytest.approx(figures[0]["q"] - figures[1]["q"])
    assert tests["q"]["p_holm"] >= tests["q"]["p"] > 0
    assert figures[0]["stages"], "rows say where their turns stand"


def test_one_predict_stage_is_measured_without_tests(finished: Path, recipe: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    run(load_recipe(str(recipe), ["evaluate.predictions=[predict-coupled]"]), tmp_path / "run", fresh=True)
    evaluation = json.loads((tmp_path / "run/evaluate/evaluation.json").read_text(encoding="utf-8"))
    assert (list(evaluation["files"]), evaluation["comparisons"]) == (["predict-coupled"], [])


def test_results_are_printed_with_their_tests(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_results(finished)
    printed = capsys.readouterr().out
    assert "10,000 permutations" in printed
    assert printed.rstrip().endswith("report.html")


def test_same_recipe_and_seed_give_the_same_bytes(finished: Path, recipe: Path, tmp_path: Path) -> None:
    loaded = load_recipe(str(recipe))
    run(loaded.model_copy(update={"stages": loaded.stages[:-2]}), tmp_path / "again")
    for name in ("predict-coupled", "predict-decoupled", "predict-aligned"):
        first, second = (folder / name / "predictions.jsonl" for folder in (finished, tmp_path / "again"))
        assert first.read_bytes() == second.read_bytes()


def test_the_seed_matters(recipe: Path) -> None:
    stages = load_recipe(str(recipe)).stages
    seeds = {stage_seed(seed, stage) for seed in (0, 1) for stage in stages}
    assert len(seeds) == 2 * len(stages)


def test_a_finished_run_does_nothing_again(finished: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS:
        monkeypatch.setattr(kind, "work", lambda *_: pytest.fail("a done stage ran again"))
    run(load_recipe(str(recipe)), finished)


def test_a_stage_that_failed_runs_again_and_earlier_ones_do_not(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(SupporterStage, "work", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(short(recipe), tmp_path / "run")
    monkeypatch.setattr(PretrainStage, "work", lambda *_: pytest.fail("a done stage ran again"))
    run(short(recipe), tmp_path / "run")
    assert (tmp_path / "run" / "report.html").exists()
    _fresh_runs_what_changed_and_what_reads_it(recipe, tmp_path / "run")


def _fresh_runs_what_changed_and_what_reads_it(recipe: Path, folder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "stages").iterdir()}
    run(short(recipe, "evaluate.resamples=101"), folder, fresh=True)
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "stages").iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"evaluate.json", "report.json"}


def _interrupt(*_: object) -> dict[str, object]:
    raise KeyboardInterrupt


def test_changed_settings_are_refused_without_fresh(finished: Path, recipe: Path) -> None:
    changed = load_recipe(str(recipe), ["planner-sft.learning_rate=1e-3"])
    with pytest.raises(RunError, match=r"stage 'planner-sft' .* --fresh"):
        run(changed, finished)


def test_a_local_causal_lm_replaces_the_pocket_backbone(finished: Path, recipe: Path, tmp_path: Path) -> None:
    run(short(recipe, f"model.path={finished / 'pretrain' / 'model'}"), tmp_path)
    assert not (tmp_path / "pretrain").exists()
    events = (tmp_path / "events.jsonl").read_text()
    assert "model.path is used as it is" in events
    assert Supporter.load(tmp_path / "coupled").card.kind == "coupled"


@pytest.mark.parametrize(
    ("setting", "error", "words"),
    [
        ("corpus.train=nowhere.jsonl", CorpusError, "nowhere.jsonl does not exist"),
        ("model.path=./nowhere", ModelError, "no folder and no Hub id"),
        ("predict-coupled.split=valid", CorpusError, "corpus lacks"),
        ("predict-coupled.split=train", RunError, r"'evaluate' compares .* splits \(predict-coupled: train, predict-d"),
        ("corpus.valid=null", None, ""),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    recipe: Path, tmp_path: Path, setting: str, error: type[EsckitError] | None, words: str
) -> None:
    settings = [setting] if error is not CorpusError or "split" not in setting else [setting, "corpus.valid=null"]
    if error is None:
        assert load_recipe(str(recipe), settings).corpus.valid is None
        return
    with pytest.raises(error, match=words):
        run(load_recipe(str(recipe), settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_overflows_stops_the_run_and_leaves_nothing_that_looks_whole(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(
        EsckitError, match=r"^pretrain stopped, its (valid_)?loss is nan (at|after) step \d+: lower its"
    ):
        run(load_recipe(str(recipe), ["pretrain.learning_rate=1e30", "pretrain.epochs=3"]), tmp_path / "run")
    assert json.loads((tmp_path / "run/stages/pretrain.json").read_text())["state"] == "running"
    assert not (tmp_path / "run/pretrain/model").exists()
    assert not (tmp_path / "run/pretrain/curve.jsonl").exists()


def test_other_weights_in_a_model_s_folder_are_noticed(finished: Path, recipe: Path, tmp_path: Path) -> None:
    """Adapters that were trained on the weights before do not fit them."""
    model = Path(shutil.copytree(finished / "pretrain/model", tmp_path / "model"))
    loaded = load_recipe(str(recipe), [f"model.path={model}"])
    stage = loaded.named("planner-sft")
    before = RunFolder(loaded, tmp_path, load_corpus("starter")).identity(stage)
    assert before == RunFolder(loaded, tmp_path, load_corpus("starter")).identity(stage)
    weights = load_file(model / "model.safetensors")
    save_file({**weights, min(weights): weights[min(weights)] + 1}, model / "model.safetensors", {"format": "pt"})
    assert before != RunFolder(loaded, tmp_path, load_corpus("starter")).identity(stage)


def test_a_supporter_on_a_folder_s_backbone_is_loaded_from_wherever_one_stands(
    finished: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe names the backbone relative to where it was run; then the supporter is moved."""
    shutil.copytree(finished / "pretrain/model", tmp_path / "models/tiny")
    monkeypatch.chdir(tmp_path)
    run(short(recipe, "model.path=./models/tiny"), Path("run"))
    (tmp_path / "far/away").mkdir(parents=True)
    shutil.move("run/coupled", "far/away/moved")
    monkeypatch.chdir("far")
    assert Supporter.load("away/moved").card.base == str(tmp_path / "models/tiny")


def test_a_model_folder_without_weights_is_refused(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelError, match="it has no config"):
        run(load_recipe(str(recipe), [f"model.path={tmp_path / 'model'}"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_corpus_without_supporter_turns_is_refused(recipe: Path, tmp_path: Path) -> None:
    lines = (recipe.parent / "train.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        record["turns"] = record["turns"][:1]
        record["turns"][0] = {"id": "0", "parent": None, "speaker": "seeker", "text": "hello"}
    (tmp_path / "mute.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(CorpusError, match="no supporter turn"):
        run(load_recipe(str(recipe), [f"corpus.train={tmp_path / 'mute.jsonl'}"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
