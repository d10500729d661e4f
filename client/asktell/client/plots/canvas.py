"""What all pictures have in common: the figure, its style, its title, and a legend that stands outside of what is drawn."""

from __future__ import annotations

import io
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK, BLUE, ORANGE, GREY, RED, PALE = "#1f2933", "#1f6feb", "#d9730d", "#6b7785", "#c93c37", "#a9c4f2"
PANEL = (4.6, 3.8)
"""Inches of one panel."""
LEAST_WIDTH = 5.2
"""Inches: room for a title over a single small panel."""
UPRIGHT = 0.62
"""Of a panel's height at least so much is its axes."""
CHARACTER = 0.085
"""Inches that a letter of ten points takes, about."""
NOTEBOOK_DPI = 100
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
_styled = threading.Lock()
"""The style is one for the whole process: two threads that draw at once would leave it behind."""


class Picture(Figure):
    """A matplotlib figure, which a notebook shows at the end of a cell, pyplot or not. `savefig` writes it."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """The figure as IPython asks for it, with the size in which it is to be shown."""
        file = io.BytesIO()
        self.savefig(file, format="png")
        width, height = self.get_size_inches()
        return file.getvalue(), {"width": round(width * NOTEBOOK_DPI), "height": round(height * NOTEBOOK_DPI)}


@contextmanager
def canvas(
    title: str,
    *,
    rows: int = 1,
    columns: int = 1,
    size: tuple[float, float] = PANEL,
    least: float | None = None,
) -> Iterator[tuple[Picture, Any]]:
    """A figure, and its `rows x columns` axes to draw on.

    `size` is that of a panel in inches, with its words. The figure grows until its axes are `least` inches high, by default 0.62 of a panel.
    """
    with _styled, mpl.rc_context(_STYLE):
        width = max(size[0] * columns, LEAST_WIDTH)
        figure = Picture(figsize=(width, size[1] * rows), dpi=150, layout="constrained")
        words = wrapped(title, int(width / (1.45 * CHARACTER)), lines=4)
        figure.suptitle(words, x=0.01, ha="left", fontsize=13, fontweight="bold")
        yield figure, figure.subplots(rows, columns, squeeze=False)
        for axes in figure.axes:
            # Said to each: ticks that are made while the figure is shown would have the style of then.
            axes.tick_params(which="both", colors=INK)
        _grow(figure, rows, UPRIGHT * size[1] if least is None else least)


def _grow(figure: Figure, rows: int, least: float) -> None:
    """Make room for long titles, labels and legends, which would else take it from what is drawn."""
    figure.draw_without_rendering()
    shown = [axes.get_window_extent().height / figure.dpi for axes in figure.axes if axes.axison]
    if min(shown) < least:
        figure.set_figheight(figure.get_figheight() + rows * (least - min(shown)))
        figure.draw_without_rendering()


def legend(figure: Figure) -> None:
    """One legend for all axes, below them: among points its own would read as points."""
    found: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        widths = [0.9 * CHARACTER * len(label) + 0.75 for label in found]
        room = figure.get_figwidth()
        columns = len(found) if sum(widths) < room else max(1, int(room / max(widths)))
        box = figure.legend(
            list(found.values()), list(found), loc="outside lower left", ncols=columns, fontsize=9, labelspacing=0.7
        )
        for shown in box.legend_handles:
            if isinstance(shown, Line2D):
                shown.set_alpha(1.0)  # Of a thousand faint lines one alone would not be seen.


def wrapped(text: str, width: int, *, lines: int = 3) -> str:
    """The text in at most so many lines of `width` letters, broken behind spaces, dots, dashes and the like; its middle is left out.

    A dollar sign is one: matplotlib takes what stands between two for a formula.
    """
    rows = [""]
    for piece in re.findall(r"[^\s._:/\-]*[\s._:/\-]?", text):
        if rows[-1] and len(rows[-1]) + len(piece.rstrip()) > width:
            rows.append("")
        rows[-1] += piece
        while len(rows[-1].rstrip()) > width:
            rows[-1:] = [rows[-1][:width], rows[-1][width:]]
    rows = [row.strip() for row in rows]
    if len(rows) > lines:
        rows = [*rows[: lines - 1], f"…{rows[-1]}"]
    return literal("\n".join(rows))


def shortened(text: str, most: int) -> str:
    """The text in one line of at most so many letters."""
    return literal(text if len(text) <= most else f"{text[: most - 1]}…")


def literal(text: str) -> str:
    """The text as matplotlib shows it letter by letter."""
    return text.replace("$", r"\$")


def letters(inches: float) -> int:
    """How many letters of ten points find room."""
    return max(8, math.floor(inches / CHARACTER))
