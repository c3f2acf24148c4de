"""Every command in the documentation runs: on small files of the names that the pages use, in the pages' own words.

`esckit run` is checked as it stands (`--check`), as some recipes take hours; all else is carried out.
"""

import json
import os
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from esckit.cli import main
from esckit.conversation import Conversation, Preference, Turn, Verdict, write_conversations
from esckit.corpora import load_corpus, write_corpus
from esckit.strategy import ESCONV
from esckit.supporters.supporter import SupporterCard, save_supporter
from esckit.training.encoder import train_planner
from tests.recipes.tiny import shorten
from tests.tiny import TINY_PLANNER, save_base, tiny_encoder, write_supporter

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BACKBONES = (
    "models/my-model",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct",
    "meta-llama/Llama-3.1-8B-Instruct",
)


def commands() -> list[str]:
    """Lines of examples that begin with esckit; what stands in brackets is taken, what follows a # is not."""
    lines = [line for page in PAGES for line in page.read_text(encoding="utf-8").splitlines()]
    found = [re.sub(r"\s+#.*", "", line).strip() for line in lines if re.match(r"(    )?esckit [a-z]+ ?[^ ]*", line)]
    return sorted({re.sub(r"[][]", "", each) for each in found if not re.match(r"esckit (has|is|builds) ", each)})


def test_there_are_commands_to_run() -> None:
    assert len(commands()) > 25


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all files that the pages name."""
    folder = tmp_path_factory.mktemp("workshop")
    starter = load_corpus("starter")
    parts = {"train": starter.train[:8], "valid": starter.valid[:3], "test": starter.test[:3]}
    for place, (name, conversations) in enumerate(parts.items()):
        for spelt in (name, name.upper(), f"parts/{name}"):
            path = folder / f"{spelt}.json"
            path.parent.mkdir(exist_ok=True)
            write_corpus(path, [shorten(each, 10) for each in conversations], "esconv")
            rows = json.loads(path.read_text(encoding="utf-8"))
            path.write_text(json.dumps([{"id": 10 * place + i, **row} for i, row in enumerate(rows)]), encoding="utf-8")
    write_corpus(folder / "ESConv.json", whole(starter.train), "esconv")
    write_corpus(folder / "esconv.jsonl", whole(starter.train)[:5])
    for name in ("dialogues.jsonl", "dialogues.json"):
        write_conversations(folder / name, [shorten(each) for each in starter.test[:2]])
    grown = [with_pair(shorten(each)) for each in starter.train[:2]]
    for name in ("trees.jsonl", "runs/starter/planner-pairs/trees.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_conversations(folder / name, grown)
    judged = [replace(tree, turns=[with_verdict(turn) for turn in tree.turns]) for tree in grown]
    write_conversations(folder / "annotated.jsonl", judged)
    write_supporter(folder / "runs/starter/decoupled")
    write_planner(folder / "runs/planner", tmp_path_factory.mktemp("encoder"))
    write_predictions(folder)
    for source in BACKBONES:
        save_base(folder / source)
    return folder


def whole(conversations: list[Conversation]) -> list[Conversation]:
    """As many dialogues as ESConv has, each two turns long."""
    short = [shorten(each, 2) for each in conversations]
    return [replace(short[i % len(short)], id=f"esconv-{i}") for i in range(1300)]


def with_verdict(turn: Turn) -> Turn:
    """A supporter turn judged to be clean."""
    clean = Verdict("by hand", "psychological-errors/1")
    return replace(turn, verdicts=[clean]) if turn.speaker == "supporter" else turn


def with_pair(conversation: Conversation) -> Conversation:
    """The dialogue with a preference on its first reply."""
    gold = next(turn for turn in conversation.trunk if turn.strategy)
    worded = replace(gold, id="worded", text="Calm down.", source="model")
    pair = Preference(gold.id, worded.id, "response")
    return replace(conversation.grow([worded]), preferences=[pair])


def write_planner(folder: Path, work: Path) -> None:
    """An encoder planner that only plans."""
    train_planner(load_corpus("starter").train[:4], tiny_encoder(work / "encoder"), ESCONV, TINY_PLANNER, work / "made")
    save_supporter(
        folder, SupporterCard("decoupled", "gold", planner="encoder", generator="none"), {"planner": work / "made"}
    )


def write_predictions(folder: Path) -> None:
    """Predictions in our form and in LLaMA-Factory's, and ratings."""
    turns = [(i, ESCONV.labels[i % 8], ESCONV.labels[i % 7]) for i in range(24)]
    rows = [
        {
            "conversation_id": str(i // 4),
            "turn_id": str(i),
            "gold_strategy": gold,
            "predicted_strategy": said,
            "gold_text": "I hear you.",
            "predicted_text": "I see.",
        }
        for i, gold, said in turns
    ]
    for name in ("predictions", "coupled", "decoupled"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    others = [{"label": f"[{gold}] I hear you.", "predict": f"[{said}] I see."} for _, gold, said in turns]
    lines = "".join(json.dumps(row) + "\n" for row in others)
    (folder / "generated_predictions.jsonl").write_text(lines, encoding="utf-8")
    ratings = "".join(f"{item},{rater},{(item + (rater == 'b')) % 3}\n" for item in range(6) for rater in "ab")
    (folder / "ratings.csv").write_text(f"item,rater,rating\n{ratings}", encoding="utf-8")
    (folder / "prompt.txt").write_text("Be kind.", encoding="utf-8")
    (folder / "my-recipe.yaml").write_text((ROOT / "src/esckit/recipes/starter.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", commands())
def test_the_command_runs(
    command: str, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = shutil.copytree(workshop, tmp_path / "here", copy_function=os.link)
    monkeypatch.chdir(here)
    monkeypatch.setattr("sys.stdin", (tmp_path / "empty").open("a+", encoding="utf-8"))
    words = shlex.split(command)
    if words[1:3] == ["corpus", "split"]:
        shutil.rmtree(here / words[4])  # it makes what other commands read
    if words[1] == "run" and "--check" not in words:
        words.append("--check")
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as left:
        main()
    printed = capsys.readouterr()
    findings = 1 if "check" in words[1:3] else 0  # the exit code of a check that finds something
    assert left.value.code in (None, 0, findings), printed.err
    assert printed.out.strip()
