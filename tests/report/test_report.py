"""The page that a run's folder becomes."""

import html
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from esckit.errors import EsckitError, PredictionsError, RunError
from esckit.measures import Prediction, evaluate, read_predictions
from esckit.measures.text import make_tokenizer
from esckit.report import write_report
from esckit.report.extremes import EXTREMES, extreme_turns
from esckit.report.run import read_run, supporter_parts
from esckit.report.run_records import StageConfig
from esckit.strategy import ESCONV
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
        *("The figures in short", "Results", "B debiased", "METEOR", "DecoupledESC's table 4", "No judge has"),
        *("Distinct-1", "Emp.", "Qwen2.5-7B decoupled DPO", "17.73", "Llama-3-8B fine-tuned"),
        *("Differences", "coupled minus decoupled over 124 turns of 8 dialogues: paired", "p Holm", "ROUGE-L"),
        *("Length and stock phrases", "Over 40 words", "Cut at limit", "frequent openings"),
        *("most frequent phrases of 3 to 5", "gold"),
        *("Patterns over a dialogue", "Sympathy + advice", "One strategy", "coupled", "gold", "short dialogues have a"),
        *("Strategies: coupled", "Strategies: decoupled", "Preference p by strategy", "by strategy: counts of turns"),
        *("Gold strategies of the test turns", "Sixth of the dialogue", "Strategies that decoupled chose"),
        *("Calibration: coupled", "Calibration: decoupled", "Reliability diagrams", "NLL"),
        *("Training", "pretrain", "coupled-sft", "planner-sft", "generator-sft"),
        *("Alignment on preferences", "planner-dpo", "stays at ln 2"),
        *("Worst and best turns", "coupled: worst 3 of 124 turns", "decoupled: best 3 of 124 turns"),
        *("Sample dialogues", "starter-010", "[unparsed: Confrontation]", "starter-018", "starter-020"),
        *("Corpus", "Words an utterance", "over the course of a dialogue, part train", "Emotion types, train"),
        *("targets whose context lost its oldest turns", "1,234", "1 min 23 s"),
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
    text = figures["text"]
    low, high = (f"{100 * bound:.1f}" for bound in text["bleu1_utterance_interval"])
    shown = f"<td>{100 * text['bleu1_utterance']:.1f}<small>{low} to {high}</small></td>"
    assert page.source.count(shown) == 2  # in the table of text figures and in that of the paper's columns
    opening = figures["text"]["openings"][0]
    assert f"{html.escape(opening['opening'])}</th><td>{100 * opening['share']:.1f}</td>" in page.source


def test_patterns_stand_beside_those_of_the_human_replies(made: Path, page: Page) -> None:
    figures = json.loads((made / "evaluate/evaluation.json").read_text(encoding="utf-8"))["files"]["predict-coupled"]
    section = page.source.split('id="patterns"')[1].split("</section>")[0]
    supporter, _, gold = re.findall(r"<tr[^>]*><th scope=\"row\">(.*?)</tr>", section, flags=re.DOTALL)
    for side, row in (("predicted", supporter), ("gold", gold)):
        one = figures["patterns"][side]["one_strategy"]
        low, high = (f"{100 * bound:.1f}" for bound in one["share_interval"])
        shown = f"<td>{100 * one['share']:.1f}<small>{low} to {high}</small></td><td>{one['run']:.1f}<small>"
        assert shown in row
        assert row.endswith(f"<small>most {one['longest']}</small></td>")
    assert "Questions in a row</th>" in page.source.split("p Holm")[1]


def test_figures_without_patterns_have_no_such_section(run: Path) -> None:
    def without(evaluation: dict[str, Any]) -> None:
        for figures in evaluation["files"].values():
            del figures["patterns"]

    _change(run / "evaluate/evaluation.json", without)
    source = write_report(run).read_text(encoding="utf-8")
    assert 'id="patterns"' not in source
    assert 'id="rounds"' not in source  # nor has a run without rounds


