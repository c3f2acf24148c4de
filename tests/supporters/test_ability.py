"""General ability by lm-eval, on tiny tasks without a network: bases, adapters and supporters, and what is none."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from esckit.supporters.ability import Score, difference
from tests.cli.test_entry import call
from tests.tiny import write_supporter

Output = pytest.CaptureFixture[str]
ITEMS = [
    {"question": f"I feel {how} today because of {why}.", "choices": ["yes", "no", "maybe so"], "answer": place % 3}
    for place, (how, why) in enumerate((how, why) for how in ("sad", "well", "lost", "calm") for why in ("work", "you"))
]
CHOICE = {
    "task": "tiny_choice",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "doc_to_choice": "{{choices}}",
    "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")],
}
SURPRISE = {
    "task": "tiny_surprise",
    "output_type": "loglikelihood",
    "doc_to_text": "{{question}}",
    "doc_to_target": ".",
    "metric_list": [{"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}],
}
TASKS = "tiny_choice,tiny_surprise"


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    pytest.importorskip("lm_eval", reason="general ability needs lm-eval: pip install 'esckit[ability]'")
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS), encoding="utf-8")
    data = {"data_files": {"test": str(folder / "items.jsonl")}, "cache_dir": str(tmp_path / "cache")}
    for task in (CHOICE, SURPRISE):
        own = {**task, "dataset_path": "json", "dataset_kwargs": data, "test_split": "test"}
        (folder / f"{task['task']}.yaml").write_text(json.dumps(own), encoding="utf-8")  # JSON is YAML
    return folder


def test_an_adapter_is_measured_as_if_it_were_merged_and_not_as_its_base(
    tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    supporter = write_supporter(tmp_path / "supporter", "coupled", "gold")
    base = supporter / "base"
    assert call(monkeypatch, "export", "model", supporter, tmp_path / "merged") == 0
    models = [base, supporter, tmp_path / "merged"]
    capsys.readouterr()
    assert call(monkeypatch, "check", "ability", *models, "--tasks", TASKS, "--tasks-folder", tasks, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    plain, adapted, merged = (figures(model) for model in told["models"])
    assert plain.keys() == {("tiny_choice", "acc"), ("tiny_choice", "acc_norm"), ("tiny_surprise", "perplexity")}
    surprise = ("tiny_surprise", "perplexity")
    assert adapted[surprise] == pytest.approx(merged[surprise], rel=1e-4)
    assert adapted[surprise] != pytest.approx(plain[surprise], rel=1e-2), "the adapter changes what is measured"
    assert adapted == pytest.approx(merged, rel=1e-4)
    gaps = {(row["task"], row["figure"]): row for row in told["models"][1]["figures"]}
    assert {key: row["paired"] for key, row in gaps.items()} == {key: key != surprise for key in plain}
    assert all(row["difference"] == pytest.approx(adapted[key] - plain[key]) for key, row in gaps.items())
    folder = tmp_path / "supporter-adapters/coupled"
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    how = ("--tasks", TASKS, "--tasks-folder", tasks, "--batch-size", "3")
    assert call(monkeypatch, "check", "ability", base, folder, *how) == 0
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if "tiny_surprise" in line)
    assert f"{adapted[surprise]:.1f}" in row
    assert f"{adapted[surprise] - plain[surprise]:+.1f}" in row
    assert "acc_norm*" in shown


def figures(model: dict[str, Any]) -> dict[tuple[str, str], float]:
    assert all(row["n"] == len(ITEMS) for row in model["figures"])
    return {(row["task"], row["figure"]): row["value"] for row in model["figures"]}


@pytest.mark.parametrize(
    ("models", "named", "told"),
    [
        (["nowhere"], "tiny_choice", "nowhere is nothing here: give a supporter's folder"),
        (["remote:x"], "tiny_choice", "remote:x is behind a URL"),
        (["smollm2"], " , ", "--tasks names no task"),
        (["smollm2", "smollm2"], "tiny_choice", "smollm2 is named twice"),
        (["smollm2"], "tiny_gone", "the data of tiny_gone cannot be had"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    models: list[str], named: str, told: str, tasks: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    gone: dict[str, Any] = {**CHOICE, "task": "tiny_gone", "dataset_path": "json", "test_split": "test"}
    gone["dataset_kwargs"] = {"data_files": {"test": str(tasks / "gone.jsonl")}}
    (tasks / "gone.yaml").write_text(json.dumps(gone), encoding="utf-8")
    assert call(monkeypatch, "check", "ability", *models, "--tasks", named, "--tasks-folder", tasks) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"esckit: {told}")
    assert error.count("\n") == 1


@pytest.mark.slow  # lm-eval looks through its thousands of tasks
def test_a_task_that_lm_eval_does_not_know_is_told(
    tasks: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    assert call(monkeypatch, "check", "ability", "smollm2", "--tasks", "tiny_poem", "--tasks-folder", tasks) == 2
    assert capsys.readouterr().err.startswith("esckit: lm-eval knows no task 'tiny_poem'")


def test_without_lm_eval_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    assert call(monkeypatch, "check", "ability", "smollm2", "--tasks", "ifeval") == 2
    assert "needs lm_eval, which is not installed: pip install 'esckit[ability]'" in capsys.readouterr().err


def test_a_difference_is_paired_by_question_where_both_have_values() -> None:
    one, other = Score(4, 0.75, 0.25, (1, 1, 1, 0)), Score(4, 0.5, 0.29, (1, 1, 0, 0))
    paired = difference(one, other)
    assert (paired.value, paired.stderr) == (0.25, 0.25)
    apart = difference(Score(4, 0.75, 0.3), Score(4, 0.5, 0.4))
    assert (apart.value, apart.stderr) == (0.25, 0.5)
    assert difference(Score(4, 2.0, None), Score(4, 1.0, 0.1)).interval is None
