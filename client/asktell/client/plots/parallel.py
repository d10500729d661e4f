"""The picture of trials in parallel coordinates: a line for each, through its parameters to what it came to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import log10

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from asktell.client.plots.canvas import CHARACTER, GREY, INK, ORANGE, Picture, canvas, legend, wrapped
from asktell.client.plots.outcomes import counted, is_measured, short_name, values
from asktell.client.plots.scales import Tick, is_log, label, place, spans_decades, ticks
from asktell.client.points import options
from asktell.client.spec import Float, Int, Objective, ParameterSpec
from asktell.client.values import StudyRecord, TrialRecord

APART = 1.45
"""Inches between two axes."""
HEIGHT = 4.8
INACTIVE = -0.12
"""Where the values of inactive parameters lie, of an axis from 0 to 1."""
FEW = 6
CLEAR = 60.0
"""More lines than so many are drawn the fainter the more there are."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A vertical line from 0 to 1, its words, and where each trial crosses it."""

    name: str
    ticks: Sequence[Tick]
    heights: Sequence[float]


def parallel(
    trials: Sequence[TrialRecord], study: StudyRecord, *, objective: Objective, optimal: Collection[int]
) -> Picture:
    """Trials with a result, the darker the better in the objective, the optimal ones in orange; inactive parameters lie below their axis."""
    measured = [trial for trial in trials if all(is_measured(trial, each) for each in study.objectives)]
    ordered = sorted(
        measured, key=lambda trial: trial.metrics[objective.metric].value, reverse=objective.goal == "minimize"
    )
    every = [*(_dial(spec, ordered) for spec in study.parameters), *(_goal(each, ordered) for each in study.objectives)]
    title = f"{short_name(study)}: {counted(len(measured))} of {len(trials):,} with a result"
    with canvas(title, size=(APART * len(every) + 0.6, HEIGHT)) as (figure, ((axes,),)):
        for position, axis in enumerate(every):
            _axis(axes, position, axis)
        _lines(axes, every, ordered, optimal)
        axes.set_xticks(range(len(every)), [wrapped(axis.name, int(APART / CHARACTER) - 2, lines=4) for axis in every])
        axes.set_xlim(-0.15, len(every) - 0.35)
        axes.set_ylim(min([0.0, *(height for axis in every for height in axis.heights)]) - 0.04, 1.04)
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        _explain(axes, objective, several=len(study.objectives) > 1, optimal=bool(optimal))
        legend(figure)
    return figure


def _dial(spec: ParameterSpec, trials: Sequence[TrialRecord]) -> Axis:
    places = [place(spec, trial.parameters.get(spec.name)) for trial in trials]
    if isinstance(spec, Float | Int):
        axis = _numbers(spec.name, places, spec.low, spec.high, log=is_log(spec), integer=isinstance(spec, Int))
    else:
        words = [label(option) for option in options(spec)]
        end = max(len(words) - 1, 1)
        heights = [INACTIVE if at is None else at / end for at in places]
        axis = Axis(spec.name, [(rank / end, text) for rank, text in enumerate(words)], heights)
    off = [] if None not in places else [(INACTIVE, "inactive")]
    return Axis(axis.name, [*off, *axis.ticks], axis.heights)


def _goal(objective: Objective, trials: Sequence[TrialRecord]) -> Axis:
    found = values(trials, objective.metric)
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    return _numbers(f"{objective.metric} ({objective.goal})", found, low, high, log=spans_decades(found))


def _numbers(
    name: str, places: Sequence[float | None], low: float, high: float, *, log: bool, integer: bool = False
) -> Axis:
    def height(number: float) -> float:
        if low >= high:
            return 0.5
        return log10(number / low) / log10(high / low) if log else (number - low) / (high - low)

    written = [(height(at), text) for at, text in ticks(low, high, log=log, integer=integer)]
    return Axis(name, written, [INACTIVE if at is None else height(at) for at in places])


def _axis(axes: Axes, position: int, axis: Axis) -> None:
    axes.plot([position, position], [0.0, 1.0], color=GREY, linewidth=1.0, zorder=3)
    small = 9 if len(axis.ticks) <= 10 else 7
    for height, text in axis.ticks:
        axes.plot([position, position + 0.03], [height, height], color=GREY, linewidth=1.0, zorder=3)
        box = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.6}
        axes.text(position + 0.05, height, text, va="center", fontsize=small, color=INK, bbox=box, zorder=5)


def _lines(axes: Axes, every: Sequence[Axis], trials: Sequence[TrialRecord], optimal: Collection[int]) -> None:
    """The worst first: what is better lies on top."""
    lines = [list(enumerate(row)) for row in zip(*(axis.heights for axis in every), strict=True)]
    last = max(len(lines) - 1, 1)
    shades = [mpl.colormaps["Blues"](0.2 + 0.75 * rank / last) for rank in range(len(lines))]
    faint = min(0.75, max(0.2, CLEAR / max(len(lines), 1)))
    axes.add_collection(LineCollection(lines, colors=shades, linewidths=1.1, alpha=faint, label="_trials"))
    best = [line for line, trial in zip(lines, trials, strict=True) if trial.number in optimal]
    axes.add_collection(
        LineCollection(best, colors=ORANGE, linewidths=2.2 if len(best) < FEW else 1.2, zorder=4, label="_optimal")
    )


def _explain(axes: Axes, objective: Objective, *, several: bool, optimal: bool) -> None:
    """Entries of the legend; the lines' own have no one colour."""
    dark = Line2D([], [], color=mpl.colormaps["Blues"](0.9), linewidth=1.4)
    of = f" in {wrapped(objective.metric, 40, lines=1)}" if several else ""
    dark.set_label(f"a trial: the darker, the better{of}")
    axes.add_line(dark)
    if optimal:
        axes.add_line(Line2D([], [], color=ORANGE, linewidth=2.2, label="front" if several else "best"))
