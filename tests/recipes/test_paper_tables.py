"""The recipes of DecoupledESC's tables, on a few turns."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import read_conversations, write_conversations
from esckit.errors import ChatError, CorpusError, RecipeError
from esckit.measures import predictions_of, read_predictions
from esckit.mining.pairs import kind_of, pairs_of
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from esckit.recipes.stages.predict import PredictStage
from esckit.recipes.trees import PAIRS, TREES
from tests.recipes.tiny import shorten
from tests.tiny import save_base, starter_dialogues


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny corpus and base."""
    folder = tmp_path_factory.mktemp("tables")
    dialogues = [shorten(conversation, 6) for conversation in starter_dialogues(6, 6)]
    write_conversations(folder / "train.jsonl", dialogues[:4])
    write_conversations(folder / "valid.jsonl", dialogues[4:])
    save_base(folder / "base")
    return folder


def _run(place: Path, name: str, out: Path, *settings: str) -> Path:
    """Run a shipped recipe on the tiny corpus, with short texts."""
    recipe = load_recipe(
        name,
        [
            *("corpus.name=tree", f"corpus.train={place}/train.jsonl", f"corpus.valid={place}/valid.jsonl"),
            *(f"model.path={place}/base", *settings),
        ],
    )
    short = {"mine": {"max_new_tokens": 4}, "evaluate": {"resamples": 100}}
    stages = [
        stage.model_copy(
            update=short.get(stage.stage, {})
            | ({"wording": replace(stage.wording, max_new_tokens=4)} if isinstance(stage, PredictStage) else {})
        )
        for stage in recipe.stages
    ]
    return run(recipe.model_copy(update={"stages": stages}), out).folder


def _facts(out: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"stages/{stage}.json").read_text(encoding="utf-8"))["facts"]
    return found


@pytest.mark.slow
def test_each_alignment_is_trained_on_its_kinds_of_pairs(place: Path, tmp_path: Path) -> None:
    out = _run(place, "esconv-preferences", tmp_path / "run", "coupled-pairs.samples=4")
    trees = read_conversations(out / "coupled-pairs" / TREES)
    kinds = [kind_of(pair) for pair in pairs_of(trees, "coupled")]
    assert {"PsNr", "NsNr"} == set(kinds)
    assert _facts(out, "psnr-dpo")["pairs"] == kinds.count("PsNr")
    assert _facts(out, "nsnr-dpo")["pairs"] == kinds.count("NsNr")
    assert _facts(out, "both-dpo")["pairs"] == len(kinds)
    described = json.loads((out / "coupled-pairs" / PAIRS).read_text(encoding="utf-8"))
    assert described["kinds"] == {kind: kinds.count(kind) for kind in ("PsNr", "NsNr")}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"coupled-pairs: {len(kinds)} pairs" in page


def test_a_generator_is_told_gold_strategies_and_nothing_is_planned(place: Path, tmp_path: Path) -> None:
    out = _run(place, "esconv-generator", tmp_path / "run")
    valid = read_conversations(place / "valid.jsonl")
    for stage in ("predict-sft", "predict-dpo"):
        rows = read_predictions(out / stage / "predictions.jsonl")
        assert [row.gold_strategy for row in rows] == [t.strategy for tree in valid for t in tree.trunk if t.strategy]
        assert {row.predicted_strategy for row in rows} == {None}
        assert {row.extra["strategy_given"] for row in rows} == {"gold"}
        assert all(row.predicted_text is not None and row.finish and row.position for row in rows)
    evaluation = json.loads((out / "evaluate/evaluation.json").read_text(encoding="utf-8"))
    assert [figures["strategy"] for figures in evaluation["files"].values()] == [None, None]
    assert {test["metric"] for test in evaluation["comparisons"]} >= {"bleu1_utterance", "rouge_l_utterance"}
    assert "unparsed" not in (out / "events.jsonl").read_text(encoding="utf-8")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "unparsed: None" not in page
    assert f"[{rows[0].gold_strategy}]" in page


def test_kinds_that_were_not_mined_are_an_error(place: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"^stage 'psnr-dpo' finds no pair of its kinds .*: take other kinds\.$"):
        _run(place, "esconv-preferences", tmp_path / "run", "psnr-dpo.kinds=[NsPr]")


@pytest.mark.parametrize(
    ("recipe", "setting", "sentence"),
    [
        ("esconv-generator", "generator-dpo.kinds=[PsNr]", "chooses kinds of pairs, which only a coupled part's"),
        ("esconv-preferences", "psnr-dpo.kinds=[]", "at least 1 item"),
        ("esconv-preferences", "psnr-dpo.kinds=[PsPr]", "PsNr"),
        (
            "esconv-generator",
            "predict-sft.planning={greedy: false}",
            "plans nothing: leave out calibration and planning",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(recipe: str, setting: str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        load_recipe(recipe, [setting])


BASELINES = ("base", "direct-refine", "self-refine", "emotional-cot", "base-decoupled")


@pytest.mark.slow
def test_baselines_stand_in_one_table_with_the_trained(place: Path, tmp_path: Path) -> None:
    out = _run(
        place, "esconv-baselines", tmp_path / "run", *(f"{name}.decoding.max_new_tokens=4" for name in BASELINES)
    )
    evaluation = json.loads((out / "evaluate/evaluation.json").read_text(encoding="utf-8"))
    assert {*BASELINES, "predict-coupled", "predict-decoupled-aligned"} < evaluation["files"].keys()
    turns = evaluation["files"]["predict-coupled"]["n"]
    for name in BASELINES:
        assert evaluation["files"][name]["n"] == turns
        rows = read_predictions(out / name / "predictions.jsonl")
        assert {row.extra["baseline"] for row in rows} == {name}
        assert predictions_of(read_conversations(out / name / TREES), name) == rows
    assert _facts(out, "base")["calls"] == turns
    assert _facts(out, "direct-refine")["calls"] == turns  # its drafts are base's
    events = [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {"stage": "base", "event": "turns without a strategy", "count": turns} in events
    assert "emotional-cot" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("base.method=nonsense", "there is no baseline 'nonsense': use one of base, "),
        ("base.base_url=http://x/v1", "set model"),
    ],
)
def test_a_baseline_that_cannot_be_is_one_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        load_recipe("esconv-baselines", [setting])


def test_a_baseline_behind_a_url_alone_needs_no_backbone() -> None:
    recipe = load_recipe("esconv-baselines", ["base.model=remote:m"])
    assert recipe.model_copy(update={"stages": [recipe.named("self-refine")]}).needs_backbone
    assert not recipe.model_copy(update={"stages": [recipe.named("base")]}).needs_backbone


def test_a_missing_key_is_told_before_anything_is_trained(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ChatError, match="OPENAI_API_KEY is not set"):
        _run(place, "esconv-baselines", tmp_path / "run", "base.model=remote:m")
    assert not (tmp_path / "run").exists()