def test_tests_between_supporters_are_those_of_the_evaluation(made: Path, page: Page) -> None:
    tests = json.loads((made / "evaluate/evaluation.json").read_text(encoding="utf-8"))["comparisons"]
    q, b = (next(test for test in tests if test["metric"] == metric) for metric in "qb")
    assert f"<td>{100 * q['difference']:+.1f}</td>".replace("-", "−") in page.source
    assert f"<td>{b['difference']:+.2f}</td>".replace("-", "−") in page.source
    low, high = q["interval"]
    assert f"<td>{100 * low:.1f} to {100 * high:.1f}</td><td>{q['p']:.3f}</td><td>".replace("-", "−") in page.source
    assert f"{b['p_holm']:.3f}" in page.source


def test_a_difference_that_stands_out_is_bold_and_the_note_follows_what_was_tested(run: Path) -> None:
    def found(evaluation: dict[str, Any]) -> None:
        evaluation["comparisons"][0]["p_holm"] = 0.0123
        evaluation["comparisons"][1]["p_holm"] = 0.0008

    _change(run / "evaluate/evaluation.json", found)
    page = Page(write_report(run))
    assert "<strong>0.012</strong>" in page.source
    assert "<strong>&lt;0.001</strong>" in page.source
    assert "(seed 0), and the tests below say" in page.text
    _change(run / "evaluate/evaluation.json", lambda evaluation: evaluation.update(comparisons=[]))
    text = Page(write_report(run)).text
    assert "(seed 0), and no test between supporters" in text
    assert "p Holm" not in text.split("Definitions")[0]


def test_alignment_says_what_moved(page: Page) -> None:
    row = page.source.split('id="alignment"')[1].split("planner-dpo</th>")[1].split("</tr>")[0]
    wanted = ("1,000", "25", "0.195", "62.5", "12.3", "0.0567", "–", "–")  # the margin: of the last two of 20 points
    assert row == "".join(f"<td>{figure}</td>" for figure in wanted)
    curves = [tag["aria-label"] for tag in page.all("svg") if "planner-dpo" in tag["aria-label"]]
    assert curves == [
        "Line chart of stage planner-dpo over epochs, in nats a pair: loss from 0.65 to 0.65, margin from 0.01 to 0.20."
    ]


def test_mined_pairs_are_described(page: Page) -> None:
    section = page.text.split("What each stage mined")[1].split("Alignment on preferences")[0]
    for shown in ("planner-pairs: 1,000 pairs", "210 21%", "430 43%", "kind NsNr", "reason lack of empathy", "83.8"):
        assert shown in " ".join(section.split())


def test_pairs_of_labels_alone_have_no_length(run: Path) -> None:
    _change(run / "planner-pairs/pairs.json", lambda pairs: pairs["mean_characters"].update(chosen=None, rejected=None))
    assert "mean characters" not in Page(write_report(run)).text


def test_preference_in_subsets_stands_beside_the_whole(run: Path) -> None:
    def subset(n: int) -> dict[str, Any]:
        rows = [{"strategy": label, "gold": n, "predicted": n + 1, "p": None} for label in ESCONV.labels]
        return {"n": n, "b": n / 1000, "per_strategy": rows}

    def with_subsets(figures: dict[str, Any]) -> None:
        figures["files"]["predict-coupled"]["strategy"]["subsets"] = [subset(431), subset(432)]

    assert "random subsets" not in Page(write_report(run)).text
    _change(run / "evaluate/evaluation.json", with_subsets)
    source = Page(write_report(run)).source
    assert "in 2 random subsets of 431 turns or so" in source
    assert "<td>431</td><td>432</td><td>–</td><td>432</td><td>433</td><td>–</td>" in source
    assert "<td></td><td></td><td>0.43</td><td></td><td></td><td>0.43</td>" in source


