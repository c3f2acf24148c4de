"""benchmarks/search.py runs small, and its last line has every figure."""

import json

import pytest

import search


def test_the_last_line_has_every_figure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openai", reason="needs esckit[remote]")
    small = (
        "--seeds",
        "2",
        "--iterations",
        "2",
        "--delay",
        "0.001",
        "--at-once",
        "4",
        "--alone",
        "1",
        "--turns",
        "200",
    )
    monkeypatch.setattr("sys.argv", ["search.py", *small])
    monkeypatch.setenv("OPENAI_API_KEY", "")
    search.main()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(last) == {
        *("wall_time_over_least", "times_one_after_another", "peak_gigabytes", "tree_seconds", "limits"),
        *(f"turn_{name}_in_large_over_small_tree" for name in ("searched", "drawn")),
    }
    assert all(value > 0 for name, value in last.items() if name != "limits")


def test_no_two_seeds_ask_the_same() -> None:
    drawn = search.seeds(100)
    assert len({each.id for each in drawn}) == len({each.turns[0].text for each in drawn}) == 100


def test_the_large_tree_is_a_searched_one() -> None:
    tree, seconds = search.grown(300)
    assert len(tree.turns) >= 300
    assert tree.preferences
    assert seconds > 0
