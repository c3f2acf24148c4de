"""The report's section on rounds of self-refinement."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from esckit.errors import RunError
from esckit.report import write_report
from esckit.report.rounds import published_rounds
from esckit.report.run import read_run
from tests.report.folder import HOSTILE, make_run
from tests.report.round_folder import add_rounds
from tests.report.test_report import Page, _change
from tests.report.test_searches import rows_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_rounds(make_run(tmp_path_factory.mktemp("rounds")))


@pytest.fixture(scope="module")
def page(made: Path) -> Page:
    return Page(write_report(made))


@pytest.fixture(scope="module")
def stopped(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a run that stopped after its first round."""
    folder = Path(shutil.copytree(made, tmp_path_factory.mktemp("stopped") / "run"))
    shutil.rmtree(folder / "refined-2")
    shutil.rmtree(folder / "kept-2")
    recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    recipe["stages"] = [stage for stage in recipe["stages"] if not re.search(r"-[12]$", stage["name"])]
    (folder / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    return Page(write_report(add_rounds(folder, stopped=True)))


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(made, tmp_path / "run", ignore=shutil.ignore_patterns("report.html")))


def said(page: Page) -> str:
    return " ".join(page.text.split())


def test_each_round_is_a_column(page: Page) -> None:
    rows = {row[0]: row[1:] for row in rows_of(page, "What each round drafted")}
    assert rows["turns looked at"] == ["28", "30"]
    assert rows["contexts drafted"] == ["26", "26"]
    assert rows["left out: first turn"] == ["2 7.1", "2 6.7"]
    assert rows["left out: unparsed"] == ["3 10.7", "0 0.0"]
    assert rows["left out: not accepted"] == ["0 0.0", "3 10.0"]
    assert rows["pairs"] == ["20 71.4", "20 66.7"]
    assert rows["replaced by the human reply"] == ["0 0.0", "4 20.0  unparsed 1  longer than the draft 3"]
    assert rows["drafts' mean score, 1 to 5"] == ["2.70 1: 1, 2: 4, 3: 15"] * 2
    assert rows["words, refined over draft"] == ["21.5 over 14.2 longer in 75%", "22.5 over 14.2 longer in 75%"]
    assert rows["likeness of both"] == ["0.600", "0.810 0.700 to 0.900"]
    assert rows["calls"] == ["52 draft 26, refine 26, accept 0"] * 2
    assert rows["tokens read, written"] == ["12,000, 3,400"] * 2
    assert "Filters that took nothing: last turns." in page.text


def test_the_stop_rule_is_told_in_words(page: Page, stopped: Page) -> None:
    assert (
        "kept-1. Round 1's policy (dpo-1) was above coupled-sft by R-L on 1,234 replies of 4 held-out dialogues: "
        "difference +0.0123 (above 0 is better), 95% interval +0.0010 to +0.0234; the lower end of the interval has to "
        "be above 0. So it was kept."
    ) in said(page)
    assert "Round 2's policy (dpo-2) was not above kept-1" in said(page)
    assert "The rule only tells here (stops: false): dpo-2 was kept all the same." in said(page)
    assert "Skipped:" not in page.text
    told = said(stopped)
    assert "difference −0.0123 (above 0 is better), 95% interval −0.0234 to −0.0010;" in told
    assert "So coupled-sft was kept, and later rounds were skipped." in told
    assert "kept-2. There was nothing to compare, and kept-1 was kept: dpo-1 is not above coupled-sft" in told
    assert "Skipped: refined-2, dpo-2, because dpo-1 is not above coupled-sft by rouge_l_utterance" in told
    assert "Not done yet" not in told