def test_an_opening_that_occurs_once_is_no_stock_phrase(run: Path) -> None:
    def once(evaluation: dict[str, Any]) -> None:
        for opening in evaluation["files"]["predict-coupled"]["text"]["openings"]:
            opening["count"] = 1

    _change(run / "evaluate/evaluation.json", once)
    assert Page(write_report(run)).text.count("none occurs twice") == 1


def test_phrases_stand_in_a_column_a_supporter(run: Path) -> None:
    phrase = {"phrase": "i hear you", "count": 31, "share": 0.25, "gold_count": 1, "gold_share": 0.008, "z": 4.567}

    def with_phrases(evaluation: dict[str, Any]) -> None:
        figures = evaluation["files"]
        figures["predict-coupled"]["text"].update(phrases=[phrase], overused_phrases=[])
        figures["predict-decoupled"]["text"].update(phrases=[phrase] * 12, overused_phrases=[phrase])

    _change(run / "evaluate/evaluation.json", with_phrases)
    source = write_report(run).read_text(encoding="utf-8")
    frequent, overused = (
        re.findall(r"<tr><td.*?</tr>", source.split(f"<figcaption>{start}")[1].split("</table>")[0])
        for start in ("The 10 most frequent phrases", "Overused")
    )
    shown = '<td class="word">i hear you<small>25.0, gold 0.8</small></td>'
    assert len(frequent) == 10
    assert frequent[0].startswith(f"<tr>{shown}{shown}<td")
    assert frequent[1].startswith(f'<tr><td class="word">–</td>{shown}<td')
    assert overused == [
        '<tr><td class="word">–</td><td class="word">i hear you<small>25.0, gold 0.8, z 4.6</small></td></tr>'
    ]


def test_heat_maps_show_the_shares_of_each_stage(made: Path, page: Page) -> None:
    strategy = json.loads((made / "evaluate/evaluation.json").read_text(encoding="utf-8"))["files"]["predict-coupled"]
    stage = strategy["strategy"]["stages"][5]
    for start, side in (("Gold strategies of the test", "gold"), ("Strategies that coupled chose", "predicted")):
        table = page.source.split(f"<figcaption>{start}")[1].split("</table>")[0]
        last = re.findall(r'<th scope="row">([^<]+)</th>.*--share: ([0-9.]+)">([0-9]+)</td></tr>', table)
        assert last == [(label, f"{share:.3f}", f"{100 * share:.0f}") for label, share in stage[side].items()]


def test_length_of_gold_stands_beside_the_supporters(made: Path, page: Page) -> None:
    rows = read_predictions(made / "predict-coupled/predictions.jsonl")
    share = sum(len(row.gold_text.split()) > 40 for row in rows) / len(rows)
    table = page.source.split("<figcaption>Length of the responses")[1].split("</table>")[0]
    gold = re.findall(r"<td>([^<]*)</td>", table.split('class="system gold"')[1])
    assert gold[1] == f"{100 * share:.1f}"
    measured = evaluate(_echo(rows)).text
    assert measured is not None
    assert float(gold[0]) == pytest.approx(measured.mean_tokens, abs=0.05)


def _echo(rows: list[Prediction]) -> list[Prediction]:
    return [replace(row, predicted_text=row.gold_text) for row in rows]


def test_worst_and_best_turns_follow_their_rule(made: Path) -> None:
    system = read_run(made).systems[0]
    (found,) = extreme_turns([system])
    assert [len(turns) for turns in (found.worst, found.best)] == [EXTREMES, EXTREMES]
    scores = sorted(_score(row) for row in system.predictions)
    assert [turn.score for turn in found.worst] == pytest.approx(scores[:EXTREMES])
    assert [turn.score for turn in found.best] == pytest.approx(scores[::-1][:EXTREMES])
    first = found.best[0]
    path = next(c for c in system.conversations if c.id == first.dialogue).trunk
    assert [*first.before, first.turn] == path[max(0, first.number - 3) : first.number]


