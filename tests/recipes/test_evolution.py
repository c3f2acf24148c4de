"""Rounds of self-evolution in a recipe: disjoint dialogues, the stop rule, what is skipped, what is another run."""

import json
import random
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.conversation import read_conversations
from esckit.errors import ModelError, RecipeError, RunError
from esckit.files import hash_file
from esckit.recipes.folder import RunFolder
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import load_checked, run
from tests.children import esckit
from tests.cli.test_entry import call
from tests.recipes.evolved import GOES_ON, write_evolution
from tests.server import FAULTY, KEY, MODEL, ChatServer
from tests.tiny import one_thread

SPOILED: Final = ["dpo-1.learning_rate=10"]
"""No policy survives such steps."""

SECOND: Final = ["refined-2", "dpo-2", "evolved-2", "predict-evolved-2"]
"""Stages of the second round that a stop in the first one skips."""


def record(out: Path, stage: str) -> dict[str, Any]:
    return dict(json.loads((out / f"stages/{stage}.json").read_text(encoding="utf-8")))


def files(folder: Path) -> dict[str, str]:
    """What each file holds, but for records, which say how long a stage took."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.name != "stages")
    return {str(path.relative_to(folder)): hash_file(path) for path in found}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evolution")
    write_evolution(folder)
    return folder


@pytest.fixture(scope="module")
def stopped(place: Path) -> Path:
    """A run whose first round made the policy worse."""
    with one_thread():
        run(load_recipe(str(place / "evolution.yaml"), SPOILED), place / "stopped")
    return place / "stopped"


@pytest.fixture(scope="module")
def gone_on(place: Path, stopped: Path) -> Path:
    """The same folder's copy under a rule that only tells, run afresh from there on."""
    out = shutil.copytree(stopped, place / "gone-on")
    recipe = load_recipe(str(place / "evolution.yaml"), [*SPOILED, *GOES_ON])
    with pytest.raises(RunError, match=r"stage 'kept-1' in .* was run with other settings"):
        run(recipe, out)
    with one_thread():
        run(recipe, out, fresh=True)
    return out


# -------------------------------------------------------------------------------------------------------- the stop rule


def test_a_policy_that_is_made_worse_is_not_kept(stopped: Path) -> None:
    told = json.loads((stopped / "kept-1/keep.json").read_text())
    assert told["values"]["candidate"] < told["values"]["before"]
    assert (told["better"], told["stopped"], told["kept"]) == (False, True, "sft")
    adapters = [files(stopped / name / "coupled") for name in ("sft", "kept-1", "kept-2", "dpo-1")]
    assert adapters[0] == adapters[1] == adapters[2] != adapters[3]
    assert adapters[0].keys() >= {"adapter_config.json", "adapter_model.safetensors"}
    assert files(stopped / "last/coupled") == files(stopped / "first/coupled"), "and is what a later stage reads"


def test_later_rounds_are_skipped_and_say_why(stopped: Path) -> None:
    why = record(stopped, "kept-1")["facts"]["why"]
    assert why.startswith("dpo-1 is not above sft by f1_utterance (difference -1.")
    for name in SECOND:
        assert (record(stopped, name)["state"], record(stopped, name)["facts"]) == ("skipped", {"why": why})
        assert not (stopped / name).exists()
    assert record(stopped, "kept-2")["facts"] == {"kept": "kept-1", "stopped": True, "why": why}
    states = {path.stem: record(stopped, path.stem)["state"] for path in (stopped / "stages").iterdir()}
    assert {name for name, state in states.items() if state != "done"} == {*SECOND}


def test_skipped_predictions_are_passed_over(stopped: Path) -> None:
    evaluation = json.loads((stopped / "evaluate/evaluation.json").read_text())
    assert [*evaluation["files"]] == ["predict", "predict-evolved-1"]


