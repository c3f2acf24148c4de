"""From a searched tree to what is worth keeping, and to pairs (CSO, equations 5 and 6)."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from esckit.conversation import CSO_REASONS, Aspect, Conversation, Preference, Turn

__all__ = ["Extracted", "Rule", "extract", "is_node", "preferences"]

_VISITS: int = 2  # of an end, as coded


class Rule(NamedTuple):
    """What is kept, and by whom it was judged.

    Attributes:
        keep: see `options.SearchOptions`.
        theta: what is kept is worth more.
        decoupled: pairs of two strategies train a planner, too.
        judge: the reward role's name.
    """

    keep: Literal["path", "end", "turn"]
    theta: float
    decoupled: bool = False
    judge: str | None = None

    def worth(self, turn: Turn) -> float:
        """What a turn is worth: by its own judgements, or by all that was backed up through it."""
        return turn.scores["reward" if self.keep == "turn" else "value"]

    def known(self, turn: Turn) -> int:
        """On how many judgements, or visits, that rests; 0 where it is not known."""
        return int(turn.scores.get("judgements" if self.keep == "turn" else "visits", 0))


class Extracted(NamedTuple):
    """Ids of turns.

    Attributes:
        kept: turns that are worth keeping, in the order of the tree.
        pairs: chosen and rejected.
    """

    kept: list[str]
    pairs: list[tuple[str, str]]


def is_node(turn: Turn) -> bool:
    """Whether a search has looked at a turn: it has a text and was visited or judged."""
    seen = turn.scores.get("visits") or turn.scores.get("judgements")
    return turn.speaker == "supporter" and not turn.planned and bool(seen)


def extract(tree: Conversation, rule: Rule) -> Extracted:
    """Find the kept turns of a searched tree and, for each, the siblings that are worth too little; linear in the tree.

    A sibling has a text that differs, or another strategy.
    """
    kept = _by_turn(tree, rule) if rule.keep == "turn" else _by_path(tree, rule)
    found = []
    for turn in tree.turns:
        if turn.id in kept:
            found += [(turn.id, other.id) for other in _worse(tree, turn, rule, kept)]
    return Extracted([turn.id for turn in tree.turns if turn.id in kept], found)


def _by_turn(tree: Conversation, rule: Rule) -> set[str]:
    """Turns that are worth more than theta, after people's turns or such turns alone."""
    people = {turn.id for turn in tree.trunk}
    kept: set[str] = set()
    sound: set[str | None] = {None}
    for turn in tree.turns:
        good = is_node(turn) and rule.known(turn) and rule.worth(turn) > rule.theta
        if good and turn.parent in sound:
            kept.add(turn.id)
        if turn.parent in sound and (turn.id in people or good or turn.speaker == "seeker"):
            sound.add(turn.id)
    return kept


def _by_path(tree: Conversation, rule: Rule) -> set[str]:
    """The turns of all paths to an end that is worth enough: equation 5, or as coded the end alone decides."""
    kept: set[str] = set()
    for end in tree.turns:
        if not (is_node(end) and end.scores.get("end")):
            continue
        path = [turn for turn in tree.path(end.id) if is_node(turn)]
        if rule.keep == "end":
            good = rule.worth(end) >= rule.theta and end.scores["visits"] >= _VISITS
        else:
            good = all(rule.worth(turn) > rule.theta for turn in path)
        kept.update(turn.id for turn in path if good)
    return kept


def _worse(tree: Conversation, turn: Turn, rule: Rule, kept: set[str]) -> Iterator[Turn]:
    for other in tree.children(turn.parent):
        if other.id in kept or not is_node(other) or not rule.known(other):
            continue
        low = rule.worth(other) <= rule.theta if rule.keep == "end" else rule.worth(other) < rule.theta
        if low and (other.strategy != turn.strategy or (other.text or "").strip() != (turn.text or "").strip()):
            yield other


def preferences(tree: Conversation, found: Extracted, rule: Rule) -> Iterator[Preference]:
    """The preferences that pairs are: of turns, or of replies under one strategy; and of strategies where wanted.

    A strategy that is kept there with other words is not rejected, and two strategies are compared once.
    """
    kept = {(tree.turn(turn).parent, tree.turn(turn).strategy) for turn in found.kept}
    seen = set()
    for chosen_id, rejected_id in found.pairs:
        chosen, rejected = tree.turn(chosen_id), tree.turn(rejected_id)
        how = {
            "reason": "low_value" if rule.known(rejected) > 1 else "low_value_once",
            "judge": rule.judge,
            "explanation": f"{_worth(chosen, rule)} over {_worth(rejected, rule)}",
            "reasons": CSO_REASONS,
        }
        key = (chosen.parent, chosen.strategy, rejected.strategy)
        of_strategies = rule.decoupled and key not in seen and (chosen.parent, rejected.strategy) not in kept
        seen.add(key)
        yield from two_sides(chosen, rejected, how, decoupled=of_strategies)


def two_sides(chosen: Turn, rejected: Turn, how: dict[str, Any], *, decoupled: bool) -> Iterator[Preference]:
    """One turn over another, for the coupled part; with ``decoupled`` also one strategy over another."""
    aspect: Aspect = "response" if chosen.strategy == rejected.strategy else "turn"
    yield Preference(chosen.id, rejected.id, aspect, **how)
    if decoupled and aspect == "turn":
        yield Preference(chosen.id, rejected.id, "strategy", **how)


def _worth(turn: Turn, rule: Rule) -> str:
    return f"{rule.worth(turn):.2f} ({rule.known(turn)})"
