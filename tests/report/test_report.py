"""The page that a run's folder becomes."""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from esckit.errors import EsckitError, PredictionsError, RunError
from esckit.report import write_report
from tests.report.folder import HOSTILE, RECIPE, make_run


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and the text outside style."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "path", "use"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "path", "use"):
            assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> Iterator[dict[str, str]]:
        return (attributes for name, attributes in self.tags if name == tag)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def page(made: Path) -> Page:
    return Page(write_report(made))


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(made, tmp_path / "run", ignore=shutil.ignore_patterns("report.html")))


def test_everything_stands_in_it_in_order(page: Page) -> None:
    wanted = (
        *("The main job on the starter corpus", "Both answered 124 turns of 8 test dialogues", "Before you compare"),
        *("The noise floor of B", "different past strategies (coupled: gold, decoupled: hidden)", "seed 0"),
        *("The figures in short", "Results", "B debiased", "Cut at limit", "Published, other models", "17.73"),
        *("Strategies: coupled", "Strategies: decoupled", "Preference p by strategy", "by strategy: counts of turns"),
        *("Training", "pretrain", "coupled-sft", "planner-sft", "generator-sft"),
        *("Sample dialogues", "starter-010", "[unparsed: Confrontation]", "starter-018", "starter-020"),
        *("Corpus", "Words an utterance", "Strategies over the course of a dialogue", "Emotion types, train"),
        *("Calibration", "NLL", "targets whose context lost its oldest turns", "1,234", "1 min 23 s"),
        *("vocabulary: 2048", "2.13.0+cpu", "Bradley-Terry", "not therapy", "licence CC0-1.0", "Made by esckit"),
    )
    place = 0
    for text in wanted:
        place = page.text.find(text, place)
        assert place >= 0, f"{text!r} is missing or out of order"


def test_figures_are_those_of_the_evaluation(made: Path, page: Page) -> None:
    figures = json.loads((made / "evaluate/evaluation.json").read_text(encoding="utf-8"))["files"]["predict-decoupled"]
    strategy = figures["strategy"]
    low, high = (f"{100 * bound:.1f}" for bound in strategy["q_interval"])
    assert f"<td>{100 * strategy['q']:.1f}<small>{low} to {high}</small></td>" in page.source
    assert f"<td>{strategy['b_floor']:.2f}</td><td>{strategy['b_debiased']:.2f}</td>" in page.source
    assert f"<td>{100 * figures['text']['finish']['length'] / 124:.1f}</td>" in page.source


def test_the_recipe_shown_is_the_recipe(page: Page) -> None:
    shown = page.text[page.text.index("format: 1") : page.text.index("Versions")]
    assert yaml.safe_load(shown) == RECIPE


def test_dialogue_text_is_text(page: Page) -> None:
    assert list(page.all("script")) == []
    assert page.open == []
    assert page.text.count(HOSTILE) >= 3  # the gold text, and one reply of each supporter
    assert "{{ 7 * 7 }}" in page.source


