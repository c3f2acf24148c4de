"""The judge stage of a recipe, before a server, and what the run's report shows of it."""

import json
import shutil
from pathlib import Path
from typing import Final

import pytest

from esckit.chat_models.ledger import LEDGER
from esckit.conversation import write_conversations
from esckit.corpora import load_corpus
from esckit.errors import BudgetSpent, ChatError, EsckitError, RecipeError, RunError
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from tests.recipes.tiny import shorten
from tests.report.test_report import Page
from tests.server import KEY, MODEL, ChatServer

RECIPE: Final = """
format: 1
corpus: {{name: tree, train: {folder}/train.jsonl, valid: {folder}/valid.jsonl, test: {folder}/test.jsonl}}
stages:
  - {{stage: planner, name: planner, model: majority, folds: 2}}
  - {{stage: supporter, name: supporter, planner: planner}}
  - {{stage: predict, name: predict, supporter: supporter}}
  - {{stage: evaluate, name: evaluate, predictions: [predict]}}
  - {{stage: judge, name: judge, predictions: [predict], model: "remote:test-model", base_url: "{url}", turns: 4,
      reference: hidden, known_groups: true}}
  - {{stage: report, name: report}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    starter = load_corpus("starter")
    for name, part in {"train": starter.train[:8], "valid": starter.valid[:2], "test": starter.test[:2]}.items():
        write_conversations(tmp_path / f"{name}.jsonl", [shorten(conversation, 14) for conversation in part])
    return tmp_path


def written(folder: Path, url: str) -> str:
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder, url=url), encoding="utf-8")
    return str(folder / "recipe.yaml")


def test_a_recipe_judges_shows_it_and_pays_for_nothing_twice(folder: Path) -> None:
    out = folder / "run"
    with ChatServer() as server:
        recipe = load_recipe(written(folder, server.url))
        run(recipe, out)
        asked = server.calls
        assert asked == len(server.asked)
        found = json.loads((out / "judge" / "judging.json").read_text(encoding="utf-8"))
        assert (found["judge"], found["turns"], found["systems"]) == (MODEL, 4, ["predict"])
        assert "predict has no text at 4 of the turns" in " ".join(found["warnings"])
        page = Page(out / "report.html")
        assert "Judged by test-model (judge)" in page.text
        assert "Known groups: they" in page.text
        means = [f"{row['mean']:.2f}" for row in found["scores"]]
        row = page.source.split('<table class="published">')[1].split("</tr>")[1]
        assert [f"<td>{mean}<small>" in row for mean in means] == [True] * 4
        assert "No judge has scored this run" not in page.text
        assert "#judging" in [link.get("href") for link in page.all("a")]
        shutil.rmtree(out / "judge")
        (out / "stages" / "judge.json").unlink()
        run(recipe, out)
        assert server.calls == asked
        assert json.loads((out / "judge" / "judging.json").read_text(encoding="utf-8")) == found


def test_a_judging_whose_budget_is_spent_goes_on_with_a_larger_one(folder: Path) -> None:
    with ChatServer() as server:
        path, out = written(folder, server.url), folder / "run"
        with pytest.raises(BudgetSpent, match=r"^budget_calls 5 is used up with 5 of \d+ items answered: raise it"):
            run(load_recipe(path, ["judge.budget_calls=5"]), out)
        assert server.calls == 5
        run(load_recipe(path, ["judge.budget_calls=500", "judge.concurrency=2"]), out)
        assert max(server.asked.values()) == 1
        assert server.calls > 5
    assert [file.name for file in out.glob("*ledger*")] == [LEDGER]


def test_another_text_of_a_rubric_is_another_judging_and_another_place_is_none(folder: Path) -> None:
    rubric = "name: patience\nversion: 1\nquestion: Is there time?\nscale: {1: No., 2: Yes.}\n"
    for name in ("here", "there"):
        (folder / name).mkdir()
        (folder / name / "patience.yaml").write_text(rubric, encoding="utf-8")
    with ChatServer() as server:
        path, out = written(folder, server.url), folder / "run"
        run(load_recipe(path, [f"judge.rubrics={folder}/here"]), out)
        asked = server.calls
        run(load_recipe(path, [f"judge.rubrics={folder}/there"]), out)
        assert server.calls == asked
        (folder / "there/patience.yaml").write_text(rubric.replace("time", "room"), encoding="utf-8")
        with pytest.raises(RunError, match=r"'judge' in .* was run with other settings"):
            run(load_recipe(path, [f"judge.rubrics={folder}/there"]), out)


def test_what_cannot_be_judged_is_told_before_anything_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(folder, "http://localhost:1/v1")
    with pytest.raises(RecipeError, match="'judge' needs an earlier predict or baseline stage named 'nothing'"):
        load_recipe(path, ["judge.predictions=[nothing]"])
    with pytest.raises(EsckitError, match="there are no rubrics 'nowhere'"):
        run(load_recipe(path, ["judge.rubrics=nowhere"]), folder / "run")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ChatError, match="OPENAI_API_KEY is not set"):
        run(load_recipe(path), folder / "run")
    assert not (folder / "run").exists()
