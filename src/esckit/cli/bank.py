"""``esckit check bank``. Heavy imports happen inside the command."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from esckit.cli import shared

if TYPE_CHECKING:
    from esckit.roles import Role


def check_bank_command(
    bank: Annotated[str, typer.Argument(help="A folder of roles (YAML, one a file), or shipped.")],
    as_json: shared.JsonOption = False,
) -> None:
    """Check a bank of roles: every file, every text in every language, every score.

    Example: esckit check bank my-roles
    """
    from esckit.roles import read_bank

    found = read_bank(bank)
    if as_json:
        roles = [
            {
                "name": role.name,
                "languages": role.languages,
                "topics": role.topics,
                "experiences": len(role.experiences),
            }
            for role in found.roles
        ]
        shared.print_json({"format": 1, "bank": found.source, "digest": found.digest, "roles": roles})
        return
    from esckit.report.figure_tables import draw, lay_out

    columns: dict[str, Callable[[Role], str]] = {
        "role": lambda role: role.name,
        "title": lambda role: role.titles[role.languages[0]],
        "languages": lambda role: ", ".join(role.languages),
        "topics": lambda role: str(len(role.topics)),
        "experiences": lambda role: str(len(role.experiences)),
    }
    notes = [f"every file of {found.source} can be used", f"digest {found.digest[:12]}"]
    print(draw(lay_out("Role bank", found.roles, columns, names=3, notes=notes)))
