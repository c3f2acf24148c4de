"""A judging as a page of its own; in a run's report it is a section."""

from importlib import resources
from pathlib import Path

from esckit import __version__
from esckit.files import atomic_write
from esckit.measures.judging_results import Judging
from esckit.report.page import page_environment
from esckit.report.reading import read_record

__all__ = ["write_judging_page"]


def write_judging_page(folder: Path) -> Path:
    """Write ``judging.html`` beside a judging's ``judging.json``: one file, no network, no script.

    Raises:
        EsckitError: the figures are missing or broken, or the folder cannot be written.
    """
    from markupsafe import Markup

    style = Markup((resources.files("esckit.report") / "style.css").read_text(encoding="utf-8"))
    template = page_environment().get_template("judging_page.html.j2")
    judging = read_record(folder / "judging.json", Judging, "run esckit judge into its folder again")
    page = template.render(judging=judging, judgings={"": judging}, style=style, esckit_version=__version__)
    with atomic_write(folder / "judging.html") as file:
        file.write(page)
    return folder / "judging.html"
