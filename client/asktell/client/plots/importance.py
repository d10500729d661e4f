"""The picture of what matters."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes

from asktell.client.plots.canvas import BLUE, INK, Picture, canvas, letters, wrapped

NAME = 38
"""Letters of a parameter's name in one line."""


def importance(shares: Mapping[str, Mapping[str, float]], *, study: str, method: str) -> Picture:
    """Bars of how much each parameter matters, a panel for each objective; `method` says in words by which measure."""
    names = {name for found in shares.values() for name in found}
    bar = 0.3 if max(map(len, names)) <= NAME else 0.45
    height = 1.6 + bar * max(map(len, shares.values()))
    width = max(5.2, 7.2 / len(shares))
    with canvas(
        f"{study}: importance of parameters", columns=len(shares), size=(width, height), least=0.6 * height - 0.5
    ) as (figure, axes):
        for panel, (metric, found) in zip(axes[0], shares.items(), strict=True):
            _bars(panel, found)
            panel.set_title(wrapped(metric, letters(width - 2.4)))
            panel.set_xlabel(method)
    return figure


def _bars(axes: Axes, shares: Mapping[str, float]) -> None:
    places = range(len(shares))
    bars = axes.barh(places, list(shares.values()), color=BLUE, alpha=0.85, height=0.65)
    axes.bar_label(bars, labels=[f"{share:.1%}" for share in shares.values()], padding=4, color=INK)
    axes.set_yticks(places, [wrapped(name, NAME, lines=2) for name in shares])
    axes.invert_yaxis()
    axes.set_xlim(0.0, max(max(shares.values(), default=0.0) * 1.18, 0.05))
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