def test_it_needs_nothing_from_outside(page: Page) -> None:
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            assert attributes.get(name, "#").startswith("#")
    style = page.source[page.source.index("<style>") : page.source.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in page.source.replace(HOSTILE, "")


def test_ids_are_unique_and_references_have_them(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', page.source)) <= set(ids)


def test_charts_follow_the_theme_and_speak(page: Page) -> None:
    charts = re.findall(r"<svg.*?</svg>", page.source, flags=re.DOTALL)
    assert len(charts) == 3 + 4
    defined = set(re.findall(r"(--[a-z0-9-]+):", page.source))
    for chart in charts:
        assert not re.search(r"#[0-9a-f]{6}\b", chart)
        assert set(re.findall(r"var\((--[a-z0-9-]+)\)", chart)) <= defined
        assert re.match(r'<svg class="chart" role="img" aria-label="[^"]{60,}" viewBox="[^"]+"><title>[^<]+<', chart)
    dark = page.source.split("@media screen and (prefers-color-scheme: dark)")[1].split("*")[0]
    assert {"--page", "--ink", "--series-0", "--gold"} <= set(re.findall(r"(--[a-z0-9-]+):", dark))


def test_the_same_folder_gives_the_same_bytes(made: Path, page: Page, run: Path) -> None:
    assert write_report(run).read_text(encoding="utf-8") == page.source
    record = run / "stages/report.json"
    record.write_text(record.read_text(encoding="utf-8").replace("running", "done"), encoding="utf-8")
    assert write_report(run).read_text(encoding="utf-8") == page.source


@pytest.mark.parametrize(
    ("last", "there", "not_there"),
    [
        ("pretrain", ["Training", "Not done yet: coupled-sft,", "Corpus"], ["Results", "Sample", "Before you"]),
        ("predict-coupled", ["Sample dialogues", "Nothing has been measured yet"], ["Results", "Calibration"]),
    ],
)
def test_an_unfinished_run_shows_what_is_there(
    last: str, there: list[str], not_there: list[str], tmp_path: Path
) -> None:
    page = Page(write_report(make_run(tmp_path, last=last)))
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page.source)
    assert all(text in page.text for text in there)
    assert not any(text in heading for text in not_there for heading in headings)


def test_a_backbone_that_was_not_pretrained_has_no_curve(run: Path) -> None:
    _change(run / "recipe.json", lambda recipe: recipe["model"].update(path="a/model"))
    _change(run / "stages/pretrain.json", lambda record: record.update(facts={}))
    shutil.rmtree(run / "pretrain")
    assert "backbone a/model" in Page(write_report(run)).text


def test_a_supporter_that_predicts_twice_goes_by_its_stages(run: Path) -> None:
    _change(run / "recipe.json", lambda recipe: recipe["stages"][7].update(supporter="coupled"))
    text = Page(write_report(run)).text
    assert "Strategies: predict-coupled" in text
    assert "Strategies: predict-decoupled" in text


def test_a_supporter_that_always_says_the_same_is_pointed_out(run: Path) -> None:
    def question_only(figures: dict[str, Any]) -> None:
        for row in figures["files"]["predict-coupled"]["strategy"]["per_strategy"]:
            row["predicted"] = 124 if row["strategy"] == "Question" else 0

    _change(run / "evaluate/evaluation.json", question_only)
    assert "coupled chooses Question at 124 of 124 turns" in Page(write_report(run)).text


@pytest.mark.parametrize(("licence", "sentence"), [("CC BY-NC 4.0", "commercial use"), ("unknown", "is unknown")])
def test_the_licence_is_said(licence: str, sentence: str, run: Path) -> None:
    _change(run / "corpus.json", lambda corpus: corpus.update(licence=licence))
    assert sentence in Page(write_report(run)).text.split("not therapy")[1]


def test_figures_that_do_not_exist_are_left_blank(run: Path) -> None:
    def unparsed_throughout(figures: dict[str, Any]) -> None:
        nothing = dict.fromkeys(("b", "b_interval", "b_floor", "b_debiased", "calibration"))
        figures["files"]["predict-coupled"]["strategy"].update(nothing)
        figures["files"]["predict-decoupled"].update(strategy=None, text=None)

    _change(run / "evaluate/evaluation.json", unparsed_throughout)
    page = Page(write_report(run))
    assert "<td>–</td>" in page.source
    assert "Calibration" not in page.text


@pytest.mark.parametrize("content", [None, "{", "[1]"])
@pytest.mark.parametrize(
    "name",
    [
        *("recipe.json", "corpus.json", "versions.json", "events.jsonl"),
        *("pretrain/curve.jsonl", "evaluate/evaluation.json"),
    ],
)
def test_a_missing_or_broken_file_is_named(name: str, content: str | None, run: Path) -> None:
    if content is not None:
        (run / name).write_text(content, encoding="utf-8")
    else:
        (run / name).unlink()
    with pytest.raises(RunError, match=f"{name}.*run the recipe again[.]$") as caught:
        write_report(run)
    assert "\n" not in str(caught.value)
    assert not (run / "report.html").exists()


def test_a_wrong_field_is_named(run: Path) -> None:
    _change(run / "evaluate/evaluation.json", lambda figures: figures["files"]["predict-coupled"].pop("n"))
    with pytest.raises(
        RunError, match=r"evaluation\.json: files\.predict-coupled\.n: field required; remove stages/evaluate\."
    ):
        write_report(run)


def test_broken_predictions_and_folders_are_named(run: Path, tmp_path: Path) -> None:
    (run / "predict-coupled/predictions.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(PredictionsError, match="line 1"):
        write_report(run)
    (run / "predict-coupled/conversations.jsonl").unlink()
    with pytest.raises(EsckitError, match=r"conversations\.jsonl"):
        write_report(run)
    with pytest.raises(RunError, match="not a folder"):
        write_report(tmp_path / "nowhere")


def _change(path: Path, change: Any) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")
