"""A searched tree as HTML that unfolds without a script: the main line in the open, each way beside it in a fold."""

from typing import TYPE_CHECKING, Final

from esckit.conversation import Conversation, Turn
from esckit.report.tree_lines import Marks, TreeLine, figures_of, first_turns, short_names, tree_lines, untried_line

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["MOST_TURNS", "draw_tree"]

MOST_TURNS: Final = 1000
"""Turns of a tree that a page draws; `esckit tree` prints all."""

_PEEK: Final = 90  # characters of a folded reply


def draw_tree(tree: Conversation, most: int = MOST_TURNS) -> "Markup":
    """Draw a tree, the ways to the turns of its pairs before others where it has more turns than ``most``.

    Linear in the tree, without recursion: lines become tags one after the other, and a fold is closed when a line comes
    that does not belong to it.
    """
    from markupsafe import Markup

    page = _Drawing(tree)
    shown = first_turns(tree, most) if len(tree.turns) > most else None
    for line in tree_lines(tree, shown):
        page.add(line)
    return Markup(page.finish())


class _Drawing:
    """Tags so far, and how many folds are open."""

    def __init__(self, tree: Conversation) -> None:
        self.marks, self.names = Marks(tree), short_names(tree)
        self.tags: list[str] = []
        self.open = 0

    def add(self, line: TreeLine) -> None:
        self._close(line.level - line.leaves)
        if line.turn is None:
            self.tags.append(f'<p class="untried">{_text(untried_line(line.untried, self.names))}</p>')
        elif line.leaves:
            peek = _text(_cut(line.turn.text or "(no text)"))
            head = f'<summary>{self._head(line)}<span class="peek" dir="auto">{peek}</span></summary>'
            self.tags.append(f'<details class="way {self._kind(line.turn)}">{head}{self._body(line.turn)}')
            self.open = line.level
        else:
            kind = f"{line.turn.speaker} {self._kind(line.turn)}"
            self.tags.append(
                f'<div class="step {kind}"><p class="who">{self._head(line)}</p>{self._body(line.turn)}</div>'
            )

    def finish(self) -> str:
        self._close(0)
        return "\n".join(self.tags)

    def _close(self, level: int) -> None:
        self.tags.append("</details>" * (self.open - level)) if self.open > level else None
        self.open = min(self.open, level)

    def _kind(self, turn: Turn) -> str:
        marks = self.marks.of(turn)
        return "rejected" if "✗ rejected" in marks else "kept" if {"✓ kept", "✓ chosen"} & {*marks} else ""

    def _head(self, line: TreeLine) -> str:
        turn = line.turn
        assert turn
        if turn.speaker == "seeker":
            return f"{line.place} seeker"
        who = self.names.get(str(turn.strategy), turn.strategy or turn.speaker)
        told = [f"{line.place} <b>{_text(who)}</b>", *map(_text, figures_of(turn))]
        marks = (f'<span class="mark">{_text(mark)}</span>' for mark in self.marks.of(turn))
        return " ".join([", ".join(told), *marks])

    def _body(self, turn: Turn) -> str:
        said = f'<p class="said" dir="auto">{_text(turn.text or "(no text)")}</p>'
        about = [told for told in (_judged(turn), self.marks.why_rejected(turn)) if told]
        return said + "".join(f'<p class="about" dir="auto">{_text(told)}</p>' for told in about)


def _judged(turn: Turn) -> str:
    """What the search's judges scored."""
    scored = (verdict.scores.items() for verdict in turn.verdicts if "visits" in turn.scores)
    return ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for scores in scored for name, value in scores)


def _cut(text: str) -> str:
    line = " ".join(text[: 2 * _PEEK].split())
    return line if len(line) <= _PEEK else f"{line[:_PEEK]}…"


def _text(text: str) -> str:
    from markupsafe import escape

    return str(escape(text))
