"""What a finished run prints."""

from pathlib import Path

from esckit.measures.results import Comparison
from esckit.report.figure_tables import comparisons_table, draw, figures_table
from esckit.report.reading import read_record

__all__ = ["print_results"]


def print_results(folder: Path) -> None:
    """Print every evaluation of a run's folder with its tests, and where its report is."""
    for path in sorted(folder.glob("*/evaluation.json")):
        evaluation = read_record(path, Comparison)
        print(draw(figures_table(evaluation.files)))
        if evaluation.comparisons:
            print(draw(comparisons_table(evaluation)))
    report = folder / "report.html"
    print(f"report: {report}" if report.exists() else f"run: {folder}")
