"""Empath's table, the section on roles and experiences, and gates, in the page of a run."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import Turn, read_conversations, write_conversations
from esckit.errors import RunError
from esckit.files import write_json
from esckit.judging.judging_files import FIGURES
from esckit.judging.plan import JudgingOptions, figures, make_plan
from esckit.judging.rubric import load_rubrics
from esckit.judging.sampling import sample_turns
from esckit.measures import compare, predictions_of
from esckit.measures.intervals import Draws
from esckit.report import write_report
from esckit.report.empath import judged_scales, published_empath, spoken
from esckit.report.run import read_run
from tests.judging.test_empath import checking
from tests.judging.test_plan import ask
from tests.report.folder import RECIPE, make_run
from tests.report.test_report import Page

PREDICTED = "predict-decoupled"
GATES: dict[str, Any] = {
    "role": {"entropy_bits": {"lamplighter": 0.0, "ferryman": 1.5}, "use": [0.5, 0.25, 0.25, 0.0]},
    "strategy": {"entropy_bits": {"Question": 1.0}, "use": [2.0, 2.0]},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without roles."""
    return make_run(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def run(plain: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(plain, tmp_path / "run"))


@pytest.fixture(scope="module")
def made(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose second supporter spoke in roles, and a judge of the six scales."""
    folder = Path(shutil.copytree(plain, tmp_path_factory.mktemp("empath") / "run"))
    _cast(folder)
    record = json.loads((folder / "stages/planner-sft.json").read_text(encoding="utf-8"))
    write_json(folder / "stages/planner-sft.json", {**record, "facts": {**record["facts"], "gates": GATES}})
    _judge(folder)
    return folder


def _cast(folder: Path) -> None:
    """Every third reply tells one of two stories, every second one is a ferryman's, the first nobody's."""
    path = folder / PREDICTED / "trees.jsonl"
    number = 0

    def cast(turn: Turn) -> Turn:
        nonlocal number
        if turn.source != PREDICTED:
            return turn
        number += 1
        role = None if number == 1 else "ferryman" if number % 2 else "lamplighter"
        told = {"experience": f"story-{number % 2}"} if number % 3 == 0 else {}
        return replace(turn, extra={**turn.extra, "role": role, **told})

    trees = [replace(tree, turns=[cast(turn) for turn in tree.turns]) for tree in read_conversations(path)]
    write_conversations(path, trees)


def _judge(folder: Path) -> None:
    """A judge stage over both systems, as the runner leaves it; it finds a problem in half of one's replies."""
    names = ["predict-coupled", PREDICTED]
    trees = {name: read_conversations(folder / name / "trees.jsonl") for name in names}
    rows = {name: predictions_of(own, name) for name, own in trees.items()}
    found = sample_turns(rows, trees[PREDICTED], 6, 0)
    guilty = [text for text in found.replies[PREDICTED].values() if text.strip()][:3]
    script = checking(lambda reply: {"names_medicine": reply} if reply in guilty else {})
    options = JudgingOptions(model="scripted", reference="hidden", rubrics="empath")
    plan = make_plan(found, load_rubrics("empath"), options)
    answers, model = ask(plan, script, folder)
    draws = Draws(permutations=50, resamples=50)
    judging = figures(answers, plan, found, judge="scripted", identity=model.identity, draws=draws)
    stage = {"stage": "judge", "name": "judge", "predictions": names, "model": "scripted", "rubrics": "empath"}
    recipe = {**RECIPE, "stages": [*RECIPE["stages"][:-1], stage, RECIPE["stages"][-1]]}
    write_json(folder / "recipe.json", recipe)
    write_json(folder / "stages/judge.json", {"name": "judge", "stage": "judge", "state": "done", "facts": {}})
    write_json(folder / "judge" / FIGURES, judging.to_json())


@pytest.fixture(scope="module")
def page(made: Path) -> Page:
    return Page(write_report(made))


def section(page: Page, name: str) -> str:
    return page.source.split(f'<section id="{name}">')[1].split("</section>")[0]


def rows_of(text: str) -> dict[str, list[str]]:
    """By the name in a row's head, its cells."""
    found = {}
    for row in re.findall(r"<tr[^>]*><th scope=\"row\">(.*?)</tr>", text, re.DOTALL):
        head, _, cells = row.partition("</th>")
        found[re.sub(r"<[^>]+>", "", head)] = re.findall(r"<td[^>]*>(.*?)</td>", cells, re.DOTALL)
    return found


def test_the_columns_of_table_3_are_text_figures_and_six_scales(made: Path, page: Page) -> None:
    text = json.loads((made / "evaluate/evaluation.json").read_text(encoding="utf-8"))["files"][PREDICTED]["text"]
    scores = judged_scales(read_run(made))[PREDICTED]
    rows = rows_of(section(page, "empath"))
    cells = rows["decoupled"]
    wanted = [f"{100 * text[f'{name}_utterance']:.1f}" for name in ("distinct1", "bleu1", "bleu4", "f1", "rouge_l")]
    assert [cell.partition("<")[0] for cell in cells[:5]] == wanted
    assert [cell.partition("<")[0] for cell in cells[5:]] == ["1.00", "–", "1.00", "1.00", "1.00", "0.50"]
    assert scores["safety"].mean == 0.5
    assert rows["Empath"] == [
        "46.82",
        "25.55",
        "4.09",
        "30.08",
        "19.06",
        "2.11",
        "3.82",
        "3.34",
        "3.81",
        "2.23",
        "1.00",
    ]
    assert "names medicine" in section(page, "judging")
    assert "No judge has scored this run" not in section(page, "empath")
    assert "#empath" in [link.get("href") for link in page.all("a")]


def test_published_rows_are_whole_and_in_their_scales() -> None:
    _, rows = published_empath()
    assert len(rows) == 13
    for name, *values in rows:
        assert len(values) == 11, name
        assert all(0 < value < 100 for value in values[:5]), name
        assert all(0 < value <= most for value, most in zip(values[5:], (3, 5, 5, 5, 3, 1), strict=True)), name


def test_roles_and_stories_are_counted(made: Path, page: Page) -> None:
    """Of 124 turns one has no role; every third, 41, tells one of two stories."""
    (row,) = [each for each in spoken(read_run(made).systems) if each.system]
    assert (row.turns, row.plain, row.roles) == (124, 1, {"lamplighter": 62, "ferryman": 61})
    assert (row.told, row.stories, row.most) == (41, 2, 21)
    cells = rows_of(section(page, "roles"))["decoupled"]
    assert cells[1] == "lamplighter 62, ferryman 61"
    assert cells[3] == f"41<small>{100 * 41 / 124:.1f}</small>"


def test_gates_are_shown_with_what_is_possible(page: Page) -> None:
    shown = section(page, "roles")
    assert "planner-sft, experts of group role" in shown
    assert "to 2.00 (all 4 alike)" in shown
    assert "50, 25, 25, 0" in shown
    assert "to 1.00 (all 2 alike)" in shown
    assert "entropy_bits" not in section(page, "made"), "facts are words and numbers"


def test_gates_that_are_none_are_told(run: Path) -> None:
    record = json.loads((run / "stages/planner-sft.json").read_text(encoding="utf-8"))
    write_json(run / "stages/planner-sft.json", {**record, "facts": {"steps": 1, "gates": {"role": 3}}})
    with pytest.raises(RunError, match="stage 'planner-sft' has unreadable gates in its record: run it again"):
        write_report(run)


def test_a_run_without_roles_has_no_such_sections(run: Path) -> None:
    page = Page(write_report(run))
    assert 'id="empath"' not in page.source
    assert 'id="roles"' not in page.source


def test_an_ablation_is_one_table_against_the_whole_system(run: Path) -> None:
    """Eight systems, each tested against one: a row each, and a column a figure."""
    names = [
        "full",
        *("no-matching", "no-prediction", "no-experience", "one-lora", "no-groups", "per-module", "sequence"),
    ]
    trees = read_conversations(run / PREDICTED / "trees.jsonl")
    rows = predictions_of(trees, PREDICTED)
    stages = [{"stage": "predict", "name": name, "supporter": name} for name in names]
    evaluate = {"stage": "evaluate", "name": "evaluate", "predictions": names, "against": "full"}
    write_json(run / "recipe.json", {**RECIPE, "stages": [*stages, evaluate]})
    for name in names:
        own = [
            replace(tree, turns=[replace(t, source=name) if t.source == PREDICTED else t for t in tree.turns])
            for tree in trees
        ]
        write_conversations(run / name / "trees.jsonl", own)
        facts = {"split": "test"}
        write_json(run / f"stages/{name}.json", {"name": name, "stage": "predict", "state": "done", "facts": facts})
    found = compare(dict.fromkeys(names, rows), resamples=20, permutations=20, against="full")
    assert {(test.a, test.b) for test in found.comparisons} == {(name, "full") for name in names[1:]}
    write_json(run / "evaluate/evaluation.json", found.to_json())
    shown = section(Page(write_report(run)), "differences")
    assert shown.count("<table>") == 1
    table = rows_of(shown)
    assert [*table] == names[1:]
    assert {len(cells) for cells in table.values()} == {len(found.comparisons) // 7}
    assert "Each supporter minus full" in shown