def test_lines_over_the_rounds(page: Page, stopped: Page) -> None:
    charts = [tag["aria-label"] for tag in page.all("svg") if "over rounds" in tag["aria-label"]]
    assert charts == [
        "Line chart of the pairs over rounds 1 to 2, words a reply: refined from 21.50 to 22.50, draft from 14.25 to "
        "14.25.",
        "Line chart of the pairs over rounds 1 to 2, cosine with the seeker's words: refined from 0.28 to 0.31, draft "
        "from 0.20 to 0.22, one with the other from 0.60 to 0.81.",
    ]
    assert not any("over rounds" in tag["aria-label"] for tag in stopped.all("svg"))


def test_rounds_without_relevance_or_pairs_are_shown(run: Path) -> None:
    for number in (1, 2):
        empty: dict[str, Any] = {"words": None, "relevance": None, "pairs": 0, "replaced": {}, "scores": {}}
        _change(run / f"refined-{number}/refinement.json", lambda record, empty=empty: record.update(empty))
    page = Page(write_report(run))
    rows = {row[0]: row[1:] for row in rows_of(page, "What each round drafted")}
    assert rows["words, refined over draft"] == ["–", "–"]
    assert rows["replaced by the human reply"] == ["0", "0"]
    assert rows["drafts' mean score, 1 to 5"] == ["–", "–"]
    assert "relevance of the draft" not in rows
    assert not any("over rounds" in tag["aria-label"] for tag in page.all("svg"))


def test_the_papers_rounds_are_folded_below_ours(page: Page) -> None:
    figures = {row.model: row for _, rows in published_rounds() for row in rows}
    assert figures["Llama-3-8B M2"].rouge_l == 15.50
    assert figures["M2, refined by itself"].distinct2 == 82.96
    section = page.source.split('id="rounds"')[1].split("</section>")[0]
    shown = section.split("<details>")[1]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', shown)
    assert len(rows) == 2 + 16
    assert rows[4][1] == "<td>20.06</td><td>13.63</td><td>15.50</td><td>15.77</td><td>91.43</td>"
    assert "M2's ROUGE-L lies below M0's for all three backbones" in page.text


def test_the_papers_errors_are_in_its_figures() -> None:
    """What the note says of the paper follows from the rows beside it."""
    rounds, sources = ({row.model: row for row in rows} for _, rows in published_rounds())
    for backbone, change in (("Llama-3-8B", 15.8), ("Qwen2-7B", 10.2), ("Mistral-7B", 10.7)):
        first, second, third = (rounds[f"{backbone} M{number}"] for number in range(3))
        assert first.rouge_l is not None
        assert third.rouge_l is not None
        assert third.rouge_l < first.rouge_l
        assert first.meteor is not None
        assert second.meteor is not None
        assert 100 * (second.meteor / first.meteor - 1) == pytest.approx(change, abs=0.05)
    assert [rounds[f"{name} M2"].bleu2 < rounds[f"{name} M1"].bleu2 for name in ("Llama-3-8B", "Mistral-7B")] == [
        True
    ] * 2
    at_first = [row for name, row in sources.items() if name.startswith("M1")]
    assert min(at_first, key=lambda row: row.bleu3).model == "M1, refined by itself"
    assert min(at_first, key=lambda row: row.rouge_l or 0).model == "M1, refined by itself"
    at_last = [row for name, row in sources.items() if name.startswith("M2")]
    assert min(at_last, key=lambda row: row.distinct2).model == "M2, refined by itself"


def test_text_is_text_and_pairs_stand_beside_mined_ones(page: Page) -> None:
    assert list(page.all("script")) == []
    assert page.open == []
    assert HOSTILE in page.text.partition("Rounds of self-refinement")[2].partition("Preference pairs")[0]
    assert "refined-2: 20 pairs. Strategies of the chosen" in page.text


@pytest.mark.parametrize(("name", "field"), [("refined-1/refinement.json", "pairs"), ("kept-1/keep.json", "bar")])
def test_a_broken_file_is_named(name: str, field: str, run: Path) -> None:
    _change(run / name, lambda record: record.pop(field))
    stage = name.split("/")[0]
    with pytest.raises(RunError, match=rf"{re.escape(name)}: {field}: .*remove stages/{stage}\.json and run"):
        read_run(run)