def _score(row: Prediction) -> float:
    """The rule, on its own: both from the row alone."""
    words = [Counter(make_tokenizer("nltk-words").tokenize(text or "")) for text in (row.gold_text, row.predicted_text)]
    common, length = (words[0] & words[1]).total(), words[0].total() + words[1].total()
    probability = (row.strategy_probabilities or {})[row.gold_strategy or ""]
    return (probability + 2 * common / length) / 2


def test_few_turns_are_never_both_worst_and_best(made: Path) -> None:
    system = read_run(made).systems[0]
    (found,) = extreme_turns([replace(system, predictions=system.predictions[:3])])
    assert [len(turns) for turns in (found.worst, found.best)] == [1, 1]
    assert found.worst[0].score < found.best[0].score


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
    assert len(charts) == 3 + 2 + 4 + 1
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
    _change(run / "recipe.json", lambda recipe: recipe["stages"][9].update(supporter="coupled"))
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
        nothing = dict.fromkeys(("b", "b_interval", "b_floor", "b_debiased", "calibration", "stages"))
        figures["files"]["predict-coupled"]["strategy"].update(nothing)
        figures["files"]["predict-decoupled"].update(strategy=None, text=None)

    _change(run / "evaluate/evaluation.json", unparsed_throughout)
    page = Page(write_report(run))
    assert "<td>–</td>" in page.source
    assert "Calibration" not in page.text
    assert "Sixth of the dialogue" not in page.text.split("Corpus")[0]
    assert "decoupled: worst" not in page.text


@pytest.mark.parametrize("content", [None, "{", "[1]"])
@pytest.mark.parametrize(
    "name",
    [
        *("recipe.json", "corpus.json", "versions.json", "events.jsonl"),
        *("pretrain/curve.jsonl", "evaluate/evaluation.json", "planner-pairs/pairs.json"),
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


def test_figures_that_a_newer_esckit_wrote_are_refused(run: Path) -> None:
    _change(run / "evaluate/evaluation.json", lambda figures: figures.update(format=2))
    with pytest.raises(
        RunError, match=r"evaluation\.json has format 2 and this esckit reads 1: install the esckit that"
    ):
        write_report(run)


def test_a_wrong_field_is_named(run: Path) -> None:
    _change(run / "evaluate/evaluation.json", lambda figures: figures["files"]["predict-coupled"].pop("n"))
    with pytest.raises(
        RunError, match=r"evaluation\.json: files\.predict-coupled\.n: field required; remove stages/evaluate\."
    ):
        write_report(run)


def test_broken_predictions_and_folders_are_named(run: Path, tmp_path: Path) -> None:
    path = run / "predict-coupled/trees.jsonl"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"finish": "stop"', '"finish": "soon"', 1), encoding="utf-8"
    )
    with pytest.raises(
        PredictionsError, match=r'conversation .*, turn .*: finish is "soon": write stop, length or null'
    ):
        write_report(run)
    path.write_text("{}\n", encoding="utf-8")
    with pytest.raises(EsckitError, match=r"trees\.jsonl:1"):
        write_report(run)
    path.unlink()
    with pytest.raises(EsckitError, match=r"trees\.jsonl does not exist"):
        write_report(run)
    with pytest.raises(RunError, match="not a folder"):
        write_report(tmp_path / "nowhere")


def _change(path: Path, change: Any) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"coupled": "c"}, ("coupled",)),
        ({"planner": "p", "generator": "g"}, ("planner", "generator")),
        ({"planner": "p"}, ("planner",)),
        ({"planner": "p", "model": "smollm2"}, ("planner", "model")),
        ({"model": "smollm2"}, ("model",)),
    ],
)
def test_a_report_says_what_a_supporter_is_made_of(keys: dict[str, str], parts: tuple[str, ...]) -> None:
    assert supporter_parts(StageConfig(stage="supporter", name="one", **keys)) == parts
