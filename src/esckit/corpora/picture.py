"""Strategies by sixth of the dialogue as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from esckit.conversation.sixths import SIXTHS
from esckit.errors import EsckitError
from esckit.files import atomic

__all__ = ["draw_sixths"]

# Eight colours that people with colour-blindness tell apart (Okabe and Ito), and which of them are dark.
_COLOURS: Final = ("#0072B2", "#56B4E9", "#009E73", "#F0E442", "#E69F00", "#D55E00", "#CC79A7", "#BBBBBB")
_DARK: Final = ("#0072B2", "#D55E00")
_SMALLEST_FIGURE: Final = 0.06
_SETTINGS: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "stages",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw_sixths(statistics: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw the shares of strategies in each sixth, a panel a corpus; the same figures give the same file.

    Args:
        statistics: `corpus_statistics` by the corpus's name.
        path: the picture to write; its ending says the kind: ``.svg``, ``.png`` or ``.pdf``.

    Raises:
        EsckitError: no corpus has strategies, or the picture cannot be written.
    """
    labelled = {name: figures for name, figures in statistics.items() if any(figures["strategy_counts"].values())}
    if not labelled:
        raise EsckitError("there is no strategy to draw: give a corpus that is labelled with strategies.")
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise EsckitError(f"{path} has an ending that no picture has: write .svg, .png or .pdf.")
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.5, 4.2 * len(labelled)), layout="constrained")
        panels = figure.subplots(len(labelled), squeeze=False)[:, 0]
        for panel, (name, figures) in zip(panels, labelled.items(), strict=True):
            _draw_panel(panel, name, figures["strategy_by_stage"])
        dates = {".svg": "Date", ".pdf": "CreationDate"}
        metadata = {dates[path.suffix]: None} if path.suffix in dates else None
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=150, metadata=metadata, format=path.suffix[1:])


def _draw_panel(axes: Any, name: str, sixths: list[dict[str, float]]) -> None:
    floors = [0.0] * SIXTHS
    for number, strategy in enumerate(sixths[0]):
        shares = [shares[strategy] for shares in sixths]
        colour = _COLOURS[number % len(_COLOURS)]
        ink = "white" if colour in _DARK else "black"
        axes.bar(range(SIXTHS), shares, 0.82, bottom=floors, color=colour, label=strategy)
        for place, (floor, share) in enumerate(zip(floors, shares, strict=True)):
            if share >= _SMALLEST_FIGURE:
                axes.text(place, floor + share / 2, f"{share:.0%}", ha="center", va="center", fontsize=8, color=ink)
        floors = [floor + share for floor, share in zip(floors, shares, strict=True)]
    axes.set_title(f"{name}: strategy by stage", loc="left")
    axes.set_xticks(range(SIXTHS), [f"{place + 1}/{SIXTHS}" for place in range(SIXTHS)])
    axes.set_xlabel("sixth of the dialogue")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
