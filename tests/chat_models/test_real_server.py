"""A server that we did not write: `transformers serve` with a pocket backbone on loopback."""

import asyncio
import importlib.util
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch

from esckit.chat_models.asker import Asker
from esckit.chat_models.ledger import LEDGER, Ledger, Outcome
from esckit.chat_models.local import LocalChatModel
from esckit.chat_models.probe import probe
from esckit.chat_models.protocol import ChatRequest
from esckit.chat_models.remote import RemoteChatModel
from esckit.conversation import read_conversations, write_conversations
from esckit.conversation.turn_rule import Message
from esckit.corpora import load_corpus
from esckit.decoding import Decoding
from esckit.errors import ChatError
from esckit.judging.judge_run import judge_files
from esckit.judging.plan import JudgingOptions
from esckit.language_models.backbone import load_backbone
from esckit.language_models.pocket import make_pocket_model, train_tokenizer
from esckit.recipes.recipe import Recipe
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from esckit.recipes.trees import TREES
from tests.chat_models.questions import questions
from tests.judging.judged import dialogues, predicted
from tests.recipes.tiny import shorten
from tests.tiny import save_base, starter_dialogues

MISSING = [name for name in ("openai", "fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
NEEDED = f"transformers serve and its client need {', '.join(MISSING)}"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=NEEDED)]

GREEDY = Decoding(greedy=True, max_new_tokens=12)


