"""A kind of stage from outside the package, and what every kind has in common: order, skipping, records, identity."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.errors import CorpusError, RecipeError, RunError
from esckit.recipes import folder as folder_module
from esckit.recipes import stages
from esckit.recipes.check import check
from esckit.recipes.folder import RunFolder
from esckit.recipes.recipe import Recipe
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from esckit.recipes.stages import KINDS
from tests.recipes.counting import CountStage
from tests.test_architecture import HEAVY, HUB, SOURCE

RECIPE: Final = """
format: 1
title: counting
stages:
  - {stage: count, name: one, word: the}
  - {stage: count, name: two, word: I, before: one}
  - {stage: report, name: page}
"""


@pytest.fixture(autouse=True)
def _forget() -> None:
    CountStage.done.clear()
    CountStage.asked.clear()


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "counting.yaml").write_text(RECIPE, encoding="utf-8")
    return str(tmp_path / "counting.yaml")


def counting(path: str, *settings: str) -> Recipe:
    return load_recipe(path, settings, kinds=[*KINDS, CountStage])


def record(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"stages/{name}.json").read_text(encoding="utf-8"))
    return found


def test_a_kind_of_one_s_own_runs_and_is_recorded(path: str, tmp_path: Path) -> None:
    finished = run(counting(path), tmp_path / "run")
    assert CountStage.done == ["one", "two"]
    one, two = record(finished.folder, "one"), record(finished.folder, "two")
    assert (one["state"], one["stage"]) == ("done", "count")
    assert two["facts"]["all"] == one["facts"]["own"] + two["facts"]["own"] > two["facts"]["own"] > 0
    assert '"dialogues looked at"' in (finished.folder / "events.jsonl").read_text(encoding="utf-8")
    assert json.loads((finished.folder / "recipe.json").read_text())["stages"][1]["before"] == "one"
    assert "counting" in (finished.folder / "report.html").read_text(encoding="utf-8")
    run(counting(path), tmp_path / "run")
    assert CountStage.done == ["one", "two"], "what is done is not done again"


def test_it_continues_where_it_stopped(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = CountStage.work

    def stop(self: CountStage, run: RunFolder) -> dict[str, Any]:
        if self.name == "two":
            raise KeyboardInterrupt
        return real(self, run)

    with monkeypatch.context() as patch:
        patch.setattr(CountStage, "work", stop)
        with pytest.raises(KeyboardInterrupt):
            run(counting(path), tmp_path / "run")
    assert record(tmp_path / "run", "two")["state"] == "running"
    run(counting(path), tmp_path / "run")
    assert CountStage.done == ["one", "two"]


def test_what_it_reads_makes_it_outdated(path: str, tmp_path: Path) -> None:
    run(counting(path), tmp_path / "run")
    with pytest.raises(RunError, match=r"stage 'one' .* --fresh"):
        run(counting(path, "one.word=you"), tmp_path / "run")
    run(counting(path, "two.word=you"), tmp_path / "run", fresh=True)
    assert CountStage.done == ["one", "two", "two"]
    run(counting(path, "two.word=you", "one.word=you"), tmp_path / "run", fresh=True)
    assert CountStage.done[3:] == ["one", "two"], "with what reads it"


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("one.wrd=x", "unknown key 'one.wrd': did you mean 'word'?"),
        ("one.word=''", "one.word: string should have at least 1 character"),
        ("one.word=two words", "stage 'one' counts one word, and 'two words' is several"),
        ("two.before=page", "stage 'two' needs an earlier count stage named 'page'"),
        ("two.also=[one, three]", "stage 'two' needs an earlier count stage named 'three'"),
        ("two.stage=cuont", "stage 'two': there is no kind 'cuont': did you mean 'count'?"),
    ],
)
def test_bad_keys_get_one_sentence(path: str, setting: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as error:
        counting(path, setting)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_its_own_check_comes_before_anything_is_written(path: str, tmp_path: Path) -> None:
    recipe = counting(path, "two.word=xyzzy")
    for carry_out in (check, lambda each: run(each, tmp_path / "run")):
        with pytest.raises(CorpusError, match="'xyzzy', which nobody says"):
            carry_out(recipe)
    assert not (tmp_path / "run").exists()


def test_without_the_kind_there_is_none(path: str) -> None:
    with pytest.raises(RecipeError, match="stage 'one': there is no kind 'count'"):
        load_recipe(path)


def test_each_identity_is_computed_once_however_many_paths_lead_to_it(tmp_path: Path) -> None:
    """Each round reads two stages that both read the round before: 2^12 paths, 24 stages."""
    block = (
        "format: 1\nstages:\n  - repeat:\n      times: 12\n      start: {b: null}\n      stages:\n"
        "      - {stage: count, name: a, word: the, before: b}\n"
        "      - {stage: count, name: b, word: the, before: a, also: [b]}\n"
    )
    (tmp_path / "deep.yaml").write_text(block, encoding="utf-8")
    recipe = counting(str(tmp_path / "deep.yaml"))
    run(recipe, tmp_path / "run")
    assert sorted(CountStage.asked) == sorted(stage.name for stage in recipe.stages)
    assert len(CountStage.asked) == 24


def test_a_record_holds_the_versions_that_its_stage_ran_with(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(counting(path), tmp_path / "run")
    before = (tmp_path / "run/versions.json").read_bytes()
    monkeypatch.setattr(folder_module, "__version__", "another")
    run(counting(path), tmp_path / "run")
    assert (tmp_path / "run/versions.json").read_bytes() == before, "no stage ran"
    run(counting(path, "two.word=you"), tmp_path / "run", fresh=True)
    versions = [record(tmp_path / "run", name)["versions"]["esckit"] for name in ("one", "two", "page")]
    assert versions == [json.loads(before)["esckit"], "another", "another"]
    assert json.loads((tmp_path / "run/versions.json").read_text())["esckit"] == "another"
    (tmp_path / "run/versions.json").unlink()
    run(counting(path, "two.word=you"), tmp_path / "run")
    assert (tmp_path / "run/versions.json").exists(), "what is missing is written again"


def test_a_kind_is_one_file_and_a_line_in_the_list() -> None:
    files = {path.stem for path in Path(str(stages.__file__)).parent.glob("*.py")} - {"__init__"}
    assert files == {kind.kind() for kind in KINDS} == {kind.__module__.split(".")[-1] for kind in KINDS}
    for name in ("runner", "recipe", "recipe_files", "rounds", "folder", "check", "stage", "training_work"):
        text = (SOURCE / f"recipes/{name}.py").read_text(encoding="utf-8")
        assert "recipes.stages." not in text, f"{name} knows kinds through the list alone"


def test_recipes_are_read_without_heavy_libraries() -> None:
    script = (
        "import sys\nfor name in sys.argv[1].split(','):\n    sys.modules[name] = None\n"
        "from esckit.recipes.recipe_files import load_recipe, shipped_recipes\n"
        "print(sum(len(load_recipe(name).stages) for name in shipped_recipes()))\n"
    )
    command = [sys.executable, "-c", script, ",".join(sorted(HEAVY | HUB))]
    done = subprocess.run(command, cwd=SOURCE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
