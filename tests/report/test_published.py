"""Figures of papers that stand beside a run's own."""

import math

from esckit.report.report_tables import published_figures


def test_the_figures_of_a_search_s_paper_stand_beside_a_search_alone() -> None:
    plain, searched = published_figures({"predict"}), published_figures({"predict", "search"})
    assert searched[: len(plain)] == plain
    added = searched[len(plain) :]
    assert [len(rows) for _, rows in added] == [17, 17, 17, 5]
    assert all(source.startswith("CSO") for source, _ in added)
    assert not any(source.startswith("CSO") for source, _ in plain)


def test_published_figures_are_possible() -> None:
    """Of eight strategies B is at most the root of seven; shares are per cent."""
    for source, rows in published_figures({"search"}):
        for row in rows:
            assert 0 <= row.b <= round(math.sqrt(7), 2), (source, row)
            shares = (row.distinct1, row.bleu1, row.f1, row.rouge_l, row.q_w, row.q)
            assert all(0 < share < 100 for share in shares if share is not None), (source, row)
