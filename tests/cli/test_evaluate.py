"""``esckit evaluate`` and ``esckit agreement``, as a user runs them: in a process where torch cannot be imported."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from esckit.conversation import Conversation, Turn, write_conversations
from esckit.measures import add_predictions, read_predictions
from esckit.strategy import ESCONV

SOURCE = Path(__file__).parents[2] / "src"
WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "datasets", "huggingface_hub"):
    sys.modules[name] = None
from esckit.cli import main
main()
"""


def esckit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def write(path: Path, n: int = 60, seed: int = 0, **more: Any) -> Path:
    """Predictions of n turns whose gold does not depend on the seed."""
    gold, own = random.Random(0), random.Random(seed + 1)
    words = ["i", "you", "feel", "so", "sad", "why", "is", "that", "hard", ".", "?"]
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        for turn in range(n):
            record = {
                "conversation_id": turn // 12,
                "turn_id": turn,
                "gold_strategy": gold.choice(ESCONV.labels),
                "gold_text": " ".join(gold.choices(words, k=12)),
                "predicted_strategy": own.choice(ESCONV.labels),
                "predicted_text": " ".join(own.choices(words, k=12)),
            }
            file.write(json.dumps(record | more) + "\n")
    return path


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    return write(tmp_path / "a" / "predictions.jsonl")


def test_one_file_as_a_table_and_as_json(predictions: Path) -> None:
    table = esckit("evaluate", predictions)
    assert table.returncode == 0, table.stderr
    assert "predictions.jsonl" in table.stdout
    found = json.loads(esckit("evaluate", predictions, "--json").stdout)
    assert found["n"] == 60
    assert found["strategy"]["b_floor"] > 0
    assert found["text"]["bleu1_utterance"] > 0


def test_several_files_are_compared(predictions: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "b" / "predictions.jsonl", seed=1)
    done = esckit("evaluate", predictions, other, "--json", "--metrics", "strategy,meteor")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["files"]) == ["a/predictions.jsonl", "b/predictions.jsonl"]
    assert [entry["metric"] for entry in found["comparisons"]] == ["q", "q_w", "accuracy", "b", "meteor_utterance"]


def test_trees_hold_several_systems_and_give_the_same_figures(predictions: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "b" / "predictions.jsonl", seed=1)
    turns: dict[str, list[Turn]] = {}
    for row in read_predictions(predictions):
        own = turns.setdefault(str(row.conversation_id), [])
        own.append(Turn(str(row.turn_id), own[-1].id if own else None, "supporter", row.gold_text, row.gold_strategy))
    trees = [Conversation(name, own) for name, own in turns.items()]
    for name, path in (("a/predictions.jsonl", predictions), ("b/predictions.jsonl", other)):
        trees = add_predictions(trees, read_predictions(path), name)
    write_conversations(tmp_path / "trees.jsonl", trees)
    how = ("--json", "--metrics", "strategy")
    from_trees = esckit("evaluate", tmp_path / "trees.jsonl", "--from", "trees", *how)
    assert from_trees.returncode == 0, from_trees.stderr
    assert from_trees.stdout == esckit("evaluate", predictions, other, *how).stdout
    write_conversations(tmp_path / "bare.jsonl", [Conversation("0", turns["0"])])
    refused = esckit("evaluate", tmp_path / "bare.jsonl", "--from", "trees")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "bare.jsonl holds no predicted turn: give trees to which predictions were added." in refused.stderr


def test_latex_and_markdown(predictions: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "b" / "predictions.jsonl", seed=1)
    latex = esckit("evaluate", predictions, other, "--latex", "--metrics", "strategy").stdout
    assert latex.count(r"\begin{tabular}") == 2
    markdown = esckit("evaluate", predictions, "--markdown", "--metrics", "strategy").stdout
    assert markdown.startswith("**Results")
    patterns = esckit("evaluate", predictions, "--markdown", "--metrics", "patterns").stdout
    assert "Phrases" not in patterns
    phrases = esckit("evaluate", predictions, "--markdown", "--metrics", "text", "--phrases").stdout
    assert "| predictions | phrase | replies | share | human | z |" in phrases
    assert "| predictions.jsonl: human replies | 0.0 (0.0, 0.0) | 0.0 (0.0, 0.0) |" in patterns


def test_from_other_programs_and_unparsed_rows(tmp_path: Path) -> None:
    rows = [
        {"GT_strategy": "Question", "predict_strategy": predicted, "GT_content": "Why?", "predict_content": "I see."}
        for predicted in ("Question", "Empathy")
    ]
    path = tmp_path / "outputs.json"
    path.write_text(json.dumps(rows))
    found = json.loads(esckit("evaluate", path, "--from", "decoupled-esc", "--unparsed", "drop", "--json").stdout)
    assert (found["unparsed"], found["strategy"]["accuracy"]) == ("drop", 1)
    refused = esckit("evaluate", path, "--from", "decoupled-esc", "--unparsed", "refuse")
    assert refused.returncode == 2
    assert "1 of 2 predicted strategies are unparsed" in refused.stderr