def test_the_same_command_does_nothing_again(
    place: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(stopped), {path.name: path.read_bytes() for path in (stopped / "stages").iterdir()}
    monkeypatch.setattr(RunFolder, "begin", lambda self, stage: pytest.fail(f"{stage.name} begins"))
    run(load_recipe(str(place / "evolution.yaml"), SPOILED), stopped)
    assert (files(stopped), {path.name: path.read_bytes() for path in (stopped / "stages").iterdir()}) == before
    assert "skipped" not in capsys.readouterr().err


def test_skipping_is_said_once(place: Path, tmp_path: Path, stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shutil.copytree(stopped, tmp_path / "run")
    (out / "stages/predict-evolved-2.json").unlink()
    run(load_recipe(str(place / "evolution.yaml"), SPOILED), out)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert line == f"esckit: predict-evolved-2 is skipped: {record(stopped, 'kept-1')['facts']['why']}."


# --------------------------------------------------------------------------------------------------------------- rounds


def test_a_rule_that_only_tells_goes_on_from_where_it_differs(stopped: Path, gone_on: Path) -> None:
    told = json.loads((gone_on / "kept-1/keep.json").read_text())
    assert (told["better"], told["stopped"], told["kept"]) == (False, False, "dpo-1")
    for name in ("sft", "refined-1", "dpo-1"):
        assert record(gone_on, name) == record(stopped, name), "which is not run again"
    for name in (*SECOND, "kept-2"):
        assert record(gone_on, name)["state"] == "done"
    assert files(gone_on / "kept-1/coupled") == files(gone_on / "dpo-1/coupled")
    assert files(gone_on / "last/coupled") == files(gone_on / "dpo-2/coupled")
    assert len(json.loads((gone_on / "evaluate/evaluation.json").read_text())["files"]) == 3


def test_no_dialogue_is_taken_twice(place: Path, gone_on: Path) -> None:
    train = [tree.id for tree in read_conversations(place / "train.jsonl")]
    rounds = [read_conversations(gone_on / f"refined-{turn}/trees.jsonl") for turn in (1, 2)]
    by = [{tree.id: tree.provenance["refined"] for tree in trees} for trees in rounds]
    assert [len(each) for each in by] == [2, 4]
    assert {name for name, who in by[1].items() if who.keys() == {"sft"}} == by[0].keys()
    assert {name for name, who in by[1].items() if who.keys() == {"kept-1"}} == {*train} - by[0].keys()
    assert [[tree.id for tree in trees] for trees in rounds][1] == train, "in the corpus's order"
    facts = [record(gone_on, f"refined-{turn}")["facts"] for turn in (1, 2)]
    assert [each["round"] for each in facts] == [1, 2]
    pairs = [sum(len(tree.preferences) for tree in trees) for trees in rounds]
    assert pairs == [facts[0]["pairs"], facts[0]["pairs"] + facts[1]["pairs"]], "earlier ones stand in the trees"
    trained = [record(gone_on, f"dpo-{turn}")["facts"]["pairs"] for turn in (1, 2)]
    assert trained == [each["pairs"] for each in facts], "and each round trains on its own"
    for turn in (1, 2):
        assert json.loads((gone_on / f"refined-{turn}/pairs.json").read_text())["pairs"] == facts[turn - 1]["pairs"]


def test_filters_are_among_the_run_s_events(gone_on: Path) -> None:
    rows = [json.loads(line) for line in (gone_on / "events.jsonl").read_text().splitlines()]
    events = {(row["stage"], row["event"]): row["count"] for row in rows}
    told = json.loads((gone_on / "refined-1/refinement.json").read_text())
    assert told["filters"]["first turn"] == events["refined-1", "no pair: first turn"] == 2
    assert ("refined-1", "no pair: danger") not in events


# ----------------------------------------------------------------------------------------------------------- identities


def identities(place: Path, *settings: str) -> dict[str, str]:
    recipe = load_recipe(str(place / "evolution.yaml"), settings)
    folder = RunFolder(recipe, place / "nowhere", recipe.corpus.load())
    return {stage.name: folder.identity(stage) for stage in recipe.stages}


ROUND: Final = ["refined", "dpo", "kept", "evolved", "predict-evolved"]
AFTER: Final = ["last", "evaluate"]


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        (["refined-1.near_equal=0.5"], [f"{name}-{turn}" for turn in (1, 2) for name in ROUND] + AFTER),
        (["dpo-1.beta=0.2"], [*(f"{name}-1" for name in ROUND[1:]), *(f"{name}-2" for name in ROUND), *AFTER]),
        (["kept-1.bar=point"], ["kept-1", *(f"{name}-2" for name in ROUND), *AFTER]),
        (["refined-2.near_equal=0.5"], [*(f"{name}-2" for name in ROUND), *AFTER]),
        (["kept-2.bar=point"], ["kept-2", "last"]),
        (["refined.refiner.concurrency=4", "refined.refiner.budget_calls=9"], []),
        (["kept.metric=null", "kept.judge={model: embedded}"], ["kept-1", *(f"{name}-2" for name in ROUND), *AFTER]),
    ],
    ids=str,
)
def test_a_round_is_another_one_where_the_round_before_is_and_only_then(
    settings: list[str], changed: list[str], place: Path
) -> None:
    before, after = identities(place), identities(place, *settings)
    assert {name for name in before if before[name] != after[name]} == {*changed}


