"""The picture of several objectives: the Pareto front, and how its hypervolume came about."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal, TypeAlias

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from asktell.client.plots.canvas import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PANEL,
    UPRIGHT,
    Picture,
    canvas,
    legend,
    letters,
    wrapped,
)
from asktell.client.plots.outcomes import counted, in_states, is_feasible, is_measured, short_name
from asktell.client.spec import Objective
from asktell.client.values import Hypervolume, StudyRecord, TrialRecord, TrialState

Step: TypeAlias = tuple[float, float]

MOST_PAIRS = 10
"""More objectives than have so many pairs are drawn beside their neighbours only."""
COLUMNS = 3
UNPLACED = [state for state in TrialState if state is not TrialState.SUCCEEDED]


@dataclass(frozen=True, slots=True)
class Front:
    """A study's trials, which of them are on the front (numbers), and its hypervolume, if it has one."""

    study: StudyRecord
    trials: Sequence[TrialRecord]
    front: Collection[int]
    hypervolume: Hypervolume | None

    def draw(self) -> Picture:
        """A panel for each pair of objectives, and one for the hypervolume."""
        pairs = list(_pairs(self.study.objectives))
        count = len(pairs) + (self.hypervolume is not None)
        columns = 2 if count == 4 else min(count, COLUMNS)
        rest = in_states(self.trials, *UNPLACED)
        title = f"{short_name(self.study)}: {len(self.front)} of {counted(len(self.trials))} on the front{rest}"
        with canvas(title, rows=-(-count // columns), columns=columns, size=PANEL) as (figure, axes):
            places = iter(axes.flat)
            for pair in pairs:
                self._pair(next(places), *pair)
            if self.hypervolume is not None:
                self._history(next(places), self.hypervolume)
            for unused in places:
                unused.set_axis_off()
            legend(figure)
        return figure

    def _pair(self, axes: Axes, across: Objective, up: Objective) -> None:
        """Trials by two objectives. With just these two the front is a staircase: below it nothing was reached."""
        measured = [trial for trial in self.trials if all(is_measured(trial, each) for each in self.study.objectives)]
        if not measured:
            axes.set(xticks=[], yticks=[])
        front = [trial for trial in measured if trial.number in self.front]
        others = [trial for trial in measured if trial.number not in self.front]
        good = [trial for trial in others if is_feasible(trial, self.study)]
        bad = [trial for trial in others if not is_feasible(trial, self.study)]
        for some, colour, label in ((bad, GREY, "not feasible"), (good, BLUE, "dominated")):
            if some:
                words = f"{label} ({len(some):,})"
                axes.scatter(*_points(some, across, up), s=22, color=colour, alpha=0.5, linewidths=0, label=words)
        if front and len(self.study.objectives) == 2:
            self._staircase(axes, front, across, up)
        if front:
            axes.scatter(*_points(front, across, up), s=36, color=ORANGE, zorder=3, label=f"front ({len(front):,})")
        axes.set_xlabel(wrapped(f"{across.metric} ({across.goal})", letters(PANEL[0] - 0.8)))
        axes.set_ylabel(wrapped(f"{up.metric} ({up.goal})", letters(UPRIGHT * PANEL[1])))

    def _staircase(self, axes: Axes, front: Sequence[TrialRecord], across: Objective, up: Objective) -> None:
        """Along the front, from the reference and to it if there is one: what lies beyond it has no part in the hypervolume."""
        where: Literal["pre", "post"] = "post" if across.goal == "minimize" else "pre"
        corner = None if self.hypervolume is None else self.hypervolume.reference
        steps = sorted((_value(trial, across), _value(trial, up)) for trial in front)
        if corner is not None:
            x, y = corner[across.metric], corner[up.metric]
            axes.plot(x, y, "+", color=INK, markersize=10, label="reference")
            steps = [step for step in steps if _within(step[0], across, x) and _within(step[1], up, y)]
            steps = _closed(steps, x, where)
            axes.fill_between(*_columns(steps), y, step=where, color=ORANGE, alpha=0.10, linewidth=0)
        axes.step(*_columns(steps), where=where, color=ORANGE, linewidth=1.6)

    def _history(self, axes: Axes, hypervolume: Hypervolume) -> None:
        ended = sorted((trial for trial in self.trials if trial.end_time is not None), key=_end)
        places = {trial.number: place for place, trial in enumerate(ended, 1)}
        steps = [(places[number], value) for number, value in hypervolume.history if number in places]
        xs = [1, *(place for place, _ in steps), len(ended)]
        ys = [0.0, *(value for _, value in steps), hypervolume.value]
        axes.step(xs, ys, where="post", color=BLUE, linewidth=2)
        axes.set_ylim(bottom=0.0)
        if len(ended) == 1:
            axes.set_xlim(0.0, 2.0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.grid(axis="y", color=GREY, alpha=0.18, linewidth=0.8)
        axes.set_xlabel("trials that ended")
        axes.set_ylabel("hypervolume")
        axes.set_title(f"hypervolume {hypervolume.value:.6g}")


def _pairs(objectives: Sequence[Objective]) -> Iterator[tuple[Objective, Objective]]:
    every = list(combinations(objectives, 2))
    yield from every if len(every) <= MOST_PAIRS else pairwise(objectives)


def _points(trials: Sequence[TrialRecord], across: Objective, up: Objective) -> tuple[list[float], list[float]]:
    return [_value(trial, across) for trial in trials], [_value(trial, up) for trial in trials]


def _value(trial: TrialRecord, objective: Objective) -> float:
    return trial.metrics[objective.metric].value


def _closed(steps: Sequence[Step], end: float, where: Literal["pre", "post"]) -> list[Step]:
    """The steps, and on at the height of the last to where the reference is."""
    if not steps:
        return []
    return [*steps, (end, steps[-1][1])] if where == "post" else [(end, steps[0][1]), *steps]


def _columns(steps: Sequence[Step]) -> tuple[list[float], list[float]]:
    return [x for x, _ in steps], [y for _, y in steps]


def _within(value: float, objective: Objective, reference: float) -> bool:
    return value < reference if objective.goal == "minimize" else value > reference


def _end(trial: TrialRecord) -> tuple[float, int]:
    return (trial.end_time.timestamp() if trial.end_time else 0.0, trial.number)
