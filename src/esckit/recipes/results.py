"""What a finished run prints."""

import json
from pathlib import Path

from esckit.measures.tables import draw, figures_table

__all__ = ["print_results"]


def print_results(folder: Path) -> None:
    """Print every evaluation of a run's folder, and where its report is."""
    for path in sorted(folder.glob("*/evaluation.json")):
        print(draw(figures_table(json.loads(path.read_text(encoding="utf-8")))))
    report = folder / "report.html"
    print(f"report: {report}" if report.exists() else f"run: {folder}")
