"""A judging as a page, and as a section of a run's report."""

import json
from importlib import resources
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from esckit import __version__
from esckit.errors import RunError
from esckit.files import atomic_write, read_text
from esckit.measures.judging_results import Judging
from esckit.report.page import page_environment

__all__ = ["read_judging", "write_judging_page"]

_FORMAT: Final = 1


def read_judging(path: Path) -> Judging:
    """Read the figures of a judging.

    Raises:
        RunError: the file is missing or broken, or a newer esckit wrote it; one sentence names it.
    """
    text = read_text(path, what="a judging (judging.json)", error=RunError)
    try:
        value = json.loads(text)
        if isinstance(value, dict) and value.get("format") != _FORMAT:
            raise RunError(
                f"{path} has format {value.get('format')!r} and this esckit reads {_FORMAT}: "
                "install the esckit that wrote it."
            )
        return TypeAdapter(Judging).validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise RunError(f"{path}, {where}: {problem['msg']}; run esckit judge into its folder again.") from error
    except json.JSONDecodeError as error:
        raise RunError(f"{path} is not JSON ({error}); run esckit judge into its folder again.") from error


def write_judging_page(folder: Path) -> Path:
    """Write ``judging.html`` beside a judging's ``judging.json``: one file, no network, no script.

    Raises:
        EsckitError: the figures are missing or broken, or the folder cannot be written.
    """
    from markupsafe import Markup

    style = Markup((resources.files("esckit.report") / "style.css").read_text(encoding="utf-8"))
    template = page_environment().get_template("judging_page.html.j2")
    judging = read_judging(folder / "judging.json")
    page = template.render(judging=judging, judgings={"": judging}, style=style, esckit_version=__version__)
    with atomic_write(folder / "judging.html") as file:
        file.write(page)
    return folder / "judging.html"
