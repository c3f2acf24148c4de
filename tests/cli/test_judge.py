"""``esckit judge`` and ``esckit check judge`` as a user meets them, against a server with and without faults."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.conversation import Conversation, Preference, Turn, write_conversations
from esckit.files import write_jsonl
from esckit.measures import prediction_to_json
from esckit.roles.bank import read_bank
from tests.cli.test_entry import call
from tests.judging.judged import dialogues, predicted
from tests.report.test_report import Page
from tests.server import FAULTY, KEY, MODEL, Behaviour, ChatServer

ROOT = Path(__file__).parents[2]
Output = pytest.CaptureFixture[str]
HOSTILE = '<script>alert("x")</script>'


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two predictions files, and their dialogues beside the first."""
    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    talks = dialogues(4)
    write_conversations(tmp_path / "conversations.jsonl", talks)
    for name in ("one", "two"):
        rows = predicted(talks, lambda c, t, name=name: f"{name} says {c} {t} {HOSTILE}")  # type: ignore[misc]
        write_jsonl(tmp_path / f"{name}.jsonl", map(prediction_to_json, rows))
    return [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]


def figures(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "judging.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("command", [["judge"], ["check", "judge"]], ids=" ".join)
def test_every_help_has_an_example(command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    assert call(monkeypatch, *command, "--help") == 0
    assert f"Example: esckit {' '.join(command)} " in capsys.readouterr().out


def test_failed_dialogues_that_are_no_failures_are_counted(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    scores = {"initial_emotion_intensity": "5", "final_emotion_intensity": "2", "empathy": "5", "relevance": "4"}
    surveys: list[dict[str, str]] = [scores, {**scores, "final_emotion_intensity": "5"}, {"empathy": "1"}]
    dialog = [
        {"speaker": "speaker", "content": "Hm.", "annotation": {}},
        {"speaker": "listener", "content": "Ok.", "annotation": {"strategy": "Questions"}},
    ]
    items = [{"survey_score": {"seeker": seeker, "supporter": {}}, "dialog": dialog} for seeker in surveys]
    (tmp_path / "failed.json").write_text(json.dumps(items), encoding="utf-8")
    with ChatServer() as server:
        options = ["--model", f"remote:{MODEL}", "--base-url", server.url, "--turns", "2", "--reference", "hidden"]
        command: list[str | Path] = [
            "judge",
            *files,
            tmp_path / "o",
            *options,
            "--known-groups",
            "--failed",
            tmp_path / "failed.json",
        ]
        assert call(monkeypatch, *command) == 0
    told = "1 of 3 dialogues given as failed are no failures by their own survey"
    assert f"note: {told}" in capsys.readouterr().err
    assert any(told in warning and "1 have no final" in warning for warning in figures(tmp_path / "o")["warnings"])


def test_judges_compares_and_writes_everything(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    out = tmp_path / "judged"
    with ChatServer() as server:
        command: list[str | Path] = ["judge", *files, out, "--model", f"remote:{MODEL}", "--base-url", server.url]
        assert call(monkeypatch, *command, "--pairs", "--known-groups", "--turns", "6") == 0
        asked = server.calls
        assert call(monkeypatch, *command, "--pairs", "--known-groups", "--turns", "6") == 0
        assert server.calls == asked  # all of it is on record
    shown, told = capsys.readouterr()
    # 6 turns, 4 qualities, 2 systems with and without the human reply, 3 groups; and 6 turns in 2 orders.
    assert "180 questions to ask" in told
    assert "0 questions to ask" in told
    for title in ("Scores by test-model", "Differences (a - b", "Pairs (a against b", "Known groups ("):
        assert title in shown
    found = figures(out)
    assert (found["judge"], found["turns"], found["systems"]) == (MODEL, 6, ["one.jsonl", "two.jsonl"])
    assert found["identity"] == {"url": server.url, "model": MODEL}
    assert len(found["scores"]) == 2 * 4 * 2
    assert KEY not in (out / "judging.json").read_text(encoding="utf-8")
    page = Page(out / "judging.html")
    assert page.open == ["html"] or page.open == []
    for heading in ("Scores. Mean", "Differences, first minus second", "Pairs, asked in both", "Known groups: they"):
        assert heading in page.text
    assert "one.jsonl" in page.text


def test_empaths_six_scales_from_the_command_line(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """Two of four dialogues have a role; the server answers yes or no at random and quotes what nobody said."""
    role = read_bank().names[0]
    talks = [replace(talk, labels={"role": role} if n < 2 else {}) for n, talk in enumerate(dialogues(4))]
    write_conversations(tmp_path / "conversations.jsonl", talks)
    out = tmp_path / "judged"
    with ChatServer() as server:
        how = ["--model", f"remote:{MODEL}", "--base-url", server.url, "--reference", "hidden"]
        command: list[str | Path] = ["judge", *files, out, *how, "--rubric", "empath", "--bank", "shipped"]
        assert call(monkeypatch, *command) == 0
        assert server.calls == 2 * (8 * 5 + 4)
    shown = capsys.readouterr().out
    assert "Problems (share of replies" in shown
    found = figures(out)
    rows = {(row["system"], row["rubric"]): row for row in found["scores"]}
    assert [rows["one.jsonl", name]["n"] for name in ("empathy", "role_alignment")] == [8, 4]
    problems = [row for row in found["problems"] if row["system"] == "one.jsonl"]
    assert len(problems) == 10
    assert sum(row["states"]["unparsed"] for row in problems) > 10
    assert {row["mean"] for row in problems} == {0}, "what is not quoted is shown of no reply"
    assert "role_alignment was not asked about replies without a role" in " ".join(found["warnings"])
    page = Page(out / "judging.html")
    assert page.text.index("Scores. Mean") < page.text.index("names medicine") < page.text.index("Differences, first")
    sheet = (out / "sheet.csv").read_text(encoding="utf-8-sig")
    assert "1: No question has a yes." in sheet


def test_every_item_ends_in_a_state_before_a_faulty_server(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """Kept quick by hanging up instead of hanging."""
    behaviour = Behaviour(delay=0.002, call_faults=FAULTY.call_faults, reply_faults=0.3, hang=0.01)
    out = tmp_path / "judged"
    with ChatServer(behaviour) as server:
        command: list[str | Path] = [
            "judge",
            *files,
            out,
            "--model",
            f"remote:{MODEL}",
            "--base-url",
            server.url,
            "--reference",
            "hidden",
        ]
        assert call(monkeypatch, *command) == 0
        assert sum(server.faults.values()) > 10
    rows = [json.loads(line) for line in (out / "judgements.jsonl").read_text(encoding="utf-8").splitlines()]
    states = Counter(row["state"] for row in rows)
    assert states.total() == 2 * 8 * 4
    assert states["unparsed"] > 0
    assert states["refused"] > 0
    counted = Counter[str]()
    for row in figures(out)["scores"]:
        counted.update(row["states"])
    assert +counted == states
    assert all((row["score"] is None) == (row["state"] != "done") for row in rows)


def test_a_killed_judging_continues_and_asks_nothing_twice(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "judged"
    with ChatServer(Behaviour(delay=0.05)) as server:
        arguments = ["judge", *files, out, "--model", f"remote:{MODEL}", "--base-url", server.url]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OPENAI_API_KEY": KEY}
        command = [sys.executable, "-c", "from esckit.cli import main; main()", *map(str, arguments)]
        first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while server.calls < 10 and first.poll() is None:
            time.sleep(0.005)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert first.returncode == -signal.SIGKILL
        assert not (out / "judging.json").exists()
        second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert second.returncode == 0, second.stderr
        asked = server.asked
    assert len(asked) == 2 * 8 * 4 * 2
    assert asked.total() <= len(asked) + 64  # at most what was in flight
    assert max(asked.values()) <= 2


def test_a_judge_that_mined_is_named(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    turns = [
        Turn("s", None, "seeker", "I am sad."),
        Turn("a", "s", "supporter", "Why?", "Question"),
        Turn("b", "s", "supporter", "Oh.", "Question", source="model"),
    ]
    pair = Preference("a", "b", "response", judge=f"{MODEL}@0badcafe")
    write_conversations(tmp_path / "trees.jsonl", [Conversation(id="d", turns=turns, preferences=[pair])])
    with ChatServer() as server:
        command: list[str | Path] = [
            "judge",
            files[0],
            tmp_path / "judged",
            "--model",
            f"remote:{MODEL}",
            "--base-url",
            server.url,
        ]
        assert call(monkeypatch, *command, "--turns", "2", "--mined", tmp_path / "trees.jsonl") == 0
    told = f"{MODEL} also judged the preferences that were trained on ({MODEL}@0badcafe)"
    assert told in " ".join(re.sub(r"\s+", " ", capsys.readouterr().out).split())
    assert told in Page(tmp_path / "judged" / "judging.html").text


SAVED_AGAIN: Final[list[tuple[str, str, Callable[[str], str]]]] = [
    (",", "utf-8-sig", str),
    (";", "utf-8-sig", str),
    (";", "utf-8", str.upper),
    ("\t", "utf-16", " {} ".format),
]
"""How a spreadsheet may save the sheet: delimiter, encoding, what becomes of the header."""


def test_people_are_compared_with_the_judge_by_the_sheet(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    out, ratings = tmp_path / "judged", tmp_path / "ratings.csv"
    with ChatServer() as server:
        command: list[str | Path] = ["judge", *files, out, "--model", f"remote:{MODEL}", "--base-url", server.url]
        assert call(monkeypatch, *command, "--reference", "hidden", "--known-groups") == 0
    lines = (out / "judgements.jsonl").read_text(encoding="utf-8").splitlines()
    scores = {row["item"]: row["score"] for row in map(json.loads, lines)}
    with (out / "sheet.csv").open(encoding="utf-8-sig", newline="") as file:
        sheet = list(csv.DictReader(file))
    assert len(sheet) == 2 * 8 * 4
    assert all(row["talk"] and row["reply"] and row["scale"].count("\n") == 5 for row in sheet)
    with ratings.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("item", "rater", "rating"))
        writer.writerows((row["item"], "ann", scores[row["item"]]) for row in sheet if row["quality"] == "empathy")
    capsys.readouterr()
    assert call(monkeypatch, "check", "judge", out, ratings, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    (found,), (wins,) = printed["agreement"], printed["wins"]
    assert (wins["a"], wins["b"], wins["verdicts"]) == ("one.jsonl", "two.jsonl", 8)
    assert (found["rubric"], found["reference"], found["items"]) == ("empathy", False, 16)
    assert found["pearson"]["value"] == pytest.approx(1)
    assert found["cohen"][0]["quadratic"]["value"] == 1
    assert call(monkeypatch, "check", "judge", out, ratings) == 0
    shown = capsys.readouterr().out
    assert "The judge against people" in shown
    assert re.search(r"People's preferences(.*\n)+?│ empathy +│ one.jsonl +│ two.jsonl +│ +8 │ +8 ", shown)
    for row in sheet:  # filled in where it is, and saved again by a spreadsheet
        row |= {"rater": "ann", "rating": str(scores[row["item"]])} if row["quality"] == "empathy" else {}
    for delimiter, encoding, change in SAVED_AGAIN:
        with ratings.open("w", encoding=encoding, newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows([map(change, sheet[0]), *(row.values() for row in sheet)])
        capsys.readouterr()
        assert call(monkeypatch, "check", "judge", out, ratings, "--json") == 0
        assert json.loads(capsys.readouterr().out) == printed
    ratings.write_text("item,rater,rating\nnone,ann,3\n", encoding="utf-8")
    assert call(monkeypatch, "check", "judge", out, ratings) == 2
    assert "rates no item" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["model", "supporter"])
def test_the_folder_of_a_model_or_a_supporter_judges_too(
    kind: str, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """A tiny backbone without any training says nothing that can be read, and that is counted."""
    pytest.importorskip("torch", reason="needs esckit[train]")
    from tests.tiny import save_base, write_supporter

    folder = save_base(tmp_path / kind) if kind == "model" else write_supporter(tmp_path / kind)
    (tmp_path / "rubrics").mkdir()
    rubric = "name: calm\nversion: 1\nquestion: Calm?\nscale: {0: No., 1: Yes.}\n"
    (tmp_path / "rubrics" / "calm.yaml").write_text(rubric, encoding="utf-8")
    command: list[str | Path] = [
        "judge",
        files[0],
        tmp_path / "judged",
        "--model",
        folder,
        "--turns",
        "2",
        "--max-new-tokens",
        "4",
    ]
    assert call(monkeypatch, *command, "--rubrics", tmp_path / "rubrics", "--reference", "hidden") == 0
    (row,) = figures(tmp_path / "judged")["scores"]
    assert (row["rubric"], row["n"], row["mean"]) == ("calm", 0, None)
    assert row["states"]["done"] == 0
    assert figures(tmp_path / "judged")["judge"] == kind


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["one.jsonl", "two.jsonl"], "two.jsonl is the last path and has to be the folder to write"),
        (["one.jsonl", "o", "--model", "remote:"], "names no model"),
        (["one.jsonl", "o", "--reference", "maybe"], "--reference 'maybe': Input should be 'both'"),
        (["one.jsonl", "o", "--failed", "x.json"], "ask for known groups with them"),
        (["one.jsonl", "o", "--rubrics", "nowhere"], "there are no rubrics 'nowhere'"),
        (["one.jsonl", "o", "--conversations", "nowhere.json"], "nowhere.json does not exist"),
        (["one.jsonl", "o", "--model", "remote:x", "--base-url", "nonsense"], "is no base URL"),
        (["one.jsonl", "o", "--model", "folder", "--base-url", "http://x/v1"], "base_url is for a model behind a URL"),
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: list[str],
    told: str,
    files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = arguments if "--model" in arguments else [*arguments, "--model", "remote:x"]
    assert call(monkeypatch, "judge", *given) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.startswith("esckit: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "o" / "judging.json").exists()


def test_a_supporter_and_a_missing_talk_are_told(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    (tmp_path / "supporter").mkdir()
    (tmp_path / "supporter" / "supporter.json").write_text("{}", encoding="utf-8")
    assert call(monkeypatch, "judge", files[0], tmp_path / "o", "--model", tmp_path / "supporter") == 2
    assert "supporter.json is not a supporter.json" in capsys.readouterr().err
    (tmp_path / "conversations.jsonl").unlink()
    assert call(monkeypatch, "judge", files[0], tmp_path / "o", "--model", "remote:x") == 2
    assert "give --conversations" in capsys.readouterr().err
    assert call(monkeypatch, "check", "judge", tmp_path, files[0]) == 2
    assert "has no column item" in capsys.readouterr().err
