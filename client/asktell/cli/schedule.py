"""The picture of trainings that go on from each other: their parameters and results, interval by interval or rung by rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, MaxNLocator

from asktell.cli.plots import BLUE, GREY, ORANGE, is_measured, panels, require_format
from asktell.cli.tables import value
from asktell.client import Bool, Categorical, Float, Int, Ordinal, StudyRecord, TrialRecord
from asktell.client.spec import ParameterSpec, ParameterValue

__all__ = ["draw", "require_format"]

Place = tuple[float, float]
PANEL = (8.4, 2.1)
WIDE = 100.0
"""Results that are so many times as large as others are drawn on a log scale."""


def draw(trials: Sequence[TrialRecord], line: Sequence[TrialRecord], study: StudyRecord, *, path: Path) -> None:
    """A panel for each parameter and one for the objective, all trainings in grey and the line's in colour.

    The horizontal axis counts the intervals, of a fidelity the rungs, that a state had been trained for; where a training takes over
    another's state, its parameters step from that one's.
    """
    depths = _depths(trials)
    title = f"{study.name.rpartition('/')[2]}: the schedule of trial {line[-1].number}"
    with panels(path, title, rows=len(study.parameters) + 1, size=PANEL) as rows:
        *steps, results = (row[0] for row in rows)
        for axes, parameter in zip(steps, study.parameters, strict=True):
            _scale(axes, parameter)
            _parameter(axes, parameter, trials, depths, colour=GREY, width=0.8, alpha=0.45)
            _parameter(axes, parameter, line, depths, colour=BLUE, width=2.2, alpha=1.0)
            _finish(axes, parameter.name, max(depths.values()))
        _results(results, trials, line, study, depths)
        taken = [depths[now.number] - 1 for before, now in pairwise(line) if before.member != now.member]
        for axes in (*steps, results):
            for place in taken:
                axes.axvline(place, color=ORANGE, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        results.set_xlabel("interval" if study.fidelity is None else "rung")
        _legend(steps[0], taken=bool(taken))


def _depths(trials: Sequence[TrialRecord]) -> dict[int, int]:
    """How many intervals each trial's state has been trained for in the end, by the trial's number."""
    depths: dict[int, int] = {}
    for trial in trials:
        depths[trial.number] = depths.get(trial.parent, 0) + 1
    return depths


def _parameter(
    axes: Axes, parameter: ParameterSpec, trials: Sequence[TrialRecord], depths: Mapping[int, int], **look: Any
) -> None:
    heights = {trial.number: _height(parameter, trial.parameters.get(parameter.name)) for trial in trials}
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


def _height(parameter: ParameterSpec, found: ParameterValue) -> float | None:
    """Where a value lies on the vertical axis; None for what is inactive."""
    match parameter:
        case Float() | Int():
            return None if not isinstance(found, float | int) else float(found)
        case _:
            words = [repr(option) for option in _options(parameter)]
            return float(words.index(repr(found))) if repr(found) in words else None


def _options(parameter: ParameterSpec) -> Sequence[ParameterValue]:
    match parameter:
        case Categorical():
            return parameter.choices
        case Ordinal():
            return parameter.values
        case Bool():
            return (False, True)
    return ()


def _scale(axes: Axes, parameter: ParameterSpec) -> None:
    match parameter:
        case Float() | Int():
            if parameter.log:
                axes.set_yscale("log")
                if parameter.high < WIDE * parameter.low:
                    _write_out(axes)
            if parameter.low < parameter.high:
                axes.set_ylim(parameter.low, parameter.high)
        case _:
            options = _options(parameter)
            axes.set_yticks(range(len(options)), [value(option) for option in options])
            axes.set_ylim(-0.5, len(options) - 0.5)


def _write_out(axes: Axes) -> None:
    """Label a short log axis by 3, 4, 6, 10 in place of powers of ten, of which it has one or two."""
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2.0, 0.5)))


def _results(
    axes: Axes,
    trials: Sequence[TrialRecord],
    line: Sequence[TrialRecord],
    study: StudyRecord,
    depths: Mapping[int, int],
) -> None:
    objective = study.objectives[0]
    told = {t.number: t.metrics[objective.metric].value for t in trials if is_measured(t, objective)}
    if told and min(told.values()) > 0 and max(told.values()) > WIDE * min(told.values()):
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
    _finish(axes, f"{objective.metric}\n({objective.goal})", max(depths.values()))


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
