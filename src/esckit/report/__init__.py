"""One self-contained HTML file from a run's folder. docs/report.md says what stands in it."""

from esckit.report.page import write_report

__all__ = ["write_report"]
