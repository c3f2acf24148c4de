"""The picture of strategy by stage."""

from pathlib import Path

import pytest

from esckit.corpora import corpus_statistics, load_corpus
from esckit.corpora.corpus_statistics import draw_sixths
from esckit.errors import EsckitError
from esckit.strategy import ESCONV

from .items import conversations

STARTER = {"starter": corpus_statistics(load_corpus("starter").train)}


@pytest.mark.parametrize(("ending", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_same_figures_give_the_same_file(ending: str, magic: bytes, tmp_path: Path) -> None:
    first, second = tmp_path / f"new/one{ending}", tmp_path / f"two{ending}"
    draw_sixths(STARTER, first)
    draw_sixths(STARTER, second)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(magic)


def test_a_panel_a_corpus_with_every_strategy_and_stage_in_words(tmp_path: Path) -> None:
    draw_sixths(
        {**STARTER, "mine": corpus_statistics(conversations(2)), "none": corpus_statistics([])}, tmp_path / "p.svg"
    )
    text = (tmp_path / "p.svg").read_text(encoding="utf-8")
    assert [text.count(f">{name}: strategy by stage<") for name in ("starter", "mine", "none")] == [1, 1, 0]
    assert all(text.count(f">{label}<") == 2 for label in ESCONV.labels)
    assert all(text.count(f">{n}/6<") == 2 for n in range(1, 7))
    share = STARTER["starter"]["strategy_by_stage"][0]["Question"]
    assert f">{share:.0%}<" in text


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    with pytest.raises(EsckitError, match="there is no strategy to draw: give a corpus that is labelled"):
        draw_sixths({"none": corpus_statistics([])}, tmp_path / "p.svg")
    with pytest.raises(EsckitError, match=r"p.txt has an ending that no picture has: write .svg, .png or .pdf\."):
        draw_sixths(STARTER, tmp_path / "p.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(EsckitError, match=r"p.svg cannot be written \(.*\): free space or choose another place"):
        draw_sixths(STARTER, tmp_path / "file/p.svg")
