"""The report's section on search stages."""

import json
import re
import shutil
from pathlib import Path

import pytest

from esckit.errors import EsckitError, RunError
from esckit.report import write_report
from esckit.report.run import read_run
from esckit.report.run_records import RecipeRecord
from esckit.report.searches import CurvePoint, trained_on
from tests.mining.tree_search.searched import searched
from tests.report.search_folder import EMOJI, make_search_run
from tests.report.test_report import Page, _change


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_search_run(tmp_path_factory.mktemp("searched"))


@pytest.fixture(scope="module")
def page(made: Path) -> Page:
    return Page(write_report(made))


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(made, tmp_path / "run", ignore=shutil.ignore_patterns("report.html")))


def rows_of(page: Page, caption: str) -> list[list[str]]:
    """The cells of a table's body rows, small print behind a blank."""
    table = page.source.split(f"<figcaption>{caption}")[1].split("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table, flags=re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.DOTALL) for row in rows]
    return [[re.sub(r"<[^>]+>", " ", cell).strip() for cell in row] for row in cells][1:]


def test_all_searches_stand_in_one_table_with_what_was_trained_on_them(page: Page, made: Path) -> None:
    first, second = rows_of(page, "What each stage found")
    record = json.loads((made / "search/search.json").read_text(encoding="utf-8"))
    wins = record["statistics"]["longer_wins"]
    assert first[:5] == [
        "search",
        "search (ours)",
        f"{record['pairs']} 2 seeds",
        "1,000",
        f"{1000 / record['pairs']:.1f}",
    ]
    assert first[5] == "65 45 to 85  of 20"
    assert first[7] == f"{100 * wins:.0f}"
    assert first[9] == "decoupled"
    figures = read_run(made).systems[1].figures
    assert figures
    assert figures.strategy
    assert first[10] == f"{100 * figures.strategy.q:.1f}"
    assert second == ["control", "best of", "4 1 seed", "1,000", "250.0", "–", "33", "67", "50 of 2", *"–––––"]


def test_where_calls_went_and_how_far_seeds_got(page: Page, made: Path) -> None:
    assert rows_of(page, "Where the calls went")[0] == ["search", "200 20%", "300 30%", "0 0%", "500 50%", "7"]
    search = read_run(made).searches["search"]
    assert search.curve[:2] == [CurvePoint(1, 0, 0, 14), CurvePoint(2, 1, 1, 30)]  # 6 + 8, 14 + 16
    assert search.curve[-1].calls == 40 + 800  # a seed that has stopped stays where it was
    assert "search: pairs and ends" in page.text
    assert "search: calls" in page.text
    assert "control: calls" not in page.text  # without a curve there is no chart


def test_table_5_and_the_stages_stand_there(page: Page) -> None:
    assert rows_of(page, "control: 1 seed dialogues of 5.0 utterances, 1 kept ones of 6.0")[3] == [
        *("kept (+)", "3", "4.3", "18.3")
    ]
    kept = rows_of(page, "Strategies of the kept turns of control")
    assert next(row for row in kept if row[0] == "Question") == ["Question", "0", "0", "0", "0", "100", "0"]


def test_the_reward_is_said_to_mean_little_where_it_is_embedded(run: Path, page: Page) -> None:
    assert "The reward means little." in page.text
    _change(run / "search/search.json", lambda record: record.update(embedded_reward=False))
    assert "The reward means little." not in Page(write_report(run)).text


def test_the_tree_with_most_pairs_is_drawn_and_text_is_text(page: Page) -> None:
    assert "search: its tree with most pairs, random" in page.text
    assert list(page.all("script")) == []
    assert page.open == []
    assert EMOJI in page.text
    assert page.source.count('<details class="tree">') == 2  # folded
    assert "http" not in page.source.partition('id="searches"')[2].partition("</section>")[0]


def test_a_large_tree_is_cut_and_the_page_says_so(tmp_path: Path) -> None:
    page = Page(write_report(make_search_run(tmp_path, [searched(5000)])))
    assert "At most 1,000 of its 5,000 turns are drawn" in page.text
    section = page.source.partition('class="tree"')[2].partition("</section>")[0]
    assert section.count('class="said"') <= 1000 + 13  # and those of the control's tree


def test_a_search_without_pairs_is_shown(tmp_path: Path) -> None:
    page = Page(write_report(make_search_run(tmp_path, [searched(200, deep=True)])))
    assert rows_of(page, "What each stage found")[0][4:9] == ["–", "65 45 to 85  of 20", "–", "–", "–"]
    assert "search: its tree with most pairs, random" in page.text


def test_pairs_of_a_search_stand_beside_mined_ones(page: Page) -> None:
    assert "control: 4 pairs. Strategies of the chosen" in page.text


def changed(recipe: RecipeRecord, **stages: dict[str, str]) -> RecipeRecord:
    """The recipe with other keys of some stages (their names with _ for -)."""
    updated = [stage.model_copy(update=stages.get(stage.name.replace("-", "_"), {})) for stage in recipe.stages]
    return recipe.model_copy(update={"stages": updated})


def test_what_learned_from_a_search_counts_at_any_remove(made: Path) -> None:
    recipe = read_run(made).recipe
    assert trained_on(recipe, "search") == ["predict-decoupled"]
    assert trained_on(recipe, "control") == []
    started = changed(recipe, decoupled={"planner": "planner-sft"}, generator_sft={"start": "planner-dpo"})
    assert trained_on(started, "search") == ["predict-decoupled"]
    mined = changed(recipe, planner_dpo={"pairs": "planner-pairs"}, planner_pairs={"trees": "control"})
    assert trained_on(mined, "control") == ["predict-decoupled"]
    assert trained_on(mined, "search") == []
    assert trained_on(changed(recipe, coupled_sft={"trees": "search"}), "search") == [
        "predict-coupled",
        "predict-decoupled",
    ]


@pytest.mark.parametrize("name", ["search.json", "trees.jsonl", "pairs.json"])
def test_a_missing_file_is_named(name: str, run: Path) -> None:
    (run / "search" / name).unlink()
    with pytest.raises(EsckitError, match=rf"search/{re.escape(name)}"):
        write_report(run)


def test_a_wrong_field_is_named(run: Path) -> None:
    _change(run / "search/search.json", lambda record: record.update(pairs="many"))
    with pytest.raises(RunError, match=r"search\.json: pairs: .*remove stages/search\.json and run the recipe again"):
        write_report(run)


def test_other_stages_mean_something_else_by_pairs_and_trees(run: Path) -> None:
    others = [{"stage": "judge", "name": "judged", "pairs": True}, {"stage": "planner", "name": "plans", "trees": 60}]
    _change(run / "recipe.json", lambda recipe: recipe["stages"].extend(others))
    assert "Not done yet: judged, plans" in Page(write_report(run)).text
