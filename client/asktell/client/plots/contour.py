"""The picture of what is expected of two parameters together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asktell.client.plots.canvas import INK, ORANGE, UPRIGHT, Picture, canvas, legend, letters, shortened, wrapped
from asktell.client.plots.outcomes import has_finite
from asktell.client.plots.scales import dress, place
from asktell.client.spec import Float, Int, ParameterSpec, ParameterValue
from asktell.client.values import Prediction, TrialRecord, TrialState

PANEL = (5.2, 4.4)
LEVELS = 12
LONGEST = 40
"""Letters in the legend."""


@dataclass(frozen=True, slots=True)
class Surface:
    """What is expected of a metric at `values` of two parameters, the others held; `cells` has a row for each value of `up`.

    None where nobody may look: a constraint is broken, or one of the two is inactive. `here` is the start.
    """

    metric: str
    across: ParameterSpec
    up: ParameterSpec
    values: tuple[Sequence[ParameterValue], Sequence[ParameterValue]]
    cells: Sequence[Sequence[Prediction | None]]
    here: Mapping[str, ParameterValue]


def contour(surface: Surface, trials: Sequence[TrialRecord], *, study: str, around: str) -> Picture:
    """Two panels: the mean that is expected with the trials on it, and its standard deviation."""
    title = f"{study}: {surface.metric} expected around {around}"
    with canvas(title, columns=2, size=PANEL) as (figure, ((mean, deviation),)):
        _surface(figure, mean, surface, [[_mean(cell) for cell in row] for row in surface.cells], colours="viridis")
        _surface(figure, deviation, surface, [[_sd(cell) for cell in row] for row in surface.cells], colours="Purples")
        mean.set_title("mean")
        deviation.set_title("standard deviation")
        for panel in (mean, deviation):
            _trials(panel, surface, trials, around)
        legend(figure)
    return figure


def _mean(cell: Prediction | None) -> float:
    return math.nan if cell is None else cell.mean


def _sd(cell: Prediction | None) -> float:
    return math.nan if cell is None else cell.standard_deviation


def _surface(figure: Figure, axes: Axes, surface: Surface, heights: list[list[float]], *, colours: str) -> None:
    xs: list[Any] = [place(surface.across, value) for value in surface.values[0]]
    ys: list[Any] = [place(surface.up, value) for value in surface.values[1]]
    cells: Any = np.ma.masked_invalid(heights)
    dress(axes, "x", surface.across, width=PANEL[0] - 1.6)
    dress(axes, "y", surface.up)
    smooth = all(isinstance(spec, Float | Int) for spec in (surface.across, surface.up))
    if smooth and cells.count() and cells.max() > cells.min():
        drawn: Any = axes.contourf(xs, ys, cells, levels=LEVELS, cmap=colours)
        axes.contour(xs, ys, cells, levels=LEVELS, colors="white", linewidths=0.4, alpha=0.6)
    else:
        drawn = axes.pcolormesh(xs, ys, cells, shading="nearest", cmap=colours)
    figure.colorbar(drawn, ax=axes)
    axes.set_xlim(*_ends(surface.across, xs))
    axes.set_ylim(*_ends(surface.up, ys))
    axes.set_xlabel(wrapped(surface.across.name, letters(PANEL[0] - 1.6), lines=2))
    axes.set_ylabel(wrapped(surface.up.name, letters(UPRIGHT * PANEL[1]), lines=2))


def _ends(spec: ParameterSpec, places: Sequence[Any]) -> tuple[float, float]:
    """Where the axis ends: of a range at its ends, of choices half a place beyond."""
    return (places[0], places[-1]) if isinstance(spec, Float | Int) else (places[0] - 0.5, places[-1] + 0.5)


def _trials(axes: Axes, surface: Surface, trials: Sequence[TrialRecord], around: str) -> None:
    specs = (surface.across, surface.up)
    told = [trial for trial in trials if trial.state is TrialState.SUCCEEDED and has_finite(trial, surface.metric)]
    both = [tuple(place(spec, trial.parameters.get(spec.name)) for spec in specs) for trial in told]
    points = [pair for pair in both if None not in pair]
    if points:
        words = f"trials with a result ({len(points):,})"
        size = 18 if len(points) < 300 else 7
        xs, ys = zip(*points, strict=True)
        axes.scatter(
            xs,
            ys,
            s=size,
            color="white",
            edgecolors=INK,
            linewidths=0.7,
            label=words,
            clip_on=False,
            zorder=4,
        )
    x, y = (place(spec, surface.here.get(spec.name)) for spec in specs)
    if x is not None and y is not None:
        axes.plot(
            [x],
            [y],
            "X",
            color=ORANGE,
            markeredgecolor="white",
            markersize=11,
            linestyle="none",
            label=shortened(around, LONGEST),
            clip_on=False,
            zorder=5,
        )
