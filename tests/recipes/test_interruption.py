"""A run that is stopped anywhere continues with the same command, to what an uninterrupted run makes, byte for byte."""

import errno
import json
import os
import random
import re
import signal
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from esckit.conversation import read_conversations
from tests.children import KILL, Ended, Refusal, Signal, esckit, finish, start, wait_for
from tests.recipes.tiny import write_tiny

STAGES: Final = """stages:
  - {stage: pretrain, name: pretrain, epochs: 2, batch_size: 8, learning_rate: 1.0e-3, checkpoint_seconds: 0}
  - {stage: sft, name: sft, part: coupled, past_strategies: gold, epochs: 2, batch_size: 4, lora: {dropout: 0},
      checkpoint_seconds: 0}
  - {stage: mine, name: pairs, model: sft, folds: 2, max_new_tokens: 6}
  - {stage: preference, name: dpo, start: sft, pairs: pairs, epochs: 2, batch_size: 4, lora: {dropout: 0},
      checkpoint_seconds: 0}
  - {stage: supporter, name: aligned, coupled: dpo}
  - {stage: predict, name: predictions, supporter: aligned, split: train, wording: {max_new_tokens: 6}}
"""
KILLED: Final = ("pretrain", "sft", "pairs", "dpo", "predictions")
REFUSALS: Final = {
    "write run/sft/coupled/adapter_config.json": Refusal(errno.ENOSPC),  # a library's own writing
    "write run/dpo/checkpoints/checkpoint-4/trainer_state.json": Refusal(errno.ENOSPC),
    "write run/.aligned.esckit-new/base/config.json": Refusal(errno.EROFS),
}


class Plan(NamedTuple):
    """Stages that are killed, how often each is, and moments at which the disk refuses."""

    killed: tuple[str, ...]
    times: int
    refused: tuple[str, ...]


FEW: Final = Plan(("pairs", "dpo"), 1, tuple(REFUSALS)[:1])
MANY: Final = Plan(KILLED, 3, tuple(REFUSALS))


class Stop(NamedTuple):
    """What happened to a process, when, and how it ended."""

    at: str
    event: Signal | Refusal
    end: Ended


class Runs(NamedTuple):
    """Two runs of one recipe: one that nothing stopped, and one that was stopped again and again.

    Attributes:
        plan: of the second.
        whole, stopped: their folders.
        stops: of the second.
        last: how its last process ended.
    """

    plan: Plan
    whole: Path
    stopped: Path
    stops: list[Stop]
    last: Ended

    @property
    def ends(self) -> list[Ended]:
        """How each process ended."""
        return [*(stop.end for stop in self.stops), self.last]


def write_recipe(folder: Path) -> Path:
    path = write_tiny(folder)
    recipe = path.read_text(encoding="utf-8")
    path.write_text(recipe[: recipe.index("stages:")] + STAGES, encoding="utf-8")
    return path


def stage_of(moment: str) -> str:
    """The stage whose folder, progress or record a moment is about."""
    found = re.match(r"(?:[a-z]+ run/(?:stages/)?\.?)?([a-z]+)", moment)
    return found[1] if found else ""


def draw_moments(moments: list[str], seed: int, plan: Plan) -> list[str]:
    """Moments of each stage, from those that come once."""
    found = []
    for stage in plan.killed:
        own = [m for m in moments if stage_of(m) == stage and moments.count(m) == 1 and not m.startswith("read")]
        found += random.Random(f"{seed}:{stage}").sample(own, plan.times)
    return found


@pytest.fixture(
    scope="module", params=[pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)]
)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """All that is looked at below: five processes, and twenty in the slow tier."""
    plan: Plan = request.param
    folder = tmp_path_factory.mktemp("interruption")
    recipe = write_recipe(folder)
    whole, stopped = folder / "whole", folder / "stopped"
    reference = esckit(["run", recipe, "--out", whole / "run"], whole)
    assert reference.code == 0, reference.errors
    kills = dict.fromkeys(draw_moments(reference.moments, 0, plan), KILL)
    events: dict[str, Signal | Refusal] = {**kills, **{at: REFUSALS[at] for at in plan.refused}}
    command = ["run", str(recipe), "--out", str(stopped / "run")]
    stops = [
        Stop(at, event, esckit(command, stopped, at=at, event=event))
        for at, event in sorted(events.items(), key=lambda stop: reference.moments.index(stop[0]))
    ]
    return Runs(plan, whole / "run", stopped / "run", stops, esckit(command, stopped))


def test_every_kill_landed_inside_its_stage(runs: Runs) -> None:
    kills = [stop for stop in runs.stops if isinstance(stop.event, Signal)]
    assert [stop.end.code for stop in kills] == [-signal.SIGKILL] * (len(runs.plan.killed) * runs.plan.times)
    assert [stop.end.moments[-1] for stop in kills] == [stop.at for stop in kills]
    assert [stage_of(stop.at) for stop in kills] == [
        stage for stage in runs.plan.killed for _ in range(runs.plan.times)
    ]
    assert runs.last.code == 0, runs.last.errors


