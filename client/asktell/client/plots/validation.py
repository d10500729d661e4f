"""The picture of a surrogate's cross-validation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from asktell.client.plots.canvas import BLUE, GREY, ORANGE, PANEL, Picture, canvas, letters, wrapped
from asktell.client.plots.outcomes import counted
from asktell.client.values import LeaveOneOut

ROOM = letters(PANEL[0] - 0.8)
MOST_TICKS = 5
"""Across: numbers of seven digits have room beside each other."""


def validation(found: Sequence[LeaveOneOut], *, study: str) -> Picture:
    """Two panels for each objective: results beside what was expected without them, and how often they are as near as was said."""
    metrics = list(dict.fromkeys(left.metric for left in found))
    with canvas(f"{study}: leave-one-out cross-validation", rows=len(metrics), columns=2) as (figure, axes):
        for (scatter, calibration), metric in zip(axes, metrics, strict=True):
            lefts = [left for left in found if left.metric == metric]
            _beside(scatter, metric, lefts)
            _coverage(calibration, lefts)
    return figure


def _beside(axes: Axes, metric: str, lefts: Sequence[LeaveOneOut]) -> None:
    observed, means = [left.observed for left in lefts], [left.predicted.mean for left in lefts]
    errors = [left.predicted.standard_deviation for left in lefts]
    low, high = min(observed + means), max(observed + means)
    axes.plot([low, high], [low, high], color=GREY, linewidth=1.2, linestyle=(0, (5, 4)), zorder=1)
    axes.errorbar(
        observed, means, yerr=errors, fmt="o", markersize=4.5, color=BLUE, ecolor=BLUE, alpha=0.6, elinewidth=1
    )
    margin = 0.08 * (high - low) or 1.0
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(low - 3 * margin, high + 3 * margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=MOST_TICKS, steps=[1, 2, 5, 10]))
    axes.set_xlabel(wrapped(f"{metric}, observed", ROOM))
    axes.set_ylabel("predicted from the others, ± 1 sd")
    axes.set_title(wrapped(f"{metric}: {counted(len(lefts))}", ROOM - 4))


def _coverage(axes: Axes, lefts: Sequence[LeaveOneOut]) -> None:
    """The share of results within so many standard deviations, beside what it is where errors are normal."""
    radii = [place / 50 for place in range(151)]
    axes.plot(radii, [normal_share(radius) for radius in radii], color=GREY, linestyle=(0, (5, 4)), label="as promised")
    axes.step(radii, [share_within(lefts, radius) for radius in radii], where="post", color=BLUE, label="observed")
    for radius in (1.0, 2.0):
        share = share_within(lefts, radius)
        axes.plot(radius, share, "o", color=ORANGE, markersize=6, zorder=3)
        text = f"{share:.0%} within {radius:g} sd\n(promised {normal_share(radius):.0%})"
        axes.annotate(text, (radius, share), xytext=(8, -26), textcoords="offset points", color=ORANGE, fontsize=9)
    axes.set_ylim(0.0, 1.04)
    axes.set_xlim(0.0, 3.0)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_xlabel("distance in predicted standard deviations")
    axes.set_ylabel("share of trials within")
    axes.set_title("calibration")
    axes.legend(loc="lower right")


def share_within(lefts: Sequence[LeaveOneOut], radius: float) -> float:
    """The share of results within so many predicted standard deviations of the predicted mean."""
    near = sum(abs(left.observed - left.predicted.mean) <= radius * left.predicted.standard_deviation for left in lefts)
    return near / len(lefts)


def normal_share(radius: float) -> float:
    """The share that lies within so many standard deviations of a normal distribution."""
    return math.erf(radius / math.sqrt(2.0))
