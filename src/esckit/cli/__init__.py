"""The command line: a module for each family of commands. Heavy imports happen inside commands."""

from esckit.cli.entry import EXTRA_OF, app, main

__all__ = ["EXTRA_OF", "app", "main"]
