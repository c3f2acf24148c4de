"""A run that is killed anywhere continues with the same command, to what an uninterrupted run makes, byte for byte."""

import json
import random
import re
import signal
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from esckit.conversation import read_conversations
from tests.children import Ended, esckit, finish, start
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
TIMES: Final = 3


class Runs(NamedTuple):
    """Two runs of one recipe: one that nothing stopped, and one that was killed again and again.

    Attributes:
        whole, killed: their folders.
        ends: how each process of the second ended, the last one in its own way.
        kills: at which moments, one for each of ``ends`` but the last.
    """

    whole: Path
    killed: Path
    ends: list[Ended]
    kills: list[str]


def write_recipe(folder: Path) -> Path:
    path = write_tiny(folder)
    recipe = path.read_text(encoding="utf-8")
    path.write_text(recipe[: recipe.index("stages:")] + STAGES, encoding="utf-8")
    return path


def stage_of(moment: str) -> str:
    """The stage whose folder, progress or record a moment is about."""
    found = re.match(r"(?:[a-z.]+ run/(?:stages/)?\.?)?([a-z]+)", moment)
    return found[1] if found else ""


def draw_moments(moments: list[str], seed: int) -> list[str]:
    """Three moments of each stage, in their order, from those that come once."""
    found = []
    for stage in KILLED:
        own = [m for m in dict.fromkeys(moments) if stage_of(m) == stage and moments.count(m) == 1]
        places = sorted(random.Random(f"{seed}:{stage}").sample(range(len(own)), TIMES))
        found += [own[place] for place in places]
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """All that is looked at below: seventeen processes."""
    folder = tmp_path_factory.mktemp("interruption")
    recipe = write_recipe(folder)
    whole, killed = folder / "whole", folder / "killed"
    for place in (whole, killed):
        place.mkdir()
    reference = esckit(["run", recipe, "--out", whole / "run"], whole)
    assert reference.code == 0, reference.errors
    kills = draw_moments(reference.moments, seed=0)
    ends = [esckit(["run", recipe, "--out", killed / "run"], killed, at=kill) for kill in kills]
    ends.append(esckit(["run", recipe, "--out", killed / "run"], killed))
    return Runs(whole / "run", killed / "run", ends, kills)


def test_every_kill_landed_inside_its_stage(runs: Runs) -> None:
    codes = [end.code for end in runs.ends]
    assert codes == [-signal.SIGKILL] * (len(KILLED) * TIMES) + [0]
    assert [end.moments[-1] for end in runs.ends[:-1]] == runs.kills
    assert [stage_of(kill) for kill in runs.kills] == [stage for stage in KILLED for _ in range(TIMES)]


def test_what_was_done_is_not_done_again(runs: Runs) -> None:
    """After a stop in the middle of counted work, the next process begins with the step at hand, or the one after."""
    looked_at = 0
    for end, following in zip(runs.ends, runs.ends[1:], strict=False):
        for title, (_, done, total) in steps(end).items():
            if title in steps(following) and done < total:
                looked_at += 1
                assert steps(following)[title][0] in (done, done + 1), title
    assert looked_at >= len(KILLED)


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
    files = {folder: sorted(p.relative_to(folder) for p in folder.rglob("*")) for folder in (runs.whole, runs.killed)}
    assert files[runs.killed] == files[runs.whole], "nothing is missing, nothing is left behind"
    made = [path for path in files[runs.whole] if path.suffix and path.parent.name != "stages"]
    names = {path.name for path in made}
    assert {"model.safetensors", "adapter_model.safetensors", "trees.jsonl", "predictions.jsonl"} <= names
    for path in made:
        one, other = ((folder / path).read_bytes() for folder in (runs.whole, runs.killed))
        assert other.replace(str(runs.killed).encode(), str(runs.whole).encode()) == one, path


def test_records_are_equal_but_for_their_times(runs: Runs) -> None:
    for path in sorted((runs.whole / "stages").iterdir()):
        one, other = (json.loads((f / "stages" / path.name).read_text()) for f in (runs.whole, runs.killed))
        assert {**other, "seconds": one["seconds"]} == one


def test_no_preference_is_lost_or_doubled(runs: Runs) -> None:
    trees = read_conversations(runs.killed / "pairs/trees.jsonl")
    pairs = [(tree.id, pair.chosen, pair.rejected) for tree in trees for pair in tree.preferences]
    told = json.loads((runs.killed / "stages/pairs.json").read_text())["facts"]["pairs"]
    assert len(pairs) == len(set(pairs)) == told > 0


def test_a_second_run_on_a_folder_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    recipe, command = write_recipe(tmp_path), ["run", tmp_path / "tiny.yaml", "--out", tmp_path / "run"]
    places = [tmp_path / "one", tmp_path / "two"]
    for place in places:
        place.mkdir()
    first = start([*command, "--set", "pretrain.epochs=100000"], tmp_path, at="pretrain: 2 of 100000")
    assert recipe.exists()
    assert first is not None
    assert finish(first, tmp_path).code in (0, -signal.SIGKILL)
