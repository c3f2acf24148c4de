"""A run's folder with search stages, as the runner would have left it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from esckit.conversation import Conversation, write_conversations
from esckit.files import write_json
from esckit.mining.pairs import pair_statistics
from esckit.mining.tree_search.statistics import search_statistics
from tests.mining.tree_search.searched import ROLES, hand_made, searched
from tests.report.folder import HOSTILE, make_run

LONG_WORD: Final = "w" * 3000
RIGHT_TO_LEFT: Final = "\u202eמה שלומך היום?\u202e أشعر بالحزن"
EMOJI: Final = "👩‍👩‍👧 😢🙏🏽"


def make_search_run(folder: Path, trees: Sequence[Conversation] | None = None) -> Path:
    """The run of `make_run` with a search, whose pairs train a supporter that has predicted, and a control."""
    make_run(folder)
    recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    stages = [{"stage": "search", "name": "search"}, {"stage": "search", "name": "control"}]
    for stage in recipe["stages"]:
        if stage["name"] == "planner-dpo":
            stage["pairs"] = "search"
        if stage["name"] == "decoupled":
            stage["planner"] = "planner-dpo"
    recipe["stages"] = [*stages, *recipe["stages"]]
    write_json(folder / "recipe.json", recipe)
    add_search(folder, "search", trees or [hand_made("starter-002"), hostile(searched(300))], method="search")
    record = {"method": "best_of", "checked": None, "embedded_reward": False}
    add_search(folder, "control", [replace(hand_made("starter-003"), provenance={"search": {}})], **record)
    return folder


def add_search(folder: Path, name: str, trees: Sequence[Conversation], **changes: Any) -> None:
    """What a search stage writes."""
    calls = {"seeker": 200, "supporter": 300, "strategy": 0, "reward": 500}
    pairs = pair_statistics(trees)
    record = {
        "method": "search",
        "mode": "ours",
        "theta": 0.5,
        "range": [0.0, 1.0],
        "roles": ROLES,
        "seeds": len(trees),
        "iterations": 100,
        "ends": 12,
        "pairs": pairs["pairs"],
        "calls": calls,
        "calls_per_pair": 1000 / pairs["pairs"] if pairs["pairs"] else None,
        "unanswered": {"reward": 3, "seeker": 4},
        "stopped": {"iterations": len(trees)},
        "checked": {"judge": "embedded", "pairs": 20, "kept_sign": 0.65, "interval": [0.45, 0.85]},
        "statistics": search_statistics(trees),
        "embedded_reward": True,
    }
    write_conversations(folder / name / "trees.jsonl", trees)
    write_json(folder / name / "pairs.json", pairs)
    write_json(folder / name / "search.json", {**record, **changes})
    state = {"name": name, "stage": "search", "state": "done", "seconds": 60.0, "facts": {"pairs": pairs["pairs"]}}
    write_json(folder / f"stages/{name}.json", state)


def hostile(tree: Conversation) -> Conversation:
    """The tree with texts that want to be more than text."""
    texts = dict(enumerate((HOSTILE, LONG_WORD, RIGHT_TO_LEFT, EMOJI), 1))
    worded = [turn.id for turn in tree.turns if turn.source == "smollm2" and not turn.planned]
    changed = {worded[place]: text for place, text in texts.items()}
    return replace(tree, turns=[replace(turn, text=changed.get(turn.id, turn.text)) for turn in tree.turns])
