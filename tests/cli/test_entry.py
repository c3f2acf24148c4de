"""The command line as a user meets it: help, exit codes, one sentence for what is wrong, nothing half-written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from esckit import __version__
from esckit.cli import main
from esckit.conversation import write_conversations
from esckit.corpora import load_corpus
from tests.recipes.tiny import shorten, write_tiny

COMMANDS: tuple[list[str], ...] = (
    [],
    ["run"],
    ["predict"],
    ["evaluate"],
    ["corpus"],
    ["corpus", "convert"],
    ["chat"],
    ["baseline"],
    ["errors"],
)
ROW = {
    "conversation_id": "a",
    "turn_id": "1",
    "gold_strategy": "Question",
    "predicted_strategy": "Others",
    "gold_text": "How are you?",
    "predicted_text": "Hello there.",
}


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Run a command in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["esckit", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_has_an_example(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *command, "--help") == 0
    assert "Example: esckit " in capsys.readouterr().out


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == __version__


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom esckit.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'peft', 'numpy', 'nltk', 'pydantic', 'matplotlib', 'sacrebleu'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_corpus_and_evaluate_work_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    write_conversations(tmp_path / "in.jsonl", load_corpus("starter").test)
    (tmp_path / "predictions.jsonl").write_text(json.dumps(ROW) + "\n")
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] in ('torch', 'transformers', 'peft', 'accelerate', 'tokenizers'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from esckit.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)"
    )
    for arguments in (
        ["corpus", "convert", "in.jsonl", "out.json", "--from", "tree", "--to", "esconv"],
        ["evaluate", "predictions.jsonl", "--json"],
    ):
        done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_convert_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_conversations(tmp_path / "a.jsonl", load_corpus("starter").test)
    assert (
        call(
            monkeypatch,
            "corpus",
            "convert",
            tmp_path / "a.jsonl",
            tmp_path / "b.json",
            "--from",
            "tree",
            "--to",
            "esconv",
        )
        == 0
    )
    assert isinstance(json.loads((tmp_path / "b.json").read_text()), list)


def test_evaluate_prints_json_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(ROW) + "\n")
    assert call(monkeypatch, "evaluate", tmp_path / "p.jsonl", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["strategy"]["q"] == 0
    assert figures["format"] == 1


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("{broken\n", "line 1"),
        (json.dumps({k: v for k, v in ROW.items() if k != "gold_text"}) + "\n", "gold_text"),
        (json.dumps(ROW) + "\n" + json.dumps(ROW) + "\n", "line 2"),
        ("", "empty"),
    ],
)
def test_bad_predictions_get_one_sentence_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rows: str, words: str
) -> None:
    (tmp_path / "p.jsonl").write_text(rows)
    assert call(monkeypatch, "evaluate", tmp_path / "p.jsonl") == 2
    _one_sentence(capsys.readouterr().err, words)


def _one_sentence(message: str, words: str) -> None:
    assert message.startswith("esckit: ")
    assert words in message
    assert message.count("\n") == 1
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        ('[\n{"dialog": [}\n]', ":2"),
        (
            '[{"dialog": [{"speaker": "supporter", "annotation": {"strategy": "Hugging"}, "content": "x"}]}]',
            "Restatement or Paraphrasing",
        ),
    ],
)
def test_bad_corpora_get_one_sentence_and_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str | None, words: str
) -> None:
    source, out = tmp_path / "in.json", tmp_path / "out.jsonl"
    if content is not None:
        source.write_text(content)
    assert call(monkeypatch, "corpus", "convert", source, out, "--from", "esconv", "--to", "tree") == 2
    _one_sentence(capsys.readouterr().err, words)
    assert not out.exists()
    assert call(monkeypatch, "run", "esconv-pocket", "--set", f"corpus.train={source}", "--out", tmp_path / "run") == 2
    _one_sentence(capsys.readouterr().err, words)
    assert not (tmp_path / "run").exists()


def test_a_supporter_folder_that_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_conversations(tmp_path / "in.jsonl", load_corpus("starter").test)
    assert call(monkeypatch, "predict", tmp_path / "nobody", tmp_path / "in.jsonl", tmp_path / "out.jsonl") == 2
    _one_sentence(capsys.readouterr().err, "nobody is nothing here: give a supporter's folder")
    assert list(tmp_path.iterdir()) == [tmp_path / "in.jsonl"]


@pytest.mark.slow
def test_run_then_predict_then_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_tiny(tmp_path)
    assert call(monkeypatch, "run", recipe, "--out", tmp_path / "run") == 0
    printed = capsys.readouterr().out
    assert "predict-decoupled" in printed
    assert "note: The noise floor of B" in printed
    assert str(tmp_path / "run" / "report.html") in printed.replace("\n", "")
    write_conversations(tmp_path / "in.jsonl", map(shorten, load_corpus("starter").test))
    out = tmp_path / "mine.jsonl"
    assert call(monkeypatch, "predict", tmp_path / "run" / "decoupled", tmp_path / "in.jsonl", out, "--greedy") == 0
    assert call(monkeypatch, "evaluate", out) == 0


def test_ctrl_c_says_how_to_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from esckit.recipes import runner

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupt)
    assert call(monkeypatch, "run", "starter", "--out", tmp_path / "run") == 130
    assert "the same command continues" in capsys.readouterr().err