def test_a_disk_that_is_full_or_read_only_is_said_in_a_sentence(runs: Runs) -> None:
    refused = [stop for stop in runs.stops if isinstance(stop.event, Refusal)]
    assert len(refused) == len(runs.plan.refused)
    for stop, place in zip(refused, ("sft", "dpo/checkpoints/checkpoint-4", "aligned"), strict=False):
        *_, sentence = stop.end.errors.splitlines()
        reason = os.strerror(stop.event.number)
        place = str(runs.stopped / place)
        assert sentence.startswith(f"esckit: {place} cannot be written ("), stop.end.errors
        assert f"({reason})" in sentence
        assert sentence.endswith("): free space or choose another place, then run again.")
        assert "Traceback" not in stop.end.errors
        assert stop.end.code == 2


def test_what_was_done_is_not_done_again(runs: Runs) -> None:
    """After a stop in the middle of counted work, the next process begins with the step at hand, or the one after."""
    looked_at = 0
    for end, following in zip(runs.ends, runs.ends[1:], strict=False):
        for title, (_, done, total) in steps(end).items():
            if title in steps(following) and done < total:
                looked_at += 1
                assert steps(following)[title][0] in (done, done + 1), title
    assert looked_at >= max(1, len(runs.plan.killed) * runs.plan.times // 3)


def steps(end: Ended) -> dict[str, tuple[int, int, int]]:
    """By title, the first and the last step that a process counted, and how many there are."""
    found: dict[str, tuple[int, int, int]] = {}
    for moment in end.moments:
        if counted := re.fullmatch(r"(.*): (\d+) of (\d+)", moment):
            title, done, total = counted[1], int(counted[2]), int(counted[3])
            found[title] = (found.get(title, (done,))[0], done, total)
    return found


def test_everything_that_was_made_is_equal(runs: Runs) -> None:
    """Weights, trees with their preferences, predictions, curves, counts: every file but those that hold times."""
    files = {folder: sorted(p.relative_to(folder) for p in folder.rglob("*")) for folder in (runs.whole, runs.stopped)}
    assert files[runs.stopped] == files[runs.whole], "nothing is missing, nothing is left behind"
    made = [path for path in files[runs.whole] if path.suffix and path.parent.name != "stages"]
    names = {path.name for path in made}
    assert {"model.safetensors", "adapter_model.safetensors", "trees.jsonl", "predictions.jsonl"} <= names
    for path in made:
        one, other = ((folder / path).read_bytes() for folder in (runs.whole, runs.stopped))
        assert other.replace(str(runs.stopped).encode(), str(runs.whole).encode()) == one, path


def test_records_are_equal_but_for_their_times(runs: Runs) -> None:
    for path in sorted((runs.whole / "stages").iterdir()):
        one, other = (json.loads((f / "stages" / path.name).read_text()) for f in (runs.whole, runs.stopped))
        assert {**other, "seconds": one["seconds"]} == one


def test_no_preference_is_lost_or_doubled(runs: Runs) -> None:
    trees = read_conversations(runs.stopped / "pairs/trees.jsonl")
    pairs = [(tree.id, pair.chosen, pair.rejected) for tree in trees for pair in tree.preferences]
    told = json.loads((runs.stopped / "stages/pairs.json").read_text())["facts"]["pairs"]
    assert len(pairs) == len(set(pairs)) == told > 0


ONE_STAGE: Final = "stages: [{stage: pretrain, name: pretrain, epochs: 3, batch_size: 8, checkpoint_seconds: 0}]\n"


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Runs a recipe of one stage; the run's folder is to be added."""
    path = write_recipe(tmp_path_factory.mktemp("short"))
    recipe = path.read_text(encoding="utf-8")
    path.write_text(recipe[: recipe.index("stages:")] + ONE_STAGE, encoding="utf-8")
    return ["run", str(path), "--out"]


def test_a_second_run_on_a_folder_is_refused_until_the_first_has_died(command: list[str], tmp_path: Path) -> None:
    folder, moment = tmp_path / "one/run", "pretrain: 2 of 6"
    first = start([*command, str(folder)], tmp_path / "one", at=moment, event=Signal(signal.SIGSTOP))
    wait_for(moment, tmp_path / "one", first)
    before = contents(folder)
    second = esckit([*command, str(folder)], tmp_path / "two")
    first.kill()
    assert second.code == 2
    assert second.errors == (
        f"esckit: another esckit is at work on {folder}: wait until it is done, or choose another place.\n"
    )
    assert contents(folder) == before
    assert finish(first, tmp_path / "one").code == -signal.SIGKILL
    third = esckit([*command, str(folder)], tmp_path / "one")
    assert third.code == 0, third.errors
    assert steps(third)["pretrain"] == (2, 6, 6)
    assert not (folder / ".lock").exists()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_ctrl_c_says_that_the_same_command_continues(command: list[str], tmp_path: Path) -> None:
    ended = esckit([*command, str(tmp_path / "run")], tmp_path, at="pretrain: 3 of 6", event=Signal(signal.SIGINT))
    assert ended.code == 130
    assert ended.errors.endswith("\nesckit: stopped; the same command continues where it stopped.\n")
    assert "Traceback" not in ended.errors
    ended = esckit([*command, str(tmp_path / "run")], tmp_path)
    assert ended.code == 0
    assert steps(ended)["pretrain"] == (3, 6, 6)