class Served(NamedTuple):
    folder: Path
    url: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A pocket backbone with random weights, saved and served."""
    place = tmp_path_factory.mktemp("served")
    folder = place / "pocket"
    torch.manual_seed(0)
    tokenizer = train_tokenizer(load_corpus("starter").train[:20], 1000)
    model = make_pocket_model("2m", tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # larger weights, so that what it says depends on what it is asked
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (place / "hub/hub").mkdir(parents=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(place / "hub"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    command += ["--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    log = place / "log"
    with log.open("w") as file, subprocess.Popen(command, env=environment, stdout=file, stderr=file) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/v1/models", process, log)
            yield Served(folder, f"http://127.0.0.1:{port}/v1")
        finally:
            process.kill()


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(1200):
        assert process.poll() is None, log.read_text()
        try:
            urlopen(url, timeout=5).close()
        except (URLError, TimeoutError):
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"the server is not up after minutes: {log.read_text()}")


@pytest.fixture(autouse=True)
def some_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")


def ask(served: Served, path: Path, requests: list[ChatRequest], model: str = "") -> tuple[list[Outcome], Asker]:
    with Ledger(path) as ledger:
        remote = RemoteChatModel(model or str(served.folder), served.url, concurrency=2)
        asker = Asker(remote, ledger, "test/1")
        return asker.ask(requests), asker


def test_it_says_what_the_same_backbone_says_here(served: Served, tmp_path: Path) -> None:
    texts = ["I lost my job.", "My friends are far away, and I do not sleep.", "Why?"]
    requests = [ChatRequest((Message("system", "Be kind."), Message("user", text)), GREEDY) for text in texts]
    outcomes, asker = ask(served, tmp_path / "remote", requests)
    with Ledger(tmp_path / "local") as ledger:
        local = Asker(LocalChatModel(load_backbone(str(served.folder))), ledger, "test/1")
        assert [outcome.text.strip() for outcome in outcomes] == [o.text for o in local.ask(requests)]
    assert {outcome.state for outcome in outcomes} == {"done"}
    assert len({outcome.text for outcome in outcomes}) > 1
    assert asker.usage.prompt == local.usage.prompt


def test_random_weights_give_no_json_and_that_is_a_recorded_state(served: Served, tmp_path: Path) -> None:
    """This server takes the schema and does not keep to it."""
    requests = [replace(request, decoding=GREEDY) for request in questions(2)]
    outcomes, asker = ask(served, tmp_path / "ledger", requests)
    assert [outcome.state for outcome in outcomes] == ["unparsed", "unparsed"]
    assert all(outcome.text for outcome in outcomes)
    assert (asker.usage.calls, asker.usage.repairs) == (4, 2)
    again, asker = ask(served, tmp_path / "ledger", requests)
    assert (again, asker.usage.calls) == (outcomes, 0)


def test_a_judging_goes_through_it(served: Served, tmp_path: Path) -> None:
    """It cannot judge, and every verdict says so; by the same call again nothing is asked."""
    talks = dialogues(2, turns=1)
    options = JudgingOptions(
        model=f"remote:{served.folder}",
        base_url=served.url,
        reference="hidden",
        pairs=True,
        decoding=Decoding(greedy=True, max_new_tokens=4),
    )
    files = {name: predicted(talks, lambda c, t, name=name: f"{name} hears you") for name in ("one", "two")}  # type: ignore[misc]
    told: list[str] = []
    for _ in range(2):
        found = judge_files(files, talks, options, tmp_path, ledger=tmp_path / "ledger", tell=told.append)
        assert [row.states.unparsed for row in found.scores] == [2] * 8
        assert found.pairs[0].states.unparsed == 4
        assert found.differences == []
    assert "20 questions to ask" in told[0]
    assert "; 40 calls" in told[1]
    assert "0 questions to ask" in told[2]
    assert "; 0 calls" in told[3]


def test_a_mining_run_goes_through_it(served: Served, tmp_path: Path) -> None:
    """It names no error in any reply: that is a verdict without one, and nothing is kept or asked a second time."""
    for name, talk in zip(("train", "valid"), starter_dialogues(2, 6), strict=True):
        write_conversations(tmp_path / f"{name}.jsonl", [shorten(talk, 4)])
    save_base(tmp_path / "base")

    def recipe(clean_chosen: bool) -> Recipe:
        mine = {"stage": "mine", "name": "pairs", "model": "sft", "rule": "judged", "max_new_tokens": 6}
        body = {
            "format": 1,
            "corpus": {"name": "tree", "train": str(tmp_path / "train.jsonl"), "valid": str(tmp_path / "valid.jsonl")},
            "model": {"path": str(tmp_path / "base")},
            "annotator": {"model": f"remote:{served.folder}", "base_url": served.url, "concurrency": 2}
            | {"decoding": {"max_new_tokens": 12}},  # it would babble to the end
            "stages": [
                {"stage": "sft", "name": "sft", "part": "generator", "past_strategies": "hidden", "epochs": 1},
                {**mine, "clean_chosen": clean_chosen},
            ],
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps(body), encoding="utf-8")  # YAML, too
        return load_recipe(str(path))

    run(recipe(True), tmp_path / "run")
    facts = json.loads((tmp_path / "run/stages/pairs.json").read_text(encoding="utf-8"))["facts"]
    assert facts["judged"] == {"unparsed": facts["sampled"]}
    assert (facts["pairs"], facts["kept"]) == (0, 0)
    trees = read_conversations(tmp_path / "run/pairs" / TREES)
    verdicts = [verdict for tree in trees for turn in tree.turns for verdict in turn.verdicts]
    assert {verdict.state for verdict in verdicts} == {"unparsed"}
    assert len(verdicts) >= facts["sampled"] > 0
    calls = count_calls(tmp_path / "run" / LEDGER)
    assert calls >= 2 * facts["sampled"]  # each was asked to mend its answer once
    run(recipe(False), tmp_path / "run", fresh=True)
    assert count_calls(tmp_path / "run" / LEDGER) == calls


def count_calls(ledger: Path) -> int:
    with closing(sqlite3.connect(ledger)) as database:
        return int(database.execute("SELECT COUNT(*) FROM calls").fetchone()[0])


def test_it_is_asked_what_it_can_do(served: Served) -> None:
    """It passes over what it does not know, and babbles."""
    found = asyncio.run(probe(RemoteChatModel(str(served.folder), served.url)))
    assert found.calls == 4
    assert found.facts["limit"] == "as max_tokens"
    assert found.facts["system text"] == found.facts["temperature"] == found.facts["top_p"] == "taken"
    assert found.facts["log-probabilities"] == found.facts["two replies a call"] == "no (passed over)"
    assert "the reply does not fit" in found.facts["JSON"]
    assert found.reply_tokens


def test_a_model_that_it_does_not_serve_stops_the_run(served: Served, tmp_path: Path) -> None:
    """It calls that a bad request, so it is told by all requests being refused."""
    with pytest.raises(ChatError, match=r"every request was refused .*requested 'owner/other'"):
        ask(served, tmp_path / "ledger", questions(30), model="owner/other")
