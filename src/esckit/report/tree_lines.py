"""A conversation tree line by line, for a page and for a terminal.

The main line of a talk goes straight on, and what else was said at a turn stands beside it, with its own talk below.
Off the recorded dialogue the main line is the child with most turns behind it, so a tree of n turns never goes deeper
than log2(n) + 2 levels, however long its talks are. No recursion: a talk may be longer than Python's stack.
"""

from collections.abc import Container, Iterator, Sequence
from typing import Final, NamedTuple

from esckit.conversation import Conversation, Turn
from esckit.strategy import TAXONOMIES

__all__ = ["Marks", "TreeLine", "figures_of", "first_turns", "short_names", "tree_lines", "untried_line"]

_MINUS: Final = "\u2212"


class TreeLine(NamedTuple):
    """One line of a drawn tree.

    Attributes:
        level: how often the way here left a main line.
        turn: what was said; None where the line names siblings that were not tried.
        place: its number in its talk, from 1.
        leaves: it begins a way beside the main line; all lines of its level or deeper up to the next one that leaves
            or goes back belong to it.
        untried: planned siblings that the search never came to.
    """

    level: int
    turn: Turn | None
    place: int
    leaves: bool = False
    untried: tuple[Turn, ...] = ()


def tree_lines(
    tree: Conversation, shown: Container[str] | None = None, deepest: int | None = None
) -> Iterator[TreeLine]:
    """Yield every line, linear in the tree: a turn, the ways beside it, then what follows it.

    Args:
        tree: any conversation tree; what a search knows of its turns may be missing.
        shown: ids of the turns to yield, with each its parent; None: all.
        deepest: no turn after so many of a talk.
    """
    sizes = _sizes(tree)
    recorded = {turn.id for turn in tree.trunk}
    waiting: list[TreeLine | tuple[str | None, int, int]] = [(None, 0, 1)]  # a line, or (parent, level, place)
    while waiting:
        item = waiting.pop()
        if isinstance(item, TreeLine):
            yield item
            if item.leaves and item.turn:
                waiting.append((item.turn.id, item.level, item.place + 1))
            continue
        parent, level, place = item
        if deepest is not None and place > deepest:
            continue
        children = tree.children(parent)
        untried = tuple(turn for turn in children if _is_untried(turn))
        near = [turn for turn in children if not _is_untried(turn) and (shown is None or turn.id in shown)]
        near.sort(key=lambda turn: (turn.id not in recorded, -sizes[turn.id]))
        if near:
            yield TreeLine(level, near[0], place)
            waiting.append((near[0].id, level, place + 1))
        if untried:
            waiting.append(TreeLine(level, None, place, untried=untried))
        waiting += [TreeLine(level + 1, turn, place, leaves=True) for turn in reversed(near[1:])]


def _is_untried(turn: Turn) -> bool:
    """True of a planned turn that a search never came to; other planned turns are what a tree is about."""
    return turn.planned and turn.scores.get("visits") == 0 and "closed" not in turn.scores


def _sizes(tree: Conversation) -> dict[str | None, int]:
    """How many turns with a text each turn has behind it, itself included."""
    sizes: dict[str | None, int] = {}
    for turn in reversed(tree.turns):
        sizes[turn.id] = sizes.get(turn.id, 0) + (not turn.planned)
        sizes[turn.parent] = sizes.get(turn.parent, 0) + sizes[turn.id]
    return sizes


def first_turns(tree: Conversation, most: int) -> set[str]:
    """Ids of so many turns, each with its parent: first the ways to turns of pairs, then the others in their order."""
    paired = {turn_id for pair in tree.preferences for turn_id in (pair.chosen, pair.rejected)}
    wanted: set[str | None] = {*paired}
    for turn in reversed(tree.turns):
        if turn.id in wanted:
            wanted.add(turn.parent)
    drawn = [turn for turn in tree.turns if not _is_untried(turn)]
    return {turn.id for turn in sorted(drawn, key=lambda turn: turn.id not in wanted)[:most]}


class Marks:
    """What is told of a turn in words: the seed's own, kept, chosen, rejected, the end, no answer."""

    def __init__(self, tree: Conversation) -> None:
        self._recorded = {turn.id for turn in tree.trunk} if "search" in tree.provenance else set()
        self._chosen = {pair.chosen for pair in tree.preferences}
        self._rejected = {pair.rejected: pair.explanation for pair in tree.preferences}

    def of(self, turn: Turn) -> list[str]:
        """The marks of a turn, each a sign and words or words alone."""
        kept = "kept" in turn.scores
        told = {
            "seed": turn.id in self._recorded and turn.speaker == "supporter",
            "✓ kept": kept,
            "✓ chosen": turn.id in self._chosen and not kept,
            "✗ rejected": turn.id in self._rejected,
            "end": "end" in turn.scores,
            "no answer": turn.planned and "closed" in turn.scores,
        }
        return [mark for mark, true in told.items() if true]

    def why_rejected(self, turn: Turn) -> str | None:
        """The explanation of the last pair that rejects it."""
        return self._rejected.get(turn.id)


def figures_of(turn: Turn) -> list[str]:
    """What a search knows of a turn: its value and visits, its own judgements' mean and number, its prior."""
    scores, told = turn.scores, []
    if visits := scores.get("visits"):
        told += [_signed(scores["value"]), f"{visits:.0f} visit{'s' * (visits != 1)}"]
    if "reward" in scores:
        told.append(f"own {_signed(scores['reward'])} ({scores.get('judgements', 1):.0f})")
    return [*told, f"P {scores['prior']:.2f}"] if told and "prior" in scores else told


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", _MINUS)  # no minus before 0.00


def short_names(tree: Conversation) -> dict[str, str]:
    """The short form of each label of the tree's taxonomy."""
    return TAXONOMIES[tree.taxonomy].abbreviations if tree.taxonomy else {}


def untried_line(turns: Sequence[Turn], names: dict[str, str]) -> str:
    """``2 not tried: Que, Inf``."""
    return f"{len(turns)} not tried: {', '.join(names.get(str(t.strategy), str(t.strategy)) for t in turns)}"
