"""What the terminal chat prints of a reply and of the tree, each in a line."""

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esckit.supporters.chat import Answer, Branch

__all__ = ["drawn", "note", "short"]


def note(answer: "Answer") -> str:
    """The chosen strategy, how it came about, and the planner's three most likely ones."""
    if "danger" in answer.turn.extra:
        return f"  [{answer.turn.id}] a fixed text; no model has answered"
    chosen = answer.turn.strategy or "no strategy named"
    if answer.skipped:
        chosen += f" (there is no other reply under {', '.join(answer.skipped)})"
    elif answer.forced:
        chosen += " (asked for)"
    if answer.cut:
        chosen += ", cut at its greatest length"
    if role := answer.turn.extra.get("role"):
        story = answer.turn.extra.get("experience")
        chosen += f", as {role}" + (f", with the story {story}" if story else "")
    top = ", ".join(f"{label} {p:.0%}" for label, p in list(answer.probabilities.items())[:3])
    return f"  [{answer.turn.id}] {chosen}" + (f"; planner: {top}" if top else "")


def drawn(branch: "Branch", labels: dict[str, str]) -> str:
    """A turn of the tree; ``labels`` are the strategies' short forms."""
    turn = branch.turn
    who = "you" if turn.speaker == "seeker" else labels.get(str(turn.strategy), turn.source)
    head = f"{'*' if branch.current else ' '}{turn.id:>4} {'  ' * min(branch.forks, 12)}{who}: "
    return head + short(turn.text or "", max(20, shutil.get_terminal_size().columns - len(head) - 1))


def short(text: str, width: int) -> str:
    from esckit.supporters.chat import printable

    line = " ".join(printable(text).split())
    return line if len(line) <= width else line[: width - 3] + "..."
