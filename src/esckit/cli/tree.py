"""``esckit tree``: a conversation tree in the terminal."""

import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from esckit.errors import EsckitError

if TYPE_CHECKING:
    from rich.text import Text

    from esckit.conversation import Conversation
    from esckit.report.tree_lines import Marks, TreeLine

_SHOWN: Final = 5  # ids named
_WIDTH: Final = 160  # where there is no terminal
_LEVELS: Final = 8  # that are indented; deeper ones as this one
_STYLES: Final = {"✓ kept": "green", "✓ chosen": "green", "✗ rejected": "red"}


def tree_command(
    file: Annotated[Path, typer.Argument(help="Conversation trees (JSON Lines), searched, mined or plain.")],
    id: Annotated[str | None, typer.Argument(help="Which conversation; default: the first one.")] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="At most so many turns of each talk.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also the strategies that a search did not try.")] = False,
) -> None:
    """Print a conversation tree, a turn a line: strategy, value, visits, prior, marks, text.

    The main line stands at the left; what else was said at a turn is indented below it, with its own talk.

    Example: esckit tree runs/starter-cso/search/trees.jsonl starter-001 --depth 8
    """
    from rich.console import Console

    tree = _choose(file, id)
    console = Console(highlight=False, soft_wrap=True)
    width = console.width if console.is_terminal else _WIDTH
    for line in _drawn(tree, width, depth, all_):
        console.print(line)


def _choose(file: Path, wanted: str | None) -> "Conversation":
    """The conversation that is asked for, or the first one; then the others are told."""
    from esckit.conversation import iterate_conversations

    first, others = None, []
    for tree in iterate_conversations(file):
        if tree.id == wanted:
            return tree
        others.append(tree.id)
        first = first or tree
    if first is None:
        raise EsckitError(f"{file} holds no conversation: give a file of conversation trees.")
    if wanted is not None:
        near = get_close_matches(wanted, others, _SHOWN) or others[:_SHOWN]
        raise EsckitError(
            f"{file} has no conversation {wanted!r}: give one of its {len(others)}, such as {_few(near)}."
        )
    if len(others) > 1:
        told = f"{len(others) - 1} more conversations, such as {_few(others[1 : _SHOWN + 1])}"
        print(f"note: {first.id} is the first one; the file holds {told}", file=sys.stderr)
    return first


def _few(ids: list[str]) -> str:
    return ", ".join(_one_line(each) for each in ids)


def _drawn(tree: "Conversation", width: int, depth: int | None, untried: bool) -> "Iterator[Text]":
    from rich.text import Text

    from esckit.report.tree_lines import Marks, short_names, tree_lines, untried_line

    marks, names = Marks(tree), short_names(tree)
    drawn = left = 0
    yield Text(f"{_one_line(tree.id)}: {len(tree.turns):,} turns, {len(tree.preferences):,} pairs", style="bold")
    for line in tree_lines(tree, deepest=depth):
        indent = "  " * min(line.level, _LEVELS)
        if line.turn:
            drawn += 1
            text = _turn_line(line, marks, names, indent)
        else:
            left += len(line.untried)
            if not untried:
                continue
            text = Text(f"{indent}  {untried_line(line.untried, names)}", style="dim")
        text.truncate(width, overflow="ellipsis")
        yield text
    if deeper := len(tree.turns) - drawn - left:
        yield Text(f"{deeper:,} turns are deeper than {depth}", style="dim")
    if left and not untried:
        yield Text(f"{left:,} planned turns were not tried (--all names them)", style="dim")


def _turn_line(line: "TreeLine", marks: "Marks", names: dict[str, str], indent: str) -> "Text":
    from rich.text import Text

    from esckit.report.tree_lines import figures_of

    turn = line.turn
    assert turn
    who = names.get(turn.strategy, turn.strategy) if turn.strategy else turn.speaker
    drawn = Text(f"{indent}{'+ ' if line.leaves else '  '}{line.place:>3} ", style="dim")
    drawn.append(f"{_one_line(who):<7}", style="bold")
    told = figures_of(turn) if turn.speaker == "supporter" else []
    drawn.append(f" {', '.join(told)}" if told else "")
    for mark in marks.of(turn):
        drawn.append(f" {mark}", style=_STYLES.get(mark, "dim"))
    drawn.append("  (planned)" if turn.planned else f"  {_one_line(turn.text or '')}")
    return drawn


def _one_line(text: str) -> str:
    """What can be printed of a text, on one line; at most as much as a line may show."""
    from esckit.supporters.chat import printable

    return " ".join(printable(text[: 4 * _WIDTH]).split())