def test_files_of_different_origin_in_one_call(predictions: Path, tmp_path: Path) -> None:
    rows = read_predictions(predictions)
    pairs = [
        {"label": f"[{r.gold_strategy}] {r.gold_text}", "predict": f"[{r.predicted_strategy}] {r.predicted_text}"}
        for r in rows
    ]
    tuned, table = tmp_path / "generated_predictions.jsonl", tmp_path / "own.csv"
    tuned.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    table.write_text("\n".join(["Reference;Hypothesis", *(f"{p['label']};{p['predict']}" for p in pairs)]))
    for told in ([], ["--from", "esckit,llamafactory,llamafactory"]):
        done = esckit("evaluate", predictions, tuned, table, *told, "--json", "--metrics", "strategy")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert {(test["turns"], test["difference"]) for test in found["comparisons"]} == {(60, 0)}
    refused = esckit("evaluate", predictions, tuned, "--from", "esckit,llamafactory,trees")
    assert refused.returncode == 2
    assert "--from names 3 sources for 2 files: give one, or one for each file." in refused.stderr


def test_trees_are_told_by_their_form(predictions: Path, tmp_path: Path) -> None:
    turns = [
        Turn(str(r.turn_id), None, "supporter", r.gold_text, r.gold_strategy) for r in read_predictions(predictions)
    ]
    trees = [Conversation(str(number), turns[12 * number : 12 * number + 12]) for number in range(5)]
    write_conversations(tmp_path / "t.jsonl", add_predictions(trees, read_predictions(predictions), "a"))
    done = esckit("evaluate", tmp_path / "t.jsonl", predictions, "--json", "--metrics", "strategy")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["files"]) == ["t.jsonl: a", "predictions.jsonl"]


def test_conversations_give_stages(tmp_path: Path) -> None:
    turns = [
        {"id": "1", "parent": None, "speaker": "seeker", "text": "I am sad."},
        {"id": "2", "parent": "1", "speaker": "supporter", "text": "Why?", "strategy": "Question"},
    ]
    dialogues = tmp_path / "dialogues.jsonl"
    dialogues.write_text(json.dumps({"format": 1, "id": "d", "turns": turns}) + "\n")
    path = write(tmp_path / "p.jsonl", 1, conversation_id="d", turn_id="2")
    found = json.loads(esckit("evaluate", path, "--conversations", dialogues, "--json").stdout)
    assert sum(found["strategy"]["stages"][5]["gold"].values()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--taxonomy", "none"], "--taxonomy 'none' is unknown: use one of esconv, cso"),
        (["--unparsed", "skip"], "--unparsed 'skip' is unknown: use one of wrong, drop, refuse."),
        (["--tokenizer", "bpe"], "--tokenizer 'bpe' is unknown: use one of nltk-words"),
        (["--from", "trl"], "the source 'trl' is unknown: use one of esckit, llamafactory, decoupled-esc."),
        (["--metrics", "strategy,txt"], "the metric 'txt' is unknown: did you mean text?"),
        (["--json", "--latex"], "--json, --latex and --markdown exclude each other: give one of them."),
        (["--metrics", "bertscore"], "bertscore needs an encoder: add --encoder"),
        (["none.jsonl"], "none.jsonl does not exist: give the path of a predictions file"),
    ],
)
def test_errors_are_one_sentence(predictions: Path, arguments: list[str], message: str) -> None:
    done = esckit("evaluate", predictions, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.startswith("esckit: ")
    assert done.stderr.count("\n") == 1


def test_a_file_given_twice(predictions: Path) -> None:
    assert "is given twice: give every predictions file once." in esckit("evaluate", predictions, predictions).stderr


def test_agreement(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("item,rater,rating\nx,a,1\nx,b,1\ny,a,2\ny,b,3\n")
    found = json.loads(esckit("agreement", path).stdout)
    assert found["cohen"][0]["plain"]["value"] == pytest.approx(1 / 3)
    assert [text[:12] for text in found["warnings"]] == ["Only 2 items"]
    assert "has no column item" in esckit("agreement", write(tmp_path / "p.jsonl")).stderr


def test_agreement_of_another_program_by_the_names_of_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    rows = [{"conv_id": i, "annotator": r, "model-preference": str(i * r)} for i in range(3) for r in (1, 2)]
    path.write_text(json.dumps(rows))
    done = esckit("agreement", path, "--columns", "conv_id, annotator, model-preference")
    assert json.loads(done.stdout)["categories"] == [0, 1, 2, 4]
    refused = esckit("agreement", path, "--columns", "conv_id,annotator")
    assert refused.returncode == 2
    assert "names 2 columns: give three, item, rater and rating." in refused.stderr
    bare = esckit("agreement", path)
    assert (bare.returncode, bare.stdout, bare.stderr.count("\n")) == (2, "", 1)
    assert "it is JSON and not CSV" in bare.stderr
