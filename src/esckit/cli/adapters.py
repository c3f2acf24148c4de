"""``esckit export adapters``: a mixture of experts as plain LoRA folders; heavy imports inside."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from esckit.errors import EsckitError
from esckit.quiet import quiet

__all__ = ["export_adapters_command"]


def export_adapters_command(
    supporter: Annotated[Path, typer.Argument(help="A supporter's folder, or that of an adapter of experts.")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    pair: Annotated[
        list[str] | None,
        typer.Option(help="role=NAME,strategy=LABEL, or one of both; again for each pair.", metavar="PAIR"),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every pair of a role and a strategy.")] = False,
    base: Annotated[str | None, typer.Option(help="Of an adapter that names none, or another one.")] = None,
) -> None:
    """Write a generator's experts as plain LoRA folders, one a pair, for vLLM, transformers and llama.cpp.

    adapters.json beside them says what each is, and the line that serves them (docs/experts.md).

    Example: esckit export adapters runs/starter-empath/empath adapters --pair role=wukong,strategy=Question
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / "adapters.json").exists():
        raise EsckitError(f"{out} holds something else than exported adapters: choose another folder.")
    quiet()
    from esckit.supporters.export_adapters import export_adapters

    written = export_adapters(supporter, out, _pairs(pair or ()), every=every, base=base)
    print(f"{len(written.names)} adapters of rank {written.rank} at most on {written.base}, in {out}\n{written.serve}")


def _pairs(told: Sequence[str]) -> list[dict[str, str]]:
    """What ``--pair`` says; a member may have blanks, and no comma."""
    found = []
    for text in told:
        parts = [part.partition("=") for part in text.split(",")]
        members = {kind.strip(): member.strip() for kind, _, member in parts}
        if len(members) < len(parts) or not all(members) or not all(members.values()):
            raise EsckitError(f"--pair {text!r} is no pair: write role=NAME,strategy=LABEL, or one of both.")
        found.append(members)
    return found
