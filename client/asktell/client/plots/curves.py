"""The picture of learning curves: what the trials of a study reported on the way."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from asktell.client.plots.canvas import (
    BLUE,
    GREY,
    ORANGE,
    PALE,
    RED,
    UPRIGHT,
    Picture,
    canvas,
    legend,
    letters,
    wrapped,
)
from asktell.client.plots.outcomes import counted, short_name
from asktell.client.plots.scales import spans_decades
from asktell.client.values import StudyRecord, TrialRecord, TrialState

SIZE = (8.4, 4.4)
CLEAR = 60.0
"""More lines than so many are drawn the fainter the more there are."""

Curve = list[tuple[float, float]]
_STATES = {
    "stopped early": (PALE, (TrialState.STOPPED,)),
    "failed": (RED, (TrialState.FAILED, TrialState.INFEASIBLE)),
    "not ended": (GREY, (TrialState.ACTIVE, TrialState.QUEUED, TrialState.CANCELLED)),
    "succeeded": (BLUE, (TrialState.SUCCEEDED,)),
}


def curves(trials: Sequence[TrialRecord], study: StudyRecord, *, metric: str, optimal: Collection[int]) -> Picture:
    """The metric over steps, a line for each trial with measurements; those that were stopped early lighter, the optimal ones in orange."""
    found = {trial.number: curve for trial in trials if (curve := curve_of(trial, metric))}
    with canvas(f"{short_name(study)}: {len(found):,} of {counted(len(trials))} by step", size=SIZE) as (
        figure,
        ((axes,),),
    ):
        for label, (colour, states) in _STATES.items():
            some = [trial.number for trial in trials if trial.state in states and trial.number not in optimal]
            faint = min(0.8, max(0.08, CLEAR / max(len(found), 1)))
            _lines(axes, [found[number] for number in some if number in found], label, colour, alpha=faint, width=1.1)
        best = [number for number in sorted(optimal) if number in found]
        words = f"best: trial {best[0]}" if len(best) == 1 and len(study.objectives) == 1 else "front"
        _lines(axes, [found[number] for number in best], words, ORANGE, alpha=1.0, width=2.2, zorder=4)
        if spans_decades([value for curve in found.values() for _, value in curve]):
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        steps = {step for curve in found.values() for step, _ in curve}
        if len(steps) == 1:
            axes.set_xlim(min(steps) - 1.0, max(steps) + 1.0)
        axes.grid(axis="y", color=GREY, alpha=0.18, linewidth=0.8)
        axes.set_xlabel("step")
        goals = {each.metric: f" ({each.goal})" for each in study.objectives}
        axes.set_ylabel(wrapped(f"{metric}{goals.get(metric, '')}", letters(UPRIGHT * SIZE[1])))
        legend(figure)
    return figure


def curve_of(trial: TrialRecord, metric: str) -> Curve:
    """The finite values that a trial reported, each with its step."""
    told = [(each.step, each.metrics[metric].value) for each in trial.measurements if metric in each.metrics]
    return [(float(step), value) for step, value in told if math.isfinite(value)]


def _lines(
    axes: Axes, found: Sequence[Curve], label: str, colour: str, *, alpha: float, width: float, zorder: float = 2.0
) -> None:
    """The curves, each with a dot where it ends."""
    if not found:
        return
    count = "" if label.startswith("best") else f" ({len(found):,})"
    lines = LineCollection(found, colors=colour, linewidths=width, alpha=alpha, zorder=zorder, label=label + count)
    axes.add_collection(lines)
    ends = [curve[-1] for curve in found]
    axes.scatter(
        [x for x, _ in ends], [y for _, y in ends], s=8 * width, color=colour, alpha=alpha, linewidths=0, zorder=zorder
    )
    axes.autoscale_view()
