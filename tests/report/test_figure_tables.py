"""Figures as text, LaTeX and Markdown."""

import re
from dataclasses import replace

import pytest

from esckit.measures import compare, evaluate
from esckit.measures.results import Comparison
from esckit.report.figure_tables import Table, comparisons_table, draw, figures_table, to_latex, to_markdown
from tests.measures.rows import random_rows, row


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    rows = random_rows(60)
    other = [replace(row, predicted_strategy="Question", extra={"past_strategies": "gold"}) for row in rows]
    return compare({"a_1.jsonl": rows, "b|[2]": other}, permutations=50, resamples=20, metrics=["strategy", "text"])


def test_cells_are_the_figures(comparison: Comparison) -> None:
    table = figures_table(comparison.files)
    strategy, text = (comparison.files["a_1.jsonl"].to_json()[part] for part in ("strategy", "text"))
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert cells["predictions"] == "a_1.jsonl"
    assert (cells["past"], table.rows[1][1]) == ("not said", "gold")
    assert cells["Q"].startswith(f"{100 * strategy['q']:.1f} (")
    assert cells["B"].startswith(f"{strategy['b']:.2f} (")
    assert cells["F1"] == f"{100 * text['f1_utterance']:.1f}"
    assert "METEOR" not in table.columns
    with_meteor = figures_table({"a": evaluate(random_rows(20), resamples=5, metrics=["meteor"])})
    assert with_meteor.columns[-1] == "METEOR"
    assert with_meteor.rows[0][3:10] == ["-"] * 7


def test_groups_have_rows() -> None:
    rows = [row("Question", "Others", turn=i, group="ab"[i % 2]) for i in range(4)]
    table = figures_table({"f": evaluate(rows, resamples=5)})
    assert [(cells[0], cells[2]) for cells in table.rows] == [("f", "4"), ("f: a", "2"), ("f: b", "2")]


def test_what_is_not_there_is_a_dash() -> None:
    table = figures_table({"f": evaluate([row("Question", "none of them", predicted_text=None)], resamples=5)})
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert (cells["B"], cells["floor"], cells["BLEU-1"]) == ("-", "-", "-")


def test_differences_and_what_must_be_known(comparison: Comparison) -> None:
    table = comparisons_table(comparison)
    assert "50 permutations of dialogues; Holm over the 7 tests" in table.title
    entry = next(entry for entry in comparison.comparisons if entry.metric == "b")
    cells = next(cells for cells in table.rows if cells[2] == "B")
    assert cells[4].startswith(f"{entry.difference:+.2f} (")
    assert cells[5:] == [f"{entry.p:.4f}", f"{entry.p_holm:.4f}"]
    assert table.notes[0].startswith("The files differ in the past strategies that the model saw")


def test_terminal_shows_names_as_they_are(comparison: Comparison) -> None:
    shown = draw(figures_table(comparison.files))
    assert "b|[2]" in shown
    assert "note: " in draw(comparisons_table(comparison))


def test_latex_is_escaped_and_rectangular(comparison: Comparison) -> None:
    text = to_latex(figures_table(comparison.files))
    assert r"a\_1.jsonl & not said & 60 & " in text
    assert r"Q\_w" in text
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 3
    assert all(len(re.findall(r"(?<!\\)&", line)) == len(columns[1]) - 1 for line in rows)
    odd = Table("t", [r"\a&%$#_{}~^"], 1, [], ["50%"])
    shown = r"\textbackslash{}a\&\%\$\#\_\{\}\textasciitilde{}\textasciicircum{} \\"
    assert shown in to_latex(odd)
    assert r"\par{\footnotesize 50\%\par}" in to_latex(odd)


def test_markdown_is_escaped_and_rectangular(comparison: Comparison) -> None:
    text = to_markdown(figures_table(comparison.files))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1
    assert r"b\|[2]" in text
    assert "- The files differ" in to_markdown(comparisons_table(comparison))
