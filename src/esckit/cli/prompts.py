"""``esckit prompts``: the shipped prompts, for a user to change."""

from pathlib import Path
from typing import Annotated

import typer


def prompts_command(out: Annotated[Path, typer.Argument(help="The folder to write: new, or empty.")]) -> None:
    """Write the prompts that a chat model is asked with, for you to change; give the folder with --prompts.

    Keep what you change and remove the rest: esckit's own stand in for what is not there.

    Example: esckit prompts my-prompts
    """
    from esckit.prompts.own import write_prompts

    written = len(write_prompts(out))
    commands = "esckit baseline, judge, annotate or search"
    print(f"{written} prompts in {out}; next: change some, then {commands} --prompts {out}")
