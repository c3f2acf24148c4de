"""A small searched tree, made by hand, and a search that answers with such trees."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from esckit.conversation import Aspect, Conversation, Preference, Turn, write_conversations
from esckit.mining.tree_search.options import SearchOptions
from esckit.strategy import Taxonomy
from tests.tiny import talk

KEPT = ("1", "3", "asked", "praised")
"""Kept turns: two of people, and two on another path."""


def node(key: str, parent: str, strategy: str, text: str | None, value: float, **scores: float) -> Turn:
    known = {"visits": 1.0, "value": value, "prior": 0.125, "score": 5.0, **scores}
    return Turn(key, parent, "supporter", text, strategy, "writer", known)


def searched_tree(conversation_id: str = "talk", *, decoupled: bool = True) -> Conversation:
    """A dialogue of two supporter turns after a search: four kept turns, four pairs, a turn that is only planned."""
    seed = talk(
        ("seeker", "I failed my exam."),
        ("supporter", "That must hurt.", "Reflection of feelings"),
        ("seeker", "It does."),
        ("supporter", "What happened?", "Question"),
        ("seeker", "I was ill that day."),
        conversation_id=conversation_id,
    )
    scores = {"1": (0.8, 3.0), "3": (0.7, 2.0)}
    gold = [
        replace(turn, scores={"value": scores[turn.id][0], "visits": scores[turn.id][1], "kept": 1})
        if turn.id in scores
        else turn
        for turn in seed.turns
    ]
    grown = [
        node("pushed", "0", "Providing Suggestions", "Try harder.", -0.4),
        node("asked", "0", "Question", "How long did you study?", 0.9, visits=2.0, kept=1),
        Turn("weeks", "asked", "seeker", "For weeks.", source="talker"),
        node("praised", "weeks", "Affirmation and Reassurance", "So much work went into this.", 0.8, kept=1, end=1),
        node("shrugged", "weeks", "Others", "Well.", -0.6),
        node("planned", "weeks", "Information", None, 0.0, visits=0.0),
        node("why", "2", "Question", "Why is that so?", 0.1),
    ]
    tree = replace(seed, turns=gold, provenance={"search": {"method": "search", "mode": "ours"}})
    pairs: list[tuple[str, str, Aspect]] = [
        *(("1", "pushed", "turn"), ("asked", "pushed", "turn")),
        *(("praised", "shrugged", "turn"), ("3", "why", "response")),
    ]
    if decoupled:
        pairs += [(chosen, rejected, "strategy") for chosen, rejected, aspect in pairs if aspect == "turn"]
    how: dict[str, Any] = {"reason": "low_value_once", "judge": "critic", "reasons": "cso"}
    return tree.grow(grown, [Preference(*pair, **how) for pair in pairs])


class StandIn:
    """Takes the place of the search in a recipe's run, and of the roles' checks; keeps what it was called with."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[dict[str, Any]] = []
        self.checked: list[dict[str, Any]] = []
        self.identity: Any = "roles"
        modules: dict[str, dict[str, Any]] = {
            "run": {"search_dialogues": self.search},
            "open_roles": {"check_roles": self.check, "roles_identity": lambda _: self.identity},
        }
        for name, members in modules.items():
            module = ModuleType(f"esckit.mining.tree_search.{name}")
            module.__dict__.update(members)
            patch.setitem(sys.modules, module.__name__, module)

    def check(self, options: SearchOptions, taxonomy: Taxonomy, seeds: Sequence[Conversation], **how: Any) -> None:
        self.checked.append({"taxonomy": taxonomy.name, "seeds": [seed.id for seed in seeds], **how})

    def search(
        self, conversations: Sequence[Conversation], options: SearchOptions, out: Path, **how: Any
    ) -> dict[str, Any]:
        """Write the same tree for each dialogue."""
        self.calls.append({"conversations": [each.id for each in conversations], "options": options, **how})
        trees = [searched_tree(each.id, decoupled=options.decoupled) for each in conversations]
        write_conversations(out / "trees.jsonl", trees)
        (out / "search.json").write_text(json.dumps({"seeds": len(trees)}), encoding="utf-8")
        return {"seeds": len(trees), "unanswered": {"reward": 2, "seeker": 0}, "statistics": {"dialogues": {}}}
