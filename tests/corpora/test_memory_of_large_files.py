"""Ten thousand dialogues of ESConv's size: ``check`` and ``stats`` in at most 1 GB each."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from esckit.corpora import load_corpus
from esckit.corpora.esconv import conversation_to_esconv

DIALOGUES = 10_000
UTTERANCES = 30  # ESConv has 29.7 a dialogue, of 16 words
# The peak is this process's own: what the operating system counts for children begins with the parent's memory.
COMMAND = """
import atexit, pathlib, sys
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: print(status.read_text().split("VmHWM:")[1].split()[0], file=sys.stderr))
from esckit.cli import main
main()
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dialogues of the starter corpus's utterances, in which two words of five are drawn anew: 50 MB."""
    rng = random.Random(0)
    source = [conversation_to_esconv(each) for each in load_corpus("starter").train]
    said: dict[str, list[Any]] = {"seeker": [], "supporter": []}
    for each in source:
        for entry in each["dialog"]:
            said[entry["speaker"]].append(entry)
    words = [word for entries in said.values() for entry in entries for word in entry["content"].split()]

    def drawn(text: str) -> str:
        return " ".join(rng.choice(words) if rng.random() < 0.4 else word for word in text.split())

    path = tmp_path_factory.mktemp("large") / "ESConv.json"
    with path.open("w", encoding="utf-8") as file:
        for number in range(DIALOGUES):
            entries = [rng.choice(said[("seeker", "supporter")[n % 2]]) for n in range(UTTERANCES)]
            dialog = [{**entry, "content": drawn(entry["content"])} for entry in entries]
            item = {"id": number, "situation": drawn(rng.choice(source)["situation"]), "dialog": dialog}
            file.write((",\n" if number else "[\n") + json.dumps(item))
        file.write("\n]\n")
    return path


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured where /proc tells it")
@pytest.mark.parametrize("command", ["check", "stats"])
def test_ten_thousand_dialogues(command: str, large: Path) -> None:
    arguments = [sys.executable, "-c", COMMAND, "corpus", command, str(large), "--json"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    figures = json.loads(done.stdout)
    dialogues = figures["dialogues"][str(large)] if command == "check" else figures[str(large)]["dialogues"]
    assert dialogues == DIALOGUES
    assert int(done.stderr) < 1_000_000  # kB
