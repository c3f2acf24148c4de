"""A run that mines judged pairs: each part's by its errors, a chat model that is killed, and what is refused."""

import json
import re
import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.chat_models.ledger import LEDGER
from esckit.conversation import Verdict, read_conversations, write_conversations
from esckit.errors import ChatError, CorpusError, EsckitError, ModelError
from esckit.judging import embedded_annotator
from esckit.judging.annotation import RUBRIC
from esckit.judging.evidence import Case
from esckit.mining.judged_pairs import ROUTES
from esckit.mining.pairs import Pair, kind_of
from esckit.prompts.own import read_prompts
from esckit.recipes.recipe import Recipe
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from esckit.recipes.stages.mine import SAMPLED
from esckit.recipes.trees import TREES
from esckit.rendering import Part
from tests.children import KILL, Ended, Signal, esckit
from tests.recipes.tiny import shorten
from tests.server import FAULTY, KEY, MODEL, Behaviour, ChatServer, draw
from tests.test_prompts_own import write
from tests.tiny import save_base, starter_dialogues

RECIPE: Final = """
format: 1
corpus: {{name: tree, train: {folder}/train.jsonl, valid: {folder}/valid.jsonl}}
model: {{path: {folder}/base}}
stages:
  - {{stage: sft, name: planner-sft, part: planner, past_strategies: hidden, epochs: 1, lora: {{r: 2, dropout: 0}}}}
  - {{stage: sft, name: generator-sft, part: generator, past_strategies: hidden, epochs: 1, lora: {{r: 2, dropout: 0}}}}
  - {{stage: sft, name: coupled-sft, part: coupled, past_strategies: gold, epochs: 1, lora: {{r: 2, dropout: 0}}}}
  - {{stage: mine, name: planner-pairs, model: planner-sft, rule: judged, wording: generator-sft, samples: 3,
      max_new_tokens: 6}}
  - {{stage: mine, name: generator-pairs, model: generator-sft, rule: judged, samples: 3, max_new_tokens: 6}}
  - {{stage: mine, name: coupled-pairs, model: coupled-sft, rule: judged, samples: 3, max_new_tokens: 6}}
  - {{stage: preference, name: planner-dpo, start: planner-sft, pairs: planner-pairs}}
  - {{stage: preference, name: generator-dpo, start: generator-sft, pairs: generator-pairs}}
  - {{stage: preference, name: coupled-dpo, start: coupled-sft, pairs: coupled-pairs, kinds: [NsNr, PsNr]}}
"""
MINED: Final[tuple[Part, ...]] = ("planner", "generator", "coupled")


