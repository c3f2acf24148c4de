"""``esckit annotate``, ``train annotator``, ``check annotator`` as a user meets them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import read_conversations, write_conversations
from esckit.files import write_jsonl
from esckit.judging import embedded_annotator
from esckit.measures import prediction_to_json
from esckit.planning import encoder
from tests.cli.test_entry import call
from tests.judging.judged import dialogues, predicted
from tests.judging.tiny import letters, some_labels
from tests.server import KEY, MODEL, Behaviour, ChatServer
from tests.tiny import save_base
from tests.trees import small_tree

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _letters(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (encoder, embedded_annotator):
        monkeypatch.setattr(module, "load_encoder", lambda source="embedded": letters())


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    names = {None: "", "early_emotion_shift": "Premature Emotional Transition", "other": "Others"}
    records: list[dict[str, Any]] = [
        {
            "Contains Empathy Error": "Yes" if reply.error else "No",
            "Error Type": names[reply.error],
            "user_input": reply.context[0].text,
            "strategy": "Question",
            "response": reply.response,
            "dialogue": int(reply.group[1:]),
        }
        for reply in some_labels()
    ]
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def test_every_help_has_an_example(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    for command in (["annotate"], ["train", "annotator"], ["check", "annotator"]):
        assert call(monkeypatch, *command, "--help") == 0
        assert f"Example: esckit {' '.join(command)}" in capsys.readouterr().out


def test_trains_checks_and_annotates(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    folder, tree, out = tmp_path / "mine", tmp_path / "trees.jsonl", tmp_path / "out.jsonl"
    assert call(monkeypatch, "train", "annotator", labels, folder) == 0
    assert capsys.readouterr().out.startswith(f"fitted on 18 replies: {folder}; next: esckit annotate")
    assert call(monkeypatch, "check", "annotator", labels, "--model", folder, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["n"], figures["dialogues"], figures["kappa"], figures["label_noise"]) == (18, 6, 1.0, None)
    assert call(monkeypatch, "check", "annotator", labels, "--cross-validate") == 0
    assert "kappa 1.000" in capsys.readouterr().out
    write_conversations(tree, [small_tree()])
    for new in (3, 0):
        assert call(monkeypatch, "annotate", tree, out, "--model", folder) == 0
        assert "3 turns judged by mine@" in (said := capsys.readouterr().out)
        assert f"{new} of them now" in said
        tree = out
    (written,) = read_conversations(out)
    assert sum(len(turn.verdicts) for turn in written.turns) == 3


@pytest.mark.parametrize(("file", "source"), [("predict-one/predictions.jsonl", "predict-one"), ("two.jsonl", "two")])
def test_predicted_turns_go_by_their_file_or_by_the_stage_of_a_run(
    file: str, source: str, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    folder, out, talks = tmp_path / "mine", tmp_path / "out.jsonl", dialogues(1)
    assert call(monkeypatch, "train", "annotator", labels, folder) == 0
    write_conversations(tmp_path / "talks.jsonl", talks)
    write_jsonl(tmp_path / file, map(prediction_to_json, predicted(talks, lambda c, t: f"I hear {c} {t}")))
    given = (tmp_path / file, out, "--conversations", tmp_path / "talks.jsonl", "--model", folder)
    assert call(monkeypatch, "annotate", *given) == 0
    capsys.readouterr()
    assert call(monkeypatch, "errors", out, "--json") == 0
    assert [row["source"] for row in json.loads(capsys.readouterr().out)] == ["human", source]


def test_a_chat_model_behind_a_url_is_measured_and_asked_once(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    with ChatServer(Behaviour(reply_faults=0.5)) as server:
        command: list[str | Path] = [
            "check",
            "annotator",
            labels,
            "--model",
            f"remote:{MODEL}",
            "--base-url",
            server.url,
            "--json",
        ]
        assert call(monkeypatch, *command) == 0
        figures = json.loads(capsys.readouterr().out)
        asked = server.calls
        assert asked >= 18
        assert call(monkeypatch, *command) == 0
        assert server.calls == asked
    assert json.loads(capsys.readouterr().out) == figures
    assert figures["annotator"].startswith(f"{MODEL}@")
    assert figures["n"] + figures["unjudged"] == 18
    assert figures["unjudged"] > 0
    assert (tmp_path / "ledger.sqlite").exists()


def test_a_chat_model_s_folder_annotates(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """What fails is tried again; weights are random, so no answer can be read, which is said and is no verdict."""
    monkeypatch.chdir(tmp_path)
    base, tree, out = save_base(tmp_path / "base"), tmp_path / "trees.jsonl", tmp_path / "out.jsonl"
    write_conversations(tree, [small_tree()])
    assert call(monkeypatch, "annotate", tree, out, "--model", base, "--max-new-tokens", "3") == 0
    assert "0 of them now: nothing; 3 could not be judged, the same command tries" in capsys.readouterr().out
    config = json.loads((base / "config.json").read_text())  # its tokens are letters, and too many
    (base / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 32768}))
    assert call(monkeypatch, "annotate", tree, out, "--model", base, "--max-new-tokens", "3") == 0
    assert re.search(r"3 turns judged by base@\w+, 3 of them now: unparsed 3", capsys.readouterr().out)
    (written,) = read_conversations(out)
    assert {verdict.state for turn in written.turns for verdict in turn.verdicts} == {"unparsed"}
    labels.write_text(json.dumps(json.loads(labels.read_text(encoding="utf-8"))[:1]), encoding="utf-8")
    assert call(monkeypatch, "check", "annotator", labels, "--model", base, "--max-new-tokens", "3") == 2
    assert "judged none of the 1 replies: see its answers in the ledger." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            ["annotate", "TREES", "OUT", "--model", "nowhere"],
            "nowhere/annotator.json does not exist: give",
        ),
        (
            ["annotate", "CHINESE", "OUT"],
            "reads English alone and there are dialogues in zh: take a chat model, remote:",
        ),
        (["annotate", "TREES", "OUT", "--model", "remote:m"], "OPENAI_API_KEY is not set: export the key"),
        (["train", "annotator", "LABELS", "TREES"], "holds something else than an annotator: choose another folder."),
        (["check", "annotator", "TREES"], "trees.jsonl:1: "),
    ],
)
def test_bad_input_is_one_sentence(
    command: list[str], sentence: str, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("esckit.chat_models.remote._check_installed", lambda: None)
    paths = {"TREES": tmp_path / "trees.jsonl", "CHINESE": tmp_path / "zh.jsonl", "OUT": tmp_path / "o.jsonl"}
    write_conversations(paths["TREES"], [small_tree()])
    write_conversations(paths["CHINESE"], [small_tree(language="zh")])
    monkeypatch.setattr(embedded_annotator, "load_annotator", _shipped_or_missing())
    assert call(monkeypatch, *({**paths, "LABELS": labels}.get(word, word) for word in command)) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("esckit: ") == 1


def _shipped_or_missing() -> Any:
    """Loading as it is, but that the shipped annotator is taken with any encoder."""
    real = embedded_annotator.load_annotator

    class Shipped:
        judge = "embedded@0"

    return lambda source: Shipped() if source == "embedded" else real(source)
