"""The results table that commands print."""

import json
from pathlib import Path
from typing import Any

__all__ = ["print_evaluations", "print_results"]


def print_results(folder: Path) -> None:
    """Print every evaluation of a run's folder, and where its report is."""
    for path in sorted(folder.glob("*/evaluation.json")):
        print_evaluations(json.loads(path.read_text(encoding="utf-8")))
    report = folder / "report.html"
    print(f"report: {report}" if report.exists() else f"run: {folder}")


def print_evaluations(evaluations: dict[str, dict[str, Any]]) -> None:
    """Print a table, a row a predictions file, then each warning once."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Results (per cent; B: 0 is no preference bias; brackets: 95% bootstrap over dialogues)")
    columns = ("predictions", "past", "turns", "Q", "Q_w", "B", "floor", "B debiased", "BLEU-1", "F1", "R-L", "Dist-2")
    for column in columns:
        table.add_column(column, justify="left" if column in ("predictions", "past") else "right", no_wrap=True)
    for name, figures in evaluations.items():
        table.add_row(name, str(figures["past_strategies"]), str(figures["n"]), *_strategy(figures), *_text(figures))
    console = Console(width=None if Console().is_terminal else 140)
    console.print(table)
    for warning in dict.fromkeys(text for figures in evaluations.values() for text in figures["warnings"]):
        console.print(f"note: {warning}", highlight=False)


def _strategy(figures: dict[str, Any]) -> list[str]:
    strategy = figures["strategy"]
    if strategy is None:
        return ["-"] * 5
    q, q_w = (f"{_percent(strategy[key])}\n{_interval(strategy[f'{key}_interval'], 100)}" for key in ("q", "q_w"))
    if strategy["b"] is None:
        return [q, q_w, "-", "-", "-"]
    b = f"{strategy['b']:.2f}\n{_interval(strategy['b_interval'], 1)}"
    return [q, q_w, b, f"{strategy['b_floor']:.2f}", f"{strategy['b_debiased']:.2f}"]


def _text(figures: dict[str, Any]) -> list[str]:
    text = figures["text"]
    keys = ("bleu1_utterance", "f1_utterance", "rouge_l_utterance", "distinct2_corpus")
    return [_percent(text[key]) for key in keys] if text else ["-"] * 4


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(bounds: list[float], scale: float) -> str:
    low, high = (bound * scale for bound in bounds)
    return f"({low:.1f}, {high:.1f})" if scale == 100 else f"({low:.2f}, {high:.2f})"
