"""Every command in the documentation runs: on small files of the names that the pages use, in the pages' own words.

`esckit run` is checked as it stands (`--check`), as some recipes take hours; all else is carried out. The chat model is
our test server.
"""

import csv
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from esckit.cli import main
from tests.conftest import ROOT
from tests.server import KEY, MODEL, ChatServer
from tests.workshop import make_workshop, write_ratings

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[str]:
    """Lines of examples that begin with esckit; what stands in brackets is taken, what follows a # is not."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES).replace("\\\n", " ")
    found = (
        re.sub(r"\s+#.*", "", line).strip() for line in text.splitlines() if re.match(r"(    )?esckit [a-z]", line)
    )
    return sorted({re.sub(r"[][]", "", each) for each in found if not re.match(r"esckit (has|is|builds) ", each)})


def test_there_are_commands_to_run() -> None:
    assert len(commands()) > 35


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    with ChatServer() as running:
        yield running


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workshop(tmp_path_factory.mktemp("workshop"), tmp_path_factory.mktemp("work"))


@pytest.mark.parametrize("command", commands())
def test_the_command_runs(
    command: str,
    workshop: Path,
    server: ChatServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = shutil.copytree(workshop, tmp_path / "here", copy_function=os.link)
    monkeypatch.chdir(here)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ESCKIT_CACHE", str(workshop.parent / "cache"))

    def esckit(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", (tmp_path / "empty").open("a+", encoding="utf-8"))
        monkeypatch.setattr("sys.argv", ["esckit", *words])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    command = re.sub(r"http://localhost:8000/v1|\bURL\b", server.url, command).replace(
        "remote:MODEL", f"remote:{MODEL}"
    )
    command = command.replace("runs/chinese", "runs/starter").replace("wukong", "captain")  # what the workshop has
    _, *words = shlex.split(command)
    if words[:2] == ["corpus", "split"]:
        shutil.rmtree(here / words[3])  # it makes what other commands read
    if words[0] == "prompts":
        shutil.rmtree(here / words[1])  # likewise
    if words[0] == "search":  # by tiny models where SmolLM2 would speak, and a short one
        words += ["--iterations", "2", "--dialogues", "2"]
        words += [] if "--strategy" in words else ["--planner", "runs/starter/decoupled"]
        for role in ("--seeker", "--supporter"):
            words += [] if role in words else [role, "models/my-model"]
        words += [] if "--base-url" in words or f"remote:{MODEL}" not in words else ["--base-url", server.url]
    if words[0] == "run" and "--check" not in words:
        words.append("--check")
    if words[:2] == ["run", "esconv-evolution"]:  # the workshop's corpus is smaller than the one that the page means
        words += [word for stage in ("refined", "human") for word in ("--set", f"{stage}.dialogues=4")]
    if "runs/annotator" in words and words[0] != "train":
        assert esckit("train", "annotator", "labels.json", "runs/annotator", "--dialogues", "FailedESConv.json")[0] == 0
    if words[:2] == ["check", "judge"]:
        judge = ("--model", f"remote:{MODEL}", "--base-url", server.url, "--conversations", "dialogues.jsonl")
        assert esckit("judge", "coupled.jsonl", "decoupled.jsonl", "judged", *judge)[0] == 0
        with Path("judged/sheet.csv").open(encoding="utf-8-sig", newline="") as sheet:
            write_ratings(Path("ratings.csv"), [row["item"] for row in csv.DictReader(sheet)])
    code, out, err = esckit(*words)
    findings = 1 if "check" in words[:2] else 0  # the exit code of a check that finds something
    assert code in (0, findings), err
    assert out.strip()
