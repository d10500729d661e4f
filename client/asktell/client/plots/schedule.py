"""The picture of trainings that go on from each other: their parameters and results, interval by interval or rung by rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from asktell.client.plots.canvas import BLUE, GREY, ORANGE, UPRIGHT, Picture, canvas, letters, wrapped
from asktell.client.plots.outcomes import is_measured, short_name
from asktell.client.plots.scales import dress, place, spans_decades
from asktell.client.spec import ParameterSpec
from asktell.client.values import StudyRecord, TrialRecord

Place = tuple[float, float]
PANEL = (8.4, 2.1)


def schedule(trials: Sequence[TrialRecord], line: Sequence[TrialRecord], study: StudyRecord) -> Picture:
    """A panel for each parameter and one for the objective, all trainings in grey and the line's in colour.

    The horizontal axis counts the intervals, of a fidelity the rungs, that a state had been trained for; where a training takes over
    another's state, its parameters step from that one's.
    """
    depths = _depths(trials)
    title = f"{short_name(study)}: the schedule of trial {line[-1].number}"
    with canvas(title, rows=len(study.parameters) + 1, size=PANEL) as (figure, rows):
        *steps, results = (row[0] for row in rows)
        for axes, parameter in zip(steps, study.parameters, strict=True):
            dress(axes, "y", parameter)
            _parameter(axes, parameter, trials, depths, colour=GREY, width=0.8, alpha=0.45)
            _parameter(axes, parameter, line, depths, colour=BLUE, width=2.2, alpha=1.0)
            _finish(axes, wrapped(parameter.name, letters(UPRIGHT * PANEL[1])), max(depths.values()))
        _results(results, trials, line, study, depths)
        taken = [depths[now.number] - 1 for before, now in pairwise(line) if before.member != now.member]
        for axes in (*steps, results):
            for interval in taken:
                axes.axvline(interval, color=ORANGE, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        results.set_xlabel("interval" if study.fidelity is None else "rung")
        _legend(steps[0], taken=bool(taken))
    return figure


def _depths(trials: Sequence[TrialRecord]) -> dict[int, int]:
    """How many intervals each trial's state has been trained for in the end, by the trial's number."""
    depths: dict[int, int] = {}
    for trial in trials:
        depths[trial.number] = depths.get(trial.parent, 0) + 1
    return depths


def _parameter(
    axes: Axes, parameter: ParameterSpec, trials: Sequence[TrialRecord], depths: Mapping[int, int], **look: Any
) -> None:
    heights = {trial.number: place(parameter, trial.parameters.get(parameter.name)) for trial in trials}
    lines: list[list[Place]] = []
    for trial in trials:
        height, end = heights[trial.number], depths[trial.number]
        if height is None:
            continue
        before = heights.get(trial.parent)
        riser = [] if before is None else [(end - 1.0, before)]
        lines.append([*riser, (end - 1.0, height), (float(end), height)])
    _add(axes, lines, **look)


def _add(axes: Axes, lines: Sequence[Sequence[Place]], *, colour: str, width: float, alpha: float) -> None:
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=width, alpha=alpha, capstyle="round"))
    axes.autoscale_view()


def _results(
    axes: Axes,
    trials: Sequence[TrialRecord],
    line: Sequence[TrialRecord],
    study: StudyRecord,
    depths: Mapping[int, int],
) -> None:
    objective = study.objectives[0]
    told = {t.number: t.metrics[objective.metric].value for t in trials if is_measured(t, objective)}
    if spans_decades(list(told.values())):
        axes.set_yscale("log")
    for some, colour, width, alpha in ((trials, GREY, 0.8, 0.45), (line, BLUE, 2.2, 1.0)):
        lines = [
            [(float(depths[trial.parent]), told[trial.parent]), (float(depths[trial.number]), told[trial.number])]
            for trial in some
            if trial.number in told and trial.parent in told
        ]
        _add(axes, lines, colour=colour, width=width, alpha=alpha)
        places = [(depths[trial.number], told[trial.number]) for trial in some if trial.number in told]
        axes.scatter([x for x, _ in places], [y for _, y in places], s=6 * width, color=colour, alpha=alpha, zorder=3)
    _finish(axes, wrapped(f"{objective.metric} ({objective.goal})", letters(UPRIGHT * PANEL[1])), max(depths.values()))


def _finish(axes: Axes, label: str, intervals: int) -> None:
    axes.set_ylabel(label)
    axes.set_xlim(0.0, intervals)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=GREY, alpha=0.18, linewidth=0.8)


def _legend(axes: Axes, *, taken: bool) -> None:
    entries = [
        Line2D([], [], color=BLUE, linewidth=2.2, label="this training"),
        Line2D([], [], color=GREY, linewidth=0.8, label="all others"),
    ]
    if taken:
        entries.append(
            Line2D([], [], color=ORANGE, linewidth=0.9, linestyle=(0, (4, 3)), label="goes on from another's state")
        )
    axes.legend(handles=entries, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(entries), fontsize=9)
