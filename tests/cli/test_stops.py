"""Ctrl-C at every long command: one sentence that says what becomes of the work, exit code 130, no traceback."""

import json
import signal
from pathlib import Path

import pytest

from esckit.conversation import write_conversations
from esckit.corpora import load_corpus
from tests.children import Signal, esckit
from tests.cli.test_entry import ROW
from tests.mining.grown import grown
from tests.tiny import tiny_encoder

CTRL_C = Signal(signal.SIGINT)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that the commands read."""
    folder = tmp_path_factory.mktemp("stops")
    write_conversations(folder / "dialogues.jsonl", load_corpus("starter").train)
    write_conversations(folder / "trees.jsonl", [grown("coupled")])
    (folder / "rows.jsonl").write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    (folder / "ratings.csv").write_text("item,rater,rating\n1,a,1\n1,b,2\n", encoding="utf-8")
    tiny_encoder(folder / "encoder")
    files = [str(folder / name) for name in ("dialogues.jsonl", "supporter")]
    made = esckit(["train", "planner", *files, "--model", "majority", "--encoder", str(folder / "encoder")], folder)
    assert made.code == 0, made.errors
    return folder


@pytest.mark.parametrize(
    ("command", "moment", "told"),
    [
        ("predict {}/supporter {}/dialogues.jsonl {}/out.jsonl", "predict: 2 of 44", "continues"),
        ("train planner {}/dialogues.jsonl {}/out --model linear --encoder {}/encoder", "planner: 2 of 10", "contin"),
        ("evaluate {}/rows.jsonl", "read rows.jsonl", "nothing is left half-written"),
        ("agreement {}/ratings.csv", "read ratings.csv", "nothing is left half-written"),
        ("corpus stats {}/dialogues.jsonl", "read dialogues.jsonl", "nothing is left half-written"),
        ("corpus check {}/dialogues.jsonl", "read dialogues.jsonl", "nothing is left half-written"),
        ("corpus split {}/dialogues.jsonl {}/parts", "write parts/.train.jsonl.esckit-new", "nothing is left half-"),
        ("corpus convert {}/trees.jsonl {}/a.jsonl", "write .a.jsonl.esckit-new", "nothing is left half-written"),
        ("export preferences {}/trees.jsonl {}/a.jsonl --to trl", "write .a.jsonl.esckit-new", "nothing is left half-"),
        ("check preferences {}/trees.jsonl", "read trees.jsonl", "nothing is left half-written"),
    ],
    ids=lambda value: value.split("{")[0] if "{" in value else "",
)
def test_ctrl_c_ends_with_130_and_a_sentence(command: str, moment: str, told: str, place: Path) -> None:
    before = {path for path in place.rglob("*") if path.is_file()}
    arguments = [word.format(place) if "{" in word else word for word in command.split()]
    ended = esckit(arguments, place, at=moment, event=CTRL_C)
    assert ended.code == 130, ended.errors
    assert "Traceback" not in ended.errors
    assert ended.errors.splitlines()[-1].startswith("esckit: stopped; ")
    assert told in ended.errors.splitlines()[-1]
    made = {path.name for path in place.rglob("*") if path.is_file()} - {path.name for path in before}
    assert not [name for name in made if name.endswith(("esckit-new", "lock"))]
    if told.startswith("contin"):
        continued = esckit(arguments, place)
        assert continued.code == 0, continued.errors
        title, total = moment.split(": ")[0], moment.split(" of ")[1]
        counted = [line for line in continued.moments if line.startswith(f"{title}: ")]
        assert len(counted) == int(total) - 2, "what was done is not done again"