JUDGED: Final = [
    "kept.metric=null",
    "kept.judge={model: 'remote:m', base_url: 'http://127.0.0.1:9/v1'}",
    "refined.accept={model: 'remote:m', base_url: 'http://127.0.0.1:9/v1'}",
]


def test_rubrics_and_prompts_of_one_s_own_count_by_their_texts(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    rubrics, prompts = tmp_path / "rubrics", tmp_path / "prompts"
    rubrics.mkdir()
    (prompts / "self_refinement").mkdir(parents=True)
    shipped = Path(load_recipe.__code__.co_filename).parents[1]
    rubric = next((shipped / "judging/rubrics/decoupled-esc").glob("*.yaml"))
    text = rubric.read_text(encoding="utf-8")
    (rubrics / rubric.name).write_text(text, encoding="utf-8")
    (prompts / "self_refinement/given.txt").write_text("Take {{strategy}}: {{definition}}", encoding="utf-8")
    own = [*JUDGED, f"kept.judge.rubrics={rubrics}", f"refined.refiner.prompts={prompts}"]
    known = identities(place, *own)
    assert known == identities(place, *own)
    moved = shutil.copytree(rubrics, tmp_path / "moved")
    assert known == identities(place, *own, f"kept.judge.rubrics={moved}"), "where they stand does not matter"
    (rubrics / rubric.name).write_text(text.replace("question: ", "question: Again, "), encoding="utf-8")
    other = identities(place, *own)
    assert known["refined-1"] == other["refined-1"]
    assert known["kept-1"] != other["kept-1"]
    (prompts / "self_refinement/given.txt").write_text("Follow {{strategy}}: {{definition}}", encoding="utf-8")
    assert identities(place, *own)["refined-1"] != other["refined-1"]


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        (
            ["refined.dialogues=3"],
            RunError,
            "stage 'refined-2' has too few dialogues left: earlier rounds take 3 of 4; set dialogues to 2 at most, or "
            "reuse to true.",
        ),
        (["refined.dialogues=null"], RunError, "earlier rounds take 4 of 4; set dialogues to 2 at most"),
        (["refined-1.dialogues=9"], RunError, "earlier rounds take 4 of 4; set dialogues to 2 at most"),
        (["rounds.times=5"], RunError, "stage 'refined-3' has too few dialogues left: earlier rounds take 4 of 4"),
        (
            ["refined.refined_by=model", "refined.refiner.model=/nowhere"],
            ModelError,
            "/nowhere is no chat model: give the folder or the Hub id of one, smollm2, or remote:MODEL.",
        ),
        (["refined.accept={model: /nowhere}"], Exception, "/nowhere"),
        (["refined.accept={model: embedded, rubrics: none-such}"], Exception, "none-such"),
        (["predict.split=valid"], None, ""),  # the sft stage's policy, which nothing decided on
        (["predict-evolved-2.split=valid"], RunError, "predicts valid, which keep stage 'kept-1' is fitted to"),
        (["refined.dialogues=1", "rounds.times=4"], None, ""),
        (["refined.dialogues=4", "refined.reuse=true"], None, ""),
    ],
    ids=str,
)
def test_what_would_fail_after_hours_is_refused_at_once(
    settings: list[str], error: type[Exception] | None, sentence: str, place: Path
) -> None:
    settings = [*settings, "evaluate.predictions=[predict]"]
    if error is None:
        load_checked(load_recipe(str(place / "evolution.yaml"), settings))
        return
    with pytest.raises(error) as raised:
        load_checked(load_recipe(str(place / "evolution.yaml"), settings))
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["refined.refined_by=model"], "refined-1: refined_by: model needs one: set refiner.model (remote:NAME, a fol"),
        (["refined.refiner.model=remote:m"], "refiner.model remote:m is not asked: set refined_by to model"),
        (["refined.budget_calls=1", "refined.rejected_from=first"], "a context takes 2 questions: raise budget_calls"),
        (["refined.refined_by=gold"], "refined-1.refined_by: input should be 'policy', 'model' or 'people'"),
        (["refined.mode=theirs"], "refined-1.mode: input should be 'ours' or 'paper'"),
        (["refined.near_equal=2"], "refined-1.near_equal: input should be less than or equal to 1"),
        (["refined.model=predict"], "'refined-1' needs an earlier sft or preference or keep stage named 'predict'"),
        (["refined-2.trees=dpo-1"], "'refined-2' needs an earlier mine or search or refine stage named 'dpo-1'"),
        (["refined-2.model=sft"], "stages 'refined-1' and 'refined-2' refine the drafts of one policy"),
        (
            ["sft.part=planner"],
            "stage 'refined-1' refines replies, and a planner has none: name a coupled part's stage",
        ),
        (["refined.patern=true"], "unknown key 'refined-1.patern': did you mean 'patterns'?"),
    ],
    ids=str,
)
def test_wrong_keys_get_one_sentence(settings: list[str], sentence: str, place: Path) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(str(place / "evolution.yaml"), settings)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_name_stands_for_one_stage(place: Path, tmp_path: Path) -> None:
    text = (place / "evolution.yaml").read_text(encoding="utf-8")
    (tmp_path / "twice.yaml").write_text(
        text.replace("name: first, coupled", "name: kept-2, coupled"), encoding="utf-8"
    )
    with pytest.raises(RecipeError, match="stage name 'kept-2' is taken"):
        load_recipe(str(tmp_path / "twice.yaml"))


