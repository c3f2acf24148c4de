"""Searched trees, marked as docs/mining.md says: a small one by hand, and random ones of any size."""

import random
from dataclasses import replace
from typing import Any, Final

from esckit.conversation import Conversation, Preference, Turn, Verdict
from esckit.strategy import ESCONV

REWARD: Final = "embedded"
ROLES: Final = {"seeker": "smollm2", "supporter": "smollm2", "strategy": "embedded", "reward": REWARD}


def node(
    turn_id: str, parent: str, strategy: str, text: str | None = None, source: str = "smollm2", **scores: float
) -> Turn:
    """A supporter turn that the search knows."""
    known = {"visits": 0.0, "value": 0.0, "prior": 0.125, "score": 1.0, **scores}
    verdicts = [Verdict(REWARD, "cso/1", scores={"empathy": 2.0})] if "reward" in scores else []
    return Turn(turn_id, parent, "supporter", text, strategy, source, known, verdicts)


def hand_made(conversation_id: str = "by-hand") -> Conversation:
    """Two replies of the seed; the first beats one sibling, a sibling beats the second; two talks reach a kept end.

    The seed has 5 utterances. Kept: 1 (the seed's), c, e. Talks to an end: 0 1 2 3 4 (3 is not kept) and 0 1 2 c d e.
    """
    turns = [
        Turn("0", None, "seeker", "I failed my exam.", scores={"visits": 9.0, "value": 0.3}),
        node("1", "0", "Reflection of feelings", "That must hurt a lot.", "human", visits=7.0, value=0.6, kept=1.0),
        Turn("2", "1", "seeker", "It does."),
        node("3", "2", "Providing Suggestions", "Study more.", "human", visits=2.0, value=-0.3, end=1.0, reward=-0.3),
        Turn("4", "3", "seeker", "Bye."),
        node("a", "0", "Question"),
        node("b", "0", "Affirmation and Reassurance", "You are strong, truly.", visits=1.0, value=-0.4, judgements=1.0),
        node("c", "2", "Question", "What did you try so far?", visits=3.0, value=0.8, kept=1.0),
        node("f", "2", "Question", "Why?", visits=1.0, value=0.1),
        Turn("d", "c", "seeker", "Nothing at all.", source="smollm2"),
        node("e", "d", "Others", "Good luck!", visits=2.0, value=0.9, kept=1.0, end=1.0),
        Turn("g", "b", "seeker", "Thanks.", source="smollm2"),
        node("h", "d", "Information", closed=1.0),
    ]
    return Conversation(
        conversation_id,
        turns,
        preferences=[
            _pair("1", "b", "low_value_once", "0.60 (7) over -0.40 (1)"),
            _pair("c", "3", "low_value", "0.80 (3) over -0.30 (2)"),
            replace(_pair("c", "f", "low_value", "0.80 (3) over 0.10 (1)"), aspect="response"),
            replace(_pair("c", "3", "low_value", "0.80 (3) over -0.30 (2)"), aspect="strategy"),
        ],
        provenance={"search": search_record(root="0", curve=[[1, 0, 0, 6], [2, 1, 1, 14], [9, 2, 3, 40]])},
    )


def _pair(chosen: str, rejected: str, reason: str, explanation: str) -> Preference:
    return Preference(chosen, rejected, "turn", reason, REWARD, explanation, "cso")


def search_record(**changes: Any) -> dict[str, Any]:
    """What a search says of itself in its tree."""
    record: dict[str, Any] = {
        "method": "search",
        "mode": "ours",
        "switches": {},
        "theta": 0.5,
        "seed": 0,
        "leaves": 1,
        "roles": ROLES,
        "iterations": 9,
        "stopped": "iterations",
        "ends": 2,
        "calls": {"seeker": 10, "supporter": 15, "strategy": 0, "reward": 15},
        "unanswered": {"reward": 1},
    }
    return {**record, **changes}


def searched(turns: int, *, conversation_id: str = "random", seed: int = 0, deep: bool = False) -> Conversation:
    """A random tree of so many turns: a seed of 11, then states that get eight strategies, of which some are worded.

    ``deep`` words one strategy of the newest state each time: a talk as long as the tree has room for.
    """
    rng = random.Random(seed)
    grown: list[Turn] = _gold_path()
    open_nodes: list[int] = []
    states = [turn.id for turn in grown if turn.speaker == "seeker"][:-1]
    pairs: list[Preference] = []
    while len(grown) < turns:
        if states and (deep or not open_nodes or rng.random() < 0.3):
            state = states.pop()
            planned = [node(f"{state}.{n}", state, label) for n, label in enumerate(ESCONV.labels)][
                : turns - len(grown)
            ]
            grown += planned
            open_nodes += range(len(grown) - len(planned), len(grown))
        else:
            place = open_nodes.pop() if deep else open_nodes.pop(rng.randrange(len(open_nodes)))
            grown[place] = _worded(grown[place], rng)
            grown.append(Turn(f"{grown[place].id}s", grown[place].id, "seeker", _words(rng), source="smollm2"))
            states.append(grown[-1].id)
    siblings: dict[str | None, list[Turn]] = {}
    for turn in grown:
        if turn.scores.get("visits"):
            siblings.setdefault(turn.parent, []).append(turn)
    for near in siblings.values():
        bad = [turn for turn in near if "kept" not in turn.scores and turn.scores["value"] < 0.5]
        pairs += [
            _pair(one.id, other.id, "low_value_once" if other.scores["visits"] < 2 else "low_value", "")
            for one in near
            if "kept" in one.scores
            for other in bad
            if one.strategy != other.strategy
        ]
    curve = [[n, n // 10, min(len(pairs), n // 3), 8 * n] for n in range(1, 101)]
    return Conversation(
        conversation_id, grown, preferences=pairs, provenance={"search": search_record(root="s0", curve=curve)}
    )


def _gold_path() -> list[Turn]:
    turns = [Turn("s0", None, "seeker", "I feel low.", scores={"visits": 100.0, "value": 0.2})]
    for number in range(1, 6):
        label = ESCONV.labels[number]
        scores = {"visits": 20.0, "value": 0.4 + number / 20, "kept": 1.0} | ({"end": 1.0} if number == 5 else {})
        turns.append(node(f"g{number}", turns[-1].id, label, f"Gold reply {number}.", "human", **scores))
        turns.append(Turn(f"s{number}", f"g{number}", "seeker", f"Gold answer {number}."))
    return turns


def _worded(turn: Turn, rng: random.Random) -> Turn:
    value = round(rng.gauss(0.1, 0.5), 2)
    scores = {**turn.scores, "visits": float(rng.randint(1, 5)), "value": value, "reward": value, "judgements": 1.0}
    verdicts = [Verdict(REWARD, "cso/1", scores={"empathy": float(rng.randint(0, 4))})]
    return replace(turn, text=_words(rng), scores={**scores, "kept": 1.0} if value > 0.5 else scores, verdicts=verdicts)


def _words(rng: random.Random) -> str:
    return " ".join(rng.choices(("well", "you", "could", "try", "to", "rest", "and", "talk", "about", "it"), k=12))
