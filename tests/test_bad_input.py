"""Bad input at the command line: one sentence that says what to do, exit code 2, nothing written and nothing lost.

Each case is tested closely where it belongs; here is what a user sees.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from esckit.conversation import read_conversations, write_conversations
from tests.cli.test_entry import ROW, call
from tests.recipes.tiny import write_tiny
from tests.tiny import save_base, write_supporter


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good files beside the bad ones."""
    place = tmp_path_factory.mktemp("given")
    write_tiny(place)
    good = (place / "tiny.yaml").read_text(encoding="utf-8")
    write_supporter(place / "supporter")
    save_base(place / "other-base", seed=4)
    swapped = Path(shutil.copytree(place / "supporter", place / "swapped"))
    shutil.rmtree(swapped / "base")
    shutil.copytree(place / "other-base", swapped / "base")
    texts = {
        "format-2.yaml": good.replace("format: 1", "format: 2"),
        "unknown-key.yaml": good.replace("max_context: 640", "max_contxt: 640"),
        "broken.json": '[\n{"dialog": [}\n]',
        "label.json": '[{"dialog": [{"speaker": "supporter", "annotation": {"strategy": "Hugging"}, "content": "x"}]}]',
        "mute.json": '[{"dialog": [{"speaker": "seeker", "annotation": {}, "content": "x"}]}]',
        "missing.jsonl": json.dumps({key: ROW[key] for key in list(ROW)[:-1]}) + "\n",
        "twice.jsonl": 2 * (json.dumps(ROW) + "\n"),
        "others.jsonl": "".join(f"{line}\n" for line in ("{}", "no JSON", "[]")),
    }
    for name, text in texts.items():
        (place / name).write_text(text, encoding="utf-8")
    with (place / "huge.json").open("wb") as file:
        file.truncate(2**43)
    (place / "no-weights").mkdir()
    return place


CASES: Final = {
    "no role bank": (
        "check bank none",
        "none does not exist: a role bank is a folder of YAML files, one a role, or 'shipped'.",
    ),
    "a wrong path": ("corpus stats none.json", "none.json does not exist: give the path of a dialogue file."),
    "malformed JSON": ("corpus stats broken.json", "broken.json:2: not valid JSON"),
    "an unknown strategy": ("corpus convert label.json out.jsonl", "use one of Question, Restatement or Paraphrasing"),
    "no supporter turns": ("corpus stats mute.json", "has no supporter turn in 1 dialogues"),
    "a corpus over memory": ("corpus stats huge.json", "divide it into smaller files, or take a larger machine."),
    "a corpus over memory, to train on": ("run tiny.yaml --set corpus.train=huge.json", "too large for this machine"),
    "a tree file of broken lines": ("corpus stats others.jsonl", "is in no format that esckit knows"),
    "an unknown recipe": ("run strter", "there is no recipe 'strter': did you mean 'starter'?"),
    "recipe format 2": (
        "run format-2.yaml",
        "has recipe format 2, this esckit reads format 1: install the esckit that",
    ),
    "an unknown recipe key": ("run unknown-key.yaml", "unknown key 'model.max_contxt': did you mean 'max_context'?"),
    "an unknown key by --set": ("run tiny.yaml --set planner-sft.epoch=1", "did you mean 'epochs'?"),
    "a model folder without weights": (
        "run tiny.yaml --set model.path=./no-weights",
        "it has no config.json, but nothing: give a folder",
    ),
    "a Hub id without network": (
        "run tiny.yaml --set model.path=owner/name",
        "`hf download owner/name --local-dir FOLDER`",
    ),
    "missing fields": ("evaluate missing.jsonl", "missing.jsonl, line 1: predicted_text is missing: write a string"),
    "duplicate turns": (
        "evaluate twice.jsonl",
        "line 2: conversation 'a', turn '1' stands in line 1 already: keep one",
    ),
    "no supporter": (
        "predict no-weights test.jsonl out.jsonl",
        "no-weights is no supporter's folder, but holds nothing: give",
    ),
    "adapters of another base": (
        "predict swapped test.jsonl out.jsonl",
        "the weights of swapped/base are not those that swapped was trained on: restore them.",
    ),
}


@pytest.mark.parametrize(("command", "words"), CASES.values(), ids=CASES.keys())
def test_it_gets_one_sentence_and_nothing_is_written(
    command: str, words: str, given: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(given)
    monkeypatch.setattr(
        "esckit.language_models.backbone.unreachable", lambda _: "the Hub cannot be reached (ConnectError)"
    )
    before = stand(given)
    assert call(monkeypatch, *command.split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("esckit: ")
    assert words in told.err
    assert told.err.count("\n") == 1
    assert stand(given) == before


def stand(folder: Path) -> dict[Path, tuple[int, int]]:
    """What a folder holds: size and time of every file."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.mark.parametrize("move", [shutil.move, shutil.copytree])
def test_a_moved_supporter_predicts_as_before(
    move: Callable[[Path, Path], object], given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(given / "supporter", "first")
    write_conversations(Path("test.jsonl"), read_conversations(given / "test.jsonl")[:1])
    assert call(monkeypatch, "predict", "first", "test.jsonl", "before.jsonl", "--greedy") == 0
    Path("far/away").mkdir(parents=True)
    move(Path("first"), Path("far/away/moved"))
    monkeypatch.chdir("far")
    assert call(monkeypatch, "predict", "away/moved", "../test.jsonl", "after.jsonl", "--greedy") == 0
    assert Path("after.jsonl").read_bytes() == Path("../before.jsonl").read_bytes()


def test_a_loss_that_overflows_stops_the_run(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--set", "pretrain.learning_rate=1e30", "--out", str(tmp_path / "run")]
    assert call(monkeypatch, "run", str(given / "tiny.yaml"), *more) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("esckit: pretrain stopped, its ")
    assert told.endswith("lower its learning_rate, or check the weights that it starts from.")
    assert not (tmp_path / "run/pretrain/model").exists()