def test_bad_input_ends_with_code_2_and_leaves_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    code = call(monkeypatch, "run", place / "evolution.yaml", "--out", out, "--set", "refined.dialogues=3")
    (line,) = capsys.readouterr().err.splitlines()
    assert (code, line[:57]) == (2, "esckit: stage 'refined-2' has too few dialogues left: ear")
    assert not out.exists()


# ---------------------------------------------------------------------------------------------- in the slow tier: kills


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "killed"),
    [
        (GOES_ON, ["refined-1", "dpo-1", "kept-1", "refined-2", "dpo-2", "kept-2"]),
        (SPOILED, ["kept-1", "refined-2", "kept-2", "predict-evolved-2"]),
    ],
    ids=["two rounds", "a stop"],
)
def test_a_run_that_is_killed_in_any_round_and_stage_ends_as_if_it_had_not_been(
    settings: list[str], killed: list[str], place: Path, tmp_path: Path
) -> None:
    """A moment of each stage is drawn from those of an uninterrupted run."""
    given = [word for setting in settings for word in ("--set", setting)]
    whole, other = tmp_path / "whole", tmp_path / "other"
    command: list[str | Path] = ["run", place / "evolution.yaml", *given, "--out"]
    reference = esckit([*command, whole / "run"], whole)
    assert reference.code == 0, reference.errors
    for stage in killed:
        own = re.compile(rf"((write|rename|mkdir|remove) run/(stages/)?\.?)?{stage}\b.*")
        at = random.Random(stage).choice([*filter(own.fullmatch, reference.moments)])
        assert esckit([*command, other / "run"], other, at=at).code == -signal.SIGKILL, at
    last = esckit([*command, other / "run"], other)
    assert last.code == 0, last.errors
    paths = [sorted(path.relative_to(out) for path in out.rglob("*")) for out in (whole / "run", other / "run")]
    assert paths[0] == paths[1]
    for path in (path for path in paths[0] if path.suffix not in ("", ".sqlite") and path.parent.name != "stages"):
        said = (other / "run" / path).read_bytes().replace(str(other).encode(), str(whole).encode())
        assert said == (whole / "run" / path).read_bytes(), path
    for path in (whole / "run/stages").iterdir():
        one, two = record(whole / "run", path.stem), record(other / "run", path.stem)
        assert {**two, "seconds": one["seconds"]} == one


@pytest.mark.slow
@pytest.mark.parametrize("refiner", ["policy", "model"])
def test_whoever_refines_every_context_is_accounted_for(
    refiner: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy itself, which knows no JSON, and a server with faults."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ChatServer(replace(FAULTY, hang=0.1)) as server:
        asked = {"policy": ["refined.refiner.decoding={max_new_tokens: 200}"]}.get(
            refiner, [f"refined.refiner={{model: 'remote:{MODEL}', base_url: '{server.url}'}}"]
        )
        settings = [*GOES_ON, f"refined.refined_by={refiner}", "refined.mode=paper", *asked, "refined.skip_first=0"]
        run(load_recipe(str(place / "evolution.yaml"), settings), tmp_path)
    for turn, model in ((1, "sft"), (2, "kept-1")):
        told = json.loads((tmp_path / f"refined-{turn}/refinement.json").read_text())
        assert told["refiner"] == (model if refiner == "policy" else MODEL)
        assert told["calls"]["draft"] == told["contexts"] > 0
        taken = sum(count for name, count in told["filters"].items() if name not in ("first turn", "last turns"))
        assert told["pairs"] + taken - told["filters"]["not after the seeker"] == told["contexts"]
        assert told["calls"]["refine"] == told["contexts"] - told["filters"]["empty draft"]
        assert told["tokens"]["completion"] > 0
