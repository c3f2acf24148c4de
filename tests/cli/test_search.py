"""``esckit search`` as a user meets it: on models on this machine, and refused in one sentence."""

import errno
import json
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import read_conversations, write_conversations
from esckit.mining.pairs import pairs_of
from tests.cli.test_entry import call
from tests.tiny import save_base, starter_dialogues, talk, write_supporter

Output = pytest.CaptureFixture[str]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_conversations(tmp_path / "train.jsonl", starter_dialogues(2, 8))
    return tmp_path / "train.jsonl"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model and a planner, tiny ones."""
    folder = tmp_path_factory.mktemp("models")
    save_base(folder / "base")
    write_supporter(folder / "supporter", "decoupled")
    return folder


def search(monkeypatch: pytest.MonkeyPatch, models: Path, corpus: Path, out: Path, *more: str | Path) -> int:
    own = ("--seeker", models / "base", "--supporter", models / "base", "--planner", models / "supporter")
    return call(monkeypatch, "search", corpus, out, *own, "--iterations", "4", *more)


def calls(out: Path) -> int:
    """How often a model was asked, by the ledger."""
    with closing(sqlite3.connect(out / "ledger.sqlite")) as database:
        return int(database.execute("SELECT count(*) FROM calls").fetchone()[0])


def test_a_search_writes_trees_and_what_they_cost(
    models: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    assert search(monkeypatch, models, corpus, tmp_path / "out") == 0
    told = json.loads((tmp_path / "out/search.json").read_text(encoding="utf-8"))
    trees = read_conversations(tmp_path / "out/trees.jsonl")
    assert [tree.id for tree in trees] == [seed.id for seed in read_conversations(corpus)]
    assert told["calls"]["supporter"] > 0
    assert told["calls"]["strategy"] == told["calls"]["reward"] == 0  # a planner and an annotator ask nobody
    assert set(told["roles"]) == {"seeker", "supporter", "strategy", "reward"}
    assert told["pairs"] == len(pairs_of(trees, "coupled"))
    assert f"{told['pairs']} pairs from 2 dialogues by {sum(told['calls'].values())} calls" in capsys.readouterr().out
    before = (tmp_path / "out/trees.jsonl").read_bytes()
    asked = calls(tmp_path / "out")
    assert search(monkeypatch, models, corpus, tmp_path / "out") == 0  # all is on record
    assert (tmp_path / "out/trees.jsonl").read_bytes() == before
    assert calls(tmp_path / "out") == asked == told["calls"]["supporter"] + told["calls"]["seeker"]


def test_a_file_of_options_says_the_rest(
    models: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "how.yaml").write_text("rollout: 0\nsupporter: {decoding: {max_new_tokens: 3}}\n", encoding="utf-8")
    assert search(monkeypatch, models, corpus, tmp_path / "out", "--options", tmp_path / "how.yaml") == 0
    (tree, *_) = read_conversations(tmp_path / "out/trees.jsonl")
    assert tree.provenance["search"]["switches"]["rollout"] == 0
    assert tree.provenance["search"]["roles"]["supporter"] == "base"  # the command line's, beside the file's


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--theta", "1"), "theta 1 is outside what embedded"),
        (("--budget-calls", "5"), "budget_calls 5 is below one iteration of each of the 2 dialogues"),
        (("--strategy", "smollm2"), "the strategy role needs one of planner (a folder, or embedded) and model"),
        (("--reward", "nobody"), "the reward role: nobody is no chat model and no annotator"),
        (("--reward", "remote:m", "--by", "digits"), "the reward role: by: digits reads the probabilities of a model"),
        (("--mode", "fast"), "--mode 'fast': Input should be 'ours', 'paper' or 'as_coded'"),
        (("--base-url", "http://localhost:1/v1"), "--base-url is for roles that are remote:MODEL: name one"),
        (("--prompts", "nowhere"), "the seeker role: the prompts folder nowhere cannot be read"),
        (("--share-budget",), "share_budget divides budget_calls: set budget_calls"),
    ],
)
def test_bad_input_is_one_sentence(
    more: tuple[Any, ...],
    said: str,
    models: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    assert search(monkeypatch, models, corpus, tmp_path / "out", *more) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("esckit: ")]
    assert line.removeprefix("esckit: ").startswith(said)
    assert not (tmp_path / "out/trees.jsonl").exists()


def test_prompts_of_ones_own_are_for_the_models_that_speak_by_default_too(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    assert call(monkeypatch, "search", corpus, tmp_path / "out", "--prompts", tmp_path / "mine") == 2
    assert f"the prompts folder {tmp_path / 'mine'} cannot be read" in capsys.readouterr().err


def test_a_role_that_nobody_plays(
    models: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    (tmp_path / "how.yaml").write_text("seeker: {model: null}\n", encoding="utf-8")
    own = ("--supporter", models / "base", "--planner", models / "supporter", "--options", tmp_path / "how.yaml")
    assert call(monkeypatch, "search", corpus, tmp_path / "out", *own) == 2
    assert "the seeker role: nobody plays it: set its model" in capsys.readouterr().err


def test_dialogues_that_no_search_can_start_from(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    silent = talk(("supporter", "Hello.", "Others"), ("seeker", "Is anybody there?"), conversation_id="silent")
    write_conversations(tmp_path / "silent.jsonl", [silent, *starter_dialogues(1, 8)])
    assert search(monkeypatch, models, tmp_path / "silent.jsonl", tmp_path / "out") == 2
    assert "conversation 'silent' has no supporter turn with a strategy" in capsys.readouterr().err


def test_dialogues_of_another_taxonomy(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    other = talk(("seeker", "I failed."), ("supporter", "That hurts.", "Question"), conversation_id="other")
    turns = [replace(turn, strategy=turn.strategy and "Affirmation") for turn in other.turns]
    cso = replace(other, turns=turns, taxonomy="cso")
    write_conversations(tmp_path / "cso.jsonl", [cso])
    assert search(monkeypatch, models, tmp_path / "cso.jsonl", tmp_path / "out") == 2
    assert "knows the strategies esconv and the dialogues have cso" in capsys.readouterr().err
    write_conversations(tmp_path / "both.jsonl", [cso, *starter_dialogues(1, 4)])
    assert search(monkeypatch, models, tmp_path / "both.jsonl", tmp_path / "out") == 2
    assert "cso" in capsys.readouterr().err
    plain = replace(other, turns=[replace(turn, strategy=None) for turn in other.turns], taxonomy=None)
    write_conversations(tmp_path / "plain.jsonl", [plain])
    assert search(monkeypatch, models, tmp_path / "plain.jsonl", tmp_path / "out") == 2
    assert "these dialogues have no strategies" in capsys.readouterr().err


def test_a_full_disk_loses_nothing(
    models: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """The trees cannot be written; what was answered is on record."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "trees.jsonl")

    with monkeypatch.context() as broken:
        broken.setattr("esckit.mining.tree_search.run.write_conversations", full)
        assert search(broken, models, corpus, tmp_path / "out") == 2
    assert "trees.jsonl cannot be written (No space left on device)" in capsys.readouterr().err
    asked = calls(tmp_path / "out")
    assert search(monkeypatch, models, corpus, tmp_path / "out") == 0
    assert len(read_conversations(tmp_path / "out/trees.jsonl")) == 2
    assert calls(tmp_path / "out") == asked > 0  # nothing is asked again