class Drawing:
    """An annotator that draws its verdicts by what the reply says, and calls people clean."""

    judge = "drawing@1"

    def __init__(
        self, outcomes: Sequence[str | None] = (None, *3 * ROUTES["planner"], *ROUTES["generator"], "other")
    ) -> None:
        self.outcomes = outcomes

    def verdicts(self, groups: Sequence[Sequence[Case]]) -> Generator[list[Verdict | None], None, None]:
        for cases in groups:
            yield [Verdict(self.judge, RUBRIC, self.drawn(case.response), explanation="Why.") for case in cases]

    def drawn(self, text: str) -> str | None:
        return None if text.endswith((".", "?", "!")) else self.outcomes[int(draw(text) * len(self.outcomes))]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny corpus and base, the recipe, and in ``tuned`` its run up to the first mine stage."""
    folder = tmp_path_factory.mktemp("judged")
    dialogues = [shorten(conversation, 6) for conversation in starter_dialogues(6, 6)]
    write_conversations(folder / "train.jsonl", dialogues[:4])
    write_conversations(folder / "valid.jsonl", dialogues[4:])
    save_base(folder / "base")
    (folder / "judged.yaml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
    recipe = load_recipe(str(folder / "judged.yaml"))
    plain = recipe.model_copy(update={"stages": recipe.stages[:3]})
    run(plain, folder / "tuned")
    return folder


@pytest.fixture
def out(place: Path, tmp_path: Path) -> Path:
    """A run that is about to mine."""
    return Path(shutil.copytree(place / "tuned", tmp_path / "run"))


def annotator(patch: pytest.MonkeyPatch, *outcomes: str | None) -> None:
    judge = Drawing(outcomes) if outcomes else Drawing()
    patch.setattr(embedded_annotator, "load_annotator", lambda source: judge)


def recipe_of(place: Path, *settings: str, stages: int = 9) -> Recipe:
    recipe = load_recipe(str(place / "judged.yaml"), list(settings))
    return recipe.model_copy(update={"stages": recipe.stages[:stages]})


def record(out: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "stages" / f"{stage}.json").read_text(encoding="utf-8"))
    return found


def test_each_part_is_aligned_on_the_pairs_of_its_errors(
    place: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotator(monkeypatch)
    run(recipe_of(place), out)
    for part in MINED:
        trees = read_conversations(out / f"{part}-pairs" / TREES)
        pairs = [(tree, preference) for tree in trees for preference in tree.preferences]
        facts = record(out, f"{part}-pairs")["facts"]
        assert Counter(preference.reason for _, preference in pairs) == facts["reasons"]
        assert set(facts["reasons"]) <= set(ROUTES[part])
        assert facts["pairs"] == len(pairs) == sum(facts["reasons"].values()) > 0
        assert facts["kept"] == pytest.approx(facts["pairs"] / facts["sampled"], abs=1e-4)
        assert set(facts["gold_judged"]) == {"none"}
        candidates = [turn for tree in trees for turn in tree.turns if turn.source == f"{part}-sft"]
        assert sum(facts["judged"].values()) == len(candidates)
        assert all(len(turn.verdicts) == 1 for turn in candidates)
        assert {preference.judge for _, preference in pairs} == {"drawing@1"}
    worded = [turn for tree in read_conversations(out / "planner-pairs" / TREES) for turn in tree.turns if turn.extra]
    assert worded
    assert {turn.extra["worded_by"] for turn in worded} == {"generator-sft"}
    kinds = record(out, "coupled-pairs")["facts"]["kinds"]
    assert set(kinds) >= {"NsNr", "NsPr"}
    assert record(out, "coupled-dpo")["facts"]["pairs"] == kinds["NsNr"] + kinds.get("PsNr", 0)
    assert {kind_of(Pair(tree, p)) for tree in trees for p in tree.preferences} == set(kinds)


def test_judging_that_was_stopped_does_not_sample_again(
    place: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(place, stages=4)
    annotator(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(Drawing, "drawn", lambda self, text: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(recipe, out)
    sampled = (out / "planner-pairs" / SAMPLED).stat()
    run(recipe, out)
    assert (out / "planner-pairs" / SAMPLED).stat().st_mtime_ns == sampled.st_mtime_ns
    assert record(out, "planner-pairs")["facts"]["pairs"] > 0


@pytest.mark.parametrize(
    ("outcome", "stages", "sentence"),
    [
        (
            None,
            7,
            "stage 'planner-pairs' kept no preference pair: set its clean_chosen to false, take another annotator",
        ),
        ("strategy_mismatch", 9, "stage 'coupled-dpo' finds no pair of its kinds among the "),
    ],
)
def test_training_on_no_pair_says_what_to_change(
    outcome: str | None, stages: int, sentence: str, place: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotator(monkeypatch, outcome)
    recipe = recipe_of(place, stages=stages)
    wanted = [stage for stage in recipe.stages if stage.stage != "preference" or stage.name in sentence or stages == 7]
    with pytest.raises(CorpusError) as error:
        run(recipe.model_copy(update={"stages": wanted}), out)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        (["annotator.model=nowhere"], ModelError, "nowhere/annotator.json does not exist: give the path of"),
        (["annotator.model=remote:m"], ChatError, "OPENAI_API_KEY is not set: export the key for https://api.openai"),
        (["annotator.model=remote:m", "annotator.base_url=here"], ChatError, "'here' is no base URL"),
        (
            ["annotator.model=remote:m", "annotator.prompts=nowhere"],
            EsckitError,
            "the prompts folder nowhere cannot be read (No such file or directory): give a folder as esckit prompts",
        ),
    ],
)
def test_an_annotator_that_cannot_be_had_is_refused_before_anything_is_written(
    settings: list[str],
    error: type[EsckitError],
    sentence: str,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("esckit.chat_models.remote._check_installed", lambda: None)
    with pytest.raises(error) as told:
        run(recipe_of(place, *settings), tmp_path / "run")
    assert sentence in str(told.value)
    assert not (tmp_path / "run").exists()


def test_dialogues_that_the_embedded_annotator_does_not_read_are_refused(place: Path, tmp_path: Path) -> None:
    conversations = read_conversations(place / "train.jsonl")
    path = tmp_path / "zh.jsonl"
    write_conversations(path, [replace(conversation, language="zh") for conversation in conversations])
    with pytest.raises(EsckitError, match="reads English alone and there are dialogues in zh"):
        run(recipe_of(place, f"corpus.train={path}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_budget_is_no_other_setting_and_another_annotator_is(
    place: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ChatServer() as server:
        asked = [f"annotator.model=remote:{MODEL}", f"annotator.base_url={server.url}"]
        with pytest.raises(EsckitError, match=r"budget_calls 3 is used up with 3 of \d+ items answered: raise it"):
            run(recipe_of(place, *asked, "annotator.budget_calls=3", stages=4), out)
        run(recipe_of(place, *asked, stages=4), out)
        assert max(server.asked.values()) == 1
        calls = server.calls
        with pytest.raises(EsckitError, match=r"'planner-pairs' in .* was run with other settings"):
            run(recipe_of(place, *asked, "annotator.base_url=http://127.0.0.1:1/v1", stages=4), out)
        run(recipe_of(place, *asked, "planner-pairs.clean_chosen=false", stages=4), out, fresh=True)
        assert server.calls == calls, "the answers stay where a stage is done again"
    text = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert KEY.encode() not in text


def test_an_annotators_own_prompts_are_part_of_what_is_mined(
    place: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    own = {"psychological_errors__criteria": "Finde Fehler.\n{{examples}}"}
    write(tmp_path / "mine", **own)
    write(tmp_path / "moved", **own)
    with ChatServer() as server:
        asked = [f"annotator.model=remote:{MODEL}", f"annotator.base_url={server.url}"]
        run(recipe_of(place, *asked, f"annotator.prompts={tmp_path / 'mine'}", stages=4), out)
        assert {body["messages"][0]["content"].split("\n")[0] for body in server.bodies} == {"Finde Fehler."}
        calls = server.calls
        moved = recipe_of(place, *asked, f"annotator.prompts={tmp_path / 'moved'}", stages=4)
        run(moved, out)
        assert server.calls == calls, "the words count, not where they are"
        write(tmp_path / "moved", psychological_errors__criteria="Finde alle Fehler.\n{{examples}}")
        for other in (moved, recipe_of(place, *asked, stages=4)):
            with pytest.raises(EsckitError, match=r"'planner-pairs' in .* was run with other settings"):
                run(other, out)
    digest = read_prompts(tmp_path / "mine", "psychological_errors").digest
    judges = {
        v.judge for tree in read_conversations(out / "planner-pairs" / TREES) for t in tree.turns for v in t.verdicts
    }
    assert [judge.split("+")[1] for judge in judges] == [f"prompts-{str(digest)[:8]}"]


def test_a_run_that_is_killed_while_a_chat_model_judges_ends_as_if_it_had_not_been(place: Path, tmp_path: Path) -> None:
    """A SIGKILL and a Ctrl-C, faults on a fifth of all calls, at the same URL each time."""
    faulty = Behaviour(FAULTY.delay, FAULTY.call_faults, 0.15, hang=0.2)
    runs = {name: Path(shutil.copytree(place / "tuned", tmp_path / name / "run")) for name in ("whole", "killed")}
    with ChatServer(faulty) as server:
        whole = mine_by(server, place, runs["whole"])
        calls = server.calls
    assert whole.code == 0, whole.errors
    with ChatServer(faulty, server.port) as server:
        for moment, event, code in STOPS:
            stopped = mine_by(server, place, runs["killed"], moment, event)
            assert stopped.code == code, stopped.errors
        last = mine_by(server, place, runs["killed"])
        assert last.code == 0, last.errors
        assert server.calls <= calls + 2 * AT_ONCE
    for part in ("generator", "planner"):
        one, other = (folder / f"{part}-pairs" / TREES for folder in runs.values())
        assert one.read_bytes() == other.read_bytes()
        facts = record(runs["whole"], f"{part}-pairs")["facts"]
        assert facts == record(runs["killed"], f"{part}-pairs")["facts"]
        assert facts["pairs"] > 0
    assert re.search(rf"{MODEL}@\w+: \d+ questions to ask \(0 on record\), about [\d,]+ prompt tokens", whole.errors)
    assert re.search(rf"{MODEL}: \d+ items \(\d+ on record; .*retries", last.errors)
    states = {name: sorted(rows(folder / LEDGER, "key, state", "items")) for name, folder in runs.items()}
    assert states["whole"] == states["killed"]
    ends = [(stopped, ended is not None) for stopped, ended in rows(runs["killed"] / LEDGER, "stopped, ended", "runs")]
    # Runs that came to their end may be fewer: where every answer was on record at the stop, the next asks for none.
    assert [end for end in ends if end != (None, True)] == [(None, False), ("interrupted", True)]
    assert {state for _, state in states["whole"]} > {"done"}, "faults of replies left other states, too"


AT_ONCE: Final = 4
STOPS: Final = (
    ("generator-pairs judged: 1 of 4", KILL, -signal.SIGKILL),
    ("planner-pairs judged: 2 of 4", Signal(signal.SIGINT), 130),
)


def mine_by(server: ChatServer, place: Path, folder: Path, at: str = "", event: Signal = KILL) -> Ended:
    recipe = place / "remote.yaml"
    lines = RECIPE.format(folder=place).splitlines()
    first = next(number for number, line in enumerate(lines) if "planner-pairs" in line)
    text = "\n".join([*lines[:first], lines[first + 2], *lines[first : first + 2]])
    recipe.write_text(text, encoding="utf-8")
    settings = [f"model=remote:{MODEL}", f"base_url={server.url}", f"concurrency={AT_ONCE}"]
    command: list[str | Path] = ["run", recipe, "--out", folder]
    for setting in settings:
        command += ["--set", f"annotator.{setting}"]
    command += ["--set", "planner-pairs.samples=1", "--set", "generator-pairs.samples=1"]
    return esckit(command, folder.parent, at=at, event=event, environment={"OPENAI_API_KEY": KEY})


def rows(ledger: Path, columns: str, table: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(ledger)) as database:
        return database.execute(f"SELECT {columns} FROM {table}").fetchall()
